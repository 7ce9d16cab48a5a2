"""The records that an experiment expects, each with the fingerprint and the numbers that it has to contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hafabench.config.experiment import Experiment, LatencyConfig
from hafabench.config.metrics import METRICS
from hafabench.config.recipes import TASKS, ClassificationRecipe, Task
from hafabench.results.predictions import PREDICTIONS_OF, Matches
from hafabench.runs.fingerprints import (
    complexity_fingerprint,
    complexity_models,
    imported_fingerprint,
    latency_fingerprint,
)
from hafabench.runs.paths import complexity_record, imported_folder, latency_record
from hafabench.runs.run import Run, expand

# Latencies cannot be imported, because they are comparable only within one process.
IMPORTED_VERBS = ("evaluate", "complexity")


@dataclass(frozen=True)
class ExpectedRecord:
    """What a record has to contain.

    Attributes:
        fingerprint: The fingerprint that it has to carry.
        required: The model and the name of every number that it must have.
        possible: Those of numbers that it may have besides, because they are not always defined.
        run: The run whose evaluation it describes; None for a measurement of several models.
    """

    fingerprint: str
    required: frozenset[tuple[str, str]] = frozenset()
    possible: frozenset[tuple[str, str]] = frozenset()
    run: Run | None = None


def expected_records(experiment: Experiment, runs: Mapping[str, Run] | None = None) -> dict[Path, str]:
    """Every record that the experiment's tables are made from, with the fingerprint that it has to carry.

    Args:
        experiment: A checked experiment.
        runs: The runs of the experiment, if they are already expanded.
    """
    return {path: expected.fingerprint for path, expected in expected_contents(experiment, runs).items()}


def expected_contents(experiment: Experiment, runs: Mapping[str, Run] | None = None) -> dict[Path, ExpectedRecord]:
    """Every record that the experiment's tables are made from, with what it has to contain.

    Args:
        experiment: A checked experiment.
        runs: The runs of the experiment, if they are already expanded.
    """
    runs = expand(experiment) if runs is None else runs
    expected = {run.record: _evaluation(run) for run in runs.values()}
    for task in TASKS:
        expected[complexity_record(experiment, task)] = _complexity(experiment, task)
    for group in experiment.config.latency:
        expected[latency_record(experiment, group.name)] = _latency(experiment, group)
    return expected


def _evaluation(run: Run) -> ExpectedRecord:
    names = set(PREDICTIONS_OF[run.task].metrics)
    pruning = run.recipe.token_pruning if isinstance(run.recipe, ClassificationRecipe) else None
    if pruning is not None and pruning.ema_decay is not None:
        names |= {f"{name}_ema" for name in names}
    # The average precision of a size range without objects is undefined.
    undefined = {f"{kind}_{name}" for kind in ("box", "mask") for name, (size, _) in Matches.metrics.items() if size}
    numbers = frozenset((run.model.name, name) for name in names)
    required = frozenset(number for number in numbers if number[1] not in undefined)
    return ExpectedRecord(run.fingerprint, required, numbers, run)


def _complexity(experiment: Experiment, task: Task) -> ExpectedRecord:
    names = [name for name, metric in METRICS.items() if metric.verb == "complexity"]
    models = complexity_models(experiment, task)
    numbers = frozenset((model.name, name) for model in models for name in names)
    return ExpectedRecord(complexity_fingerprint(experiment, task), numbers)


def _latency(experiment: Experiment, group: LatencyConfig) -> ExpectedRecord:
    measured = {"latency_ms": "latency_ratio"}
    if group.throughput_batch is not None:
        measured["images_per_s"] = "throughput_ratio"
    models = dict.fromkeys([group.baseline, *group.models])
    numbers = {(model, name) for model in models for name in measured}
    numbers |= {(model, ratio) for model in models if model != group.baseline for ratio in measured.values()}
    return ExpectedRecord(latency_fingerprint(experiment, group), frozenset(numbers))


def imported_records(experiment: Experiment) -> dict[Path, str]:
    """Every imported record on disk, with the fingerprint that it has to carry."""
    found: dict[Path, str] = {}
    for verb in IMPORTED_VERBS:
        for task in TASKS:
            if verb == "complexity" or task in experiment.config.datasets:
                expected = imported_fingerprint(experiment, verb, task)
                files = sorted(imported_folder(experiment, verb, task, "").glob("*/*.json"))
                found |= dict.fromkeys(files, expected)
    return found
