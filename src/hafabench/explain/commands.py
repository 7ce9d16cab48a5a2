"""The one command that makes a cell again, and the verbs that do the same by hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.runs.run import Run

_LOCAL = "workflow/profiles/local"
_SLURM = "slurm"


@dataclass(frozen=True)
class Remake:
    """How to make a cell again.

    Attributes:
        command: one line for the shell.
        by_hand: verbs that do the same one after another.
    """

    command: str
    by_hand: tuple[str, ...]


def remake_runs(experiment: Experiment, runs: Sequence[Run], *, again: bool) -> Remake:
    """Train and evaluate runs; ``again``: also where they are done, which the workflow would leave alone."""
    forced = [str(run.checkpoint) for run in runs] if again else []
    verbs = [[verb, run.id] for run in _with_parents(runs) for verb in _verbs(run, runs)]
    tasks = dict.fromkeys(run.task for run in _with_parents(runs))
    by_hand = [verb_line(experiment, *words) for words in [*(["data", "prepare", task] for task in tasks), *verbs]]
    if forced:
        # The verb leaves a finished training alone.
        by_hand.insert(0, shlex.join(["rm", *forced]))
    return Remake(workflow_line(experiment, [run.record for run in runs], forced), tuple(by_hand))


def remake_record(experiment: Experiment, record: Path, verb: Sequence[str]) -> Remake:
    """Make one record by its verb, again where it is there."""
    forced = [str(record)] if record.is_file() else []
    return Remake(workflow_line(experiment, [record], forced), (verb_line(experiment, *verb),))


def workflow_line(experiment: Experiment, targets: Sequence[Path], forced: Sequence[str]) -> str:
    """A call of Snakemake. Targets come first: options that take several values would swallow them."""
    words = ["snakemake", *map(str, targets), *(["--forcerun", *forced] if forced else [])]
    profile = _LOCAL if experiment.config.scale == "embedded" else _SLURM
    return shlex.join([*words, "--profile", profile, "--configfile", str(experiment.file)])


def verb_line(experiment: Experiment, *words: str) -> str:
    """A call of hafabench for the experiment."""
    return shlex.join(["hafabench", *words, "--experiment", str(experiment.file)])


def _with_parents(runs: Sequence[Run]) -> list[Run]:
    found: dict[str, Run] = {}
    for run in runs:
        if run.parent is not None and not run.parent.checkpoint.is_file():
            found[run.parent.id] = run.parent
        found[run.id] = run
    return list(found.values())


def _verbs(run: Run, wanted: Sequence[Run]) -> tuple[str, ...]:
    return ("train", "evaluate") if run.id in {other.id for other in wanted} else ("train",)
