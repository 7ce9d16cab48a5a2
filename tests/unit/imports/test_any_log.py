"""Whatever a log of a training elsewhere contains, its numbers reach the frame, or it is refused with its line."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafabench.config.experiment import Experiment, load_experiment
from hafabench.imports.read import read_import
from hafabench.imports.store import store_import
from hafabench.reporting.frame import DTYPES
from hafabench.results.record import read_record
from tests.support.experiments import EXAMPLE
from tests.support.hostile_values import VALUES, changed, read_or_refused, search

FIELDS = st.one_of(
    st.sampled_from(VALUES).map(str),
    st.text(max_size=6),
    st.integers(-5, 10**20).map(str),
    st.sampled_from(["\u0661", "\u00b2", "9" * 40, "9" * 5000, "1,5", '"', "0x1", "1_0", "+1", "\0"]),
)
PLAIN = [
    ["task", "model", "seed", "metric", "value", "unit", "epoch", "device"],
    ["classification", "pvt_tiny", "3", "top1", "75.1", "%", "299", "A100"],
    ["segmentation", "pvt_tiny", "", "miou", "0.357", "fraction", "", ""],
    ["detection", "pvt_tiny", "0", "box_ap", "36.7", "%", "", ""],
    ["classification", "pvt_tiny", "", "params", "13.2", "M", "", ""],
]
TIMM = [["epoch", "train_loss", "eval_top1", "eval_top5"], ["0", "6.9", "10.0", "30.0"], ["1", "5.0", "20.0", "45.0"]]
ARGUMENTS = {"model": "resnet18", "seed": 42, "epochs": 2, "num_classes": 10, "model_ema": False}
MMENGINE = {
    "start": {"env_info": "...", "seed": 7, "exp_name": "fpn.py"},
    "step": {"mode": "train", "epoch": 1, "iter": 50, "loss": 1.0},
    "end": {"mode": "val", "epoch": 1, "mIoU": 0.35, "aAcc": 0.77, "mAcc": 0.45},
}


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment(EXAMPLE)


def reaches_the_frame(experiment: Experiment, file: Path, **options: Any) -> None:
    """Import a file, if it is not refused, and read the records as `hafabench collect` does."""

    # The records of the example before.
    shutil.rmtree("results", ignore_errors=True)

    def read() -> list:
        return store_import(experiment, read_import(file, experiment, **options), replace=True)

    for stored in read_or_refused(read, "", whole=True) or ():
        for metric in read_record(stored.path).metrics:
            assert math.isfinite(metric.value)
            assert metric.seed is None or 0 <= metric.seed < 2**63
            assert DTYPES["seed"] == "Int64"


def table(lines: list[list[str]]) -> str:
    return "".join(",".join(line) + "\n" for line in lines)


@st.composite
def changed_table(draw: Any, lines: list[list[str]]) -> str:
    """A table with one or two other fields, or one field more or less."""
    found = [list(line) for line in lines]
    for _ in range(draw(st.integers(1, 2))):
        line = draw(st.sampled_from(found))
        match draw(st.sampled_from(["replace"] * 6 + ["insert", "remove"])):
            case "replace":
                line[draw(st.integers(0, max(len(line) - 1, 0)))] = draw(FIELDS)
            case "insert":
                line.insert(draw(st.integers(0, len(line))), draw(FIELDS))
            case "remove" if len(line) > 1:
                line.pop(draw(st.integers(0, len(line) - 1)))
    return table(found)


@given(content=changed_table(PLAIN))
@search(15)
def test_csv(content, experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "numbers.csv"
    file.write_text(content, errors="replace", newline="")
    reaches_the_frame(experiment, file)


@given(content=changed_table(TIMM), arguments=changed(ARGUMENTS))
@search(15)
def test_timm(content, arguments, experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "summary.csv"
    file.write_text(content, errors="replace", newline="")
    (tmp_path / "args.yaml").write_text(json.dumps(arguments))
    reaches_the_frame(experiment, file, kind="timm")


@given(entries=changed(MMENGINE))
@search(15)
def test_mmengine(entries, experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "log.json"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries.values()))
    reaches_the_frame(experiment, file, model="pvt_tiny")
