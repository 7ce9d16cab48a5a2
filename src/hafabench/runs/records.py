"""The records that an experiment expects, each with the fingerprint that it has to carry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import TASKS
from hafabench.runs.fingerprints import complexity_fingerprint, imported_fingerprint, latency_fingerprint
from hafabench.runs.paths import complexity_record, imported_folder, latency_record
from hafabench.runs.run import Run, expand

# Latencies cannot be imported, because they are comparable only within one process.
IMPORTED_VERBS = ("evaluate", "complexity")


def expected_records(experiment: Experiment, runs: Mapping[str, Run] | None = None) -> dict[Path, str]:
    """Every record that the experiment's tables are made from, with the fingerprint that it has to carry.

    Args:
        experiment: A checked experiment.
        runs: The runs of the experiment, if they are already expanded.
    """
    runs = expand(experiment) if runs is None else runs
    expected = {run.record: run.fingerprint for run in runs.values()}
    for task in TASKS:
        expected[complexity_record(experiment, task)] = complexity_fingerprint(experiment, task)
    for group in experiment.config.latency:
        expected[latency_record(experiment, group.name)] = latency_fingerprint(experiment, group)
    return expected


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
