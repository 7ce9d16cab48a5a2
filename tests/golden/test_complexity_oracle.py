"""Counts of every table row equal those that were measured independently on running models (data/complexity.csv)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hafabench.config.catalog import CATALOG
from hafabench.measure.complexity import Complexity, count_model, dead_weights

IMAGE_SIZE = {"classification": (224, 224), "segmentation": (512, 512), "detection": (800, 1280)}
NUM_CLASSES = {"classification": 1000, "segmentation": 150, "detection": 80}
# Trainable parameters: mmdet freezes the stem and the first stage of a ResNet, and Table 3 prints the rest.
PRINTED_IN_TABLE_3 = {"resnet18": 31.170e6, "resnet50": 44.171e6, "resnext101_64x4d": 101.892e6}
# Tolerance of counts that were computed from formulas (`how` is inferred).
INFERRED_TOLERANCE = 0.005


def reference_rows() -> list[dict[str, str]]:
    with (Path(__file__).parent / "data" / "complexity.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def identify(row: dict[str, str]) -> str:
    return f"{row['task']}-{row['model']}"


ROWS = reference_rows()


@pytest.fixture(scope="module")
def counted():
    known: dict[str, Complexity] = {}

    def lookup(row: dict[str, str]) -> Complexity:
        if identify(row) not in known:
            task = row["task"]
            known[identify(row)] = count_model(CATALOG[row["model"]], task, IMAGE_SIZE[task], NUM_CLASSES[task])
        return known[identify(row)]

    return lookup


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_parameters(row, counted):
    params = counted(row).params
    if row["how"] == "computed":
        assert params == int(row["params"])
    else:
        assert params == pytest.approx(int(row["params"]), rel=INFERRED_TOLERANCE)


@pytest.mark.parametrize("row", [row for row in ROWS if row["gmacs"]], ids=identify)
def test_multiply_accumulates(row, counted):
    assert counted(row).gmacs == pytest.approx(float(row["gmacs"]), rel=0.005)


# There is no published class of HAFA on Swin, so it has no dead weights.
@pytest.mark.parametrize("row", [row for row in ROWS if CATALOG[row["model"]].family != "swin"], ids=identify)
def test_dead_weights_of_the_published_classes(row):
    expected = int(row["params_with_dead_weights"]) - int(row["params"])
    assert dead_weights(CATALOG[row["model"]], row["task"]) == expected


@pytest.mark.parametrize("row", [row for row in ROWS if row["task"] == "detection"], ids=identify)
def test_trainable_parameters_are_what_table_3_prints(row, counted):
    """Table 3 counts dead weights as well."""
    printed = PRINTED_IN_TABLE_3.get(row["model"], int(row["params"]))
    assert counted(row).params_trainable == pytest.approx(printed, abs=500)


def test_the_reference_covers_all_three_tasks():
    assert {row["task"] for row in ROWS} == {"classification", "segmentation", "detection"}
    assert len(ROWS) > 40
