"""Fingerprints are public interface: those of the shipped experiments equal the recorded ones, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.config.recipes import TASKS
from hafabench.runs.fingerprints import dataset_fingerprint, imported_fingerprint
from hafabench.runs.records import IMPORTED_VERBS, expected_records
from hafabench.runs.run import expand
from hafabench.runs.static_models import counts_fingerprint

# Recorded before the package was reorganised. An entry changes only together with what the configuration means.
RECORDED = json.loads((Path(__file__).parent / "data/fingerprints.json").read_text())


@pytest.mark.parametrize("file", list(RECORDED))
def test_fingerprints_equal_the_recorded_ones(file, repository, monkeypatch):
    monkeypatch.chdir(repository)
    experiment = load_experiment(Path(file))
    found = {
        "runs": {name: run.fingerprint for name, run in expand(experiment).items()},
        "datasets": {task: dataset_fingerprint(data) for task, data in experiment.config.datasets.items()},
        "records": {path.as_posix(): mark for path, mark in expected_records(experiment).items()},
        "counts": counts_fingerprint(experiment),
        "imported": {
            f"{verb}/{task}": imported_fingerprint(experiment, verb, task)
            for verb in IMPORTED_VERBS
            for task in TASKS
            if verb == "complexity" or task in experiment.config.datasets
        },
    }
    assert found == RECORDED[file]
