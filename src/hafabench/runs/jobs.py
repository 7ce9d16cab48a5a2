"""Which job of Slurm is which cell: through the comment that the workflow's Slurm executor gives every job.

A job's comment is ``rule_<rule>`` or ``rule_<rule>_wildcards_<wildcards joined by underscores>``. Names hold
underscores too, so comments are not taken apart: those of all cells are made and compared.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import TASKS
from hafabench.runs.picture_runs import picture_subjects
from hafabench.runs.run import expand

PREFIX = "rule_"


@dataclass(frozen=True)
class Cell:
    """One job of the workflow.

    Attributes:
        rule: of the workflow.
        subject: a run's id, a task or a latency group; empty for jobs that there are once.
        log: where the job's own output goes, under the working folder.
        command: what repeats it by hand.
    """

    rule: str
    subject: str
    log: Path
    command: str

    @property
    def id(self) -> str:
        """``train_run classification/pvt_tiny/seed0``."""
        return f"{self.rule} {self.subject}".strip()


def cells(experiment: Experiment) -> dict[str, Cell]:
    """Every cell of an experiment by the comment of its jobs, in the workflow's order."""
    results, file = experiment.results, shlex.quote(str(experiment.file))
    found: dict[str, Cell] = {}

    def add(rule: str, wildcards: Iterable[str], subject: str, log: Path, command: str) -> None:
        cell = Cell(rule, subject, log, f"hafabench {command} --experiment {file}")
        found[comment(rule, wildcards)] = cell

    for task in TASKS:
        if experiment.config.train.get(task):
            add("prepare_dataset", [task], task, results / "data" / f"{task}.log", f"data prepare {task}")
    for run in expand(experiment).values():
        wildcards = [run.task, run.model.name, str(run.seed)]
        add("train_run", wildcards, run.id, run.folder / "train.log", f"train {run.id}")
        add("evaluate_run", wildcards, run.id, run.folder / "evaluate.log", f"evaluate {run.id}")
    for task in TASKS:
        log = results / "complexity" / f"{task}.log"
        add("count_complexity", [task], task, log, f"complexity --task {task} --format record")
    add("count_conventions", [], "", results / "counts.log", "count")
    for group in experiment.config.latency:
        log = results / "latency" / f"{group.name}.log"
        add("measure_latency", [group.name], group.name, log, f"latency {group.name}")
    add("collect_records", [], "", results / "collect.log", "collect")
    if picture_subjects(expand(experiment)).can_be_drawn:
        add("draw_pictures", [], "", results / "pictures.log", "pictures")
    add("write_report", [], "", results / "report.log", "report")
    return found


def comment(rule: str, wildcards: Iterable[str]) -> str:
    """The comment of a rule's job."""
    joined = "_".join(wildcards).replace("/", "_")
    return f"{PREFIX}{rule}_wildcards_{joined}" if joined else f"{PREFIX}{rule}"


def cell_of(found: Mapping[str, Cell], job_comment: str) -> Cell | None:
    """The cell of a job with this comment; None for jobs that are no cell of the experiment."""
    return found.get(job_comment.strip())


def experiment_of(submit_line: str) -> str | None:
    """The experiment file that a submitted job was started with: the last one after ``--configfiles``.

    Two experiments run from one folder give their jobs the same comments; the submission tells them apart. None where
    it names none, or where Slurm did not keep the line.
    """
    match = re.search(r"--configfiles?((?:\s+(?!-)\S+)+)", submit_line.replace("\\", ""))
    return match.group(1).split()[-1].strip("'\"") if match else None
