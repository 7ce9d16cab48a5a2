"""Where the files of an experiment are stored, under its results and reports folders."""

from __future__ import annotations

from pathlib import Path

from hafabench.config.experiment import Experiment, LatencyConfig


def dataset_report(experiment: Experiment, task: str) -> Path:
    """Where the report of the task's verified data set lies."""
    return experiment.results / "data" / f"{task}.json"


def complexity_record(experiment: Experiment, task: str) -> Path:
    """Where the complexity record of a task lies."""
    return experiment.results / "complexity" / f"{task}.json"


def latency_record(experiment: Experiment, group: LatencyConfig) -> Path:
    """Where the record of a latency group lies."""
    return experiment.results / "latency" / f"{group.name}.json"


def imported_folder(experiment: Experiment, verb: str, task: str, model: str) -> Path:
    """Where the imported records of a model lie."""
    return experiment.results / "imported" / verb / task / model


def counts_record(experiment: Experiment) -> Path:
    """Where the record of the counts lies."""
    return experiment.results / "counts.json"
