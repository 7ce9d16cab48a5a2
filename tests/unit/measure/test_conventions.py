"""Counting conventions on a decomposed model, and the rounding of counts to printed figures."""

from __future__ import annotations

from decimal import Decimal

import pytest

from hafabench.config.claims import Convention
from hafabench.errors import UserError
from hafabench.measure.conventions import count_by, count_row, printed
from hafabench.results.counts import Counted, Counts, is_current, read_counts, read_current, write_counts
from hafabench.results.decomposition import Amount, Decomposition
from tools.synthetic_records import provenance

MODEL = Counted(
    task="segmentation",
    model="mine",
    dead_weights=250,
    amounts=Decomposition(
        parameters=(
            Amount("backbone", "convolution", 4000, trainable=False),
            Amount("backbone", "linear", 2000),
            Amount("backbone", "norm", 40),
            Amount("head", "linear", 1000),
            Amount("head", "bias", 10),
            Amount("backbone", "statistics", 77, trainable=False),
        ),
        operations=(
            Amount("backbone", "convolution", 3_000),
            Amount("backbone", "deformable", 500),
            Amount("backbone", "attention", 200),
            Amount("backbone", "batch_norm", 30),
            Amount("head", "linear", 1_000),
            Amount("head", "linear_bias", 10),
        ),
    ),
)


def convention(metric: str, **changes) -> Convention:
    return Convention(name="one", metric=metric, says="how", unit=1, **changes)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 7050),
        ({"trainable": True}, 3050),
        ({"dead_weights": True}, 7300),
        ({"trainable": True, "dead_weights": True}, 3300),
        ({"without": ("head",)}, 6040),
        ({"leave_out": ("norm", "bias")}, 7000),
        ({"add": {"statistics": 1}}, 7127),
    ],
)
def test_parameters(changes, count):
    assert count_by(convention("params_m", **changes), MODEL) == count


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 4700),
        ({"leave_out": ("deformable", "attention")}, 4000),
        ({"add": {"batch_norm": 2, "linear_bias": 1}}, 4770),
        ({"add": {"convolution": 2}}, 7700),
        ({"without": ("head",)}, 3700),
    ],
)
def test_operations(changes, count):
    assert count_by(convention("gflops", **changes), MODEL) == count


def test_units_are_those_of_the_paper_unless_given():
    millions = Convention(name="one", metric="params_m", says="how")
    binary = Convention(name="one", metric="gflops", says="how", unit=2**30)
    assert count_by(millions, MODEL) == Decimal("0.007050")
    assert count_by(binary, MODEL) == Decimal(4700) / 2**30


def test_another_build_is_counted_where_there_is_one():
    deep = MODEL.model_copy(update={"build": "deep_stem", "amounts": Decomposition((Amount("head", "bias", 3),))})
    counts = counts_of(MODEL, deep)
    plain, varied = convention("params_m"), convention("params_m", build="deep_stem")
    assert (count_row(plain, counts, "segmentation", "mine"), count_row(varied, counts, "segmentation", "mine")) == (
        7050,
        3,
    )
    assert count_row(varied, counts_of(MODEL), "segmentation", "mine") == 7050
    assert count_row(plain, counts, "detection", "mine") is None


@pytest.mark.parametrize(
    ("value", "rounded", "twice", "truncated"),
    [
        ("15.446006", "15.4", "15.5", "15.4"),
        ("25.890297", "25.9", "25.9", "25.8"),
        # Half a digit goes up, exactly; as floats 0.15 and 2.675 would not.
        ("0.15", "0.2", "0.2", "0.1"),
        ("0.25", "0.3", "0.3", "0.2"),
        ("34.55", "34.6", "34.6", "34.5"),
        ("0.0499999999", "0.0", "0.1", "0.0"),
        ("9.999", "10.0", "10.0", "9.9"),
        ("5", "5.0", "5.0", "5.0"),
    ],
)
def test_rounding_modes(value, rounded, twice, truncated):
    found = [printed(Decimal(value), 1, mode) for mode in ("rounded", "rounded twice", "truncated")]
    assert found == [rounded, twice, truncated]


def counts_of(*models: Counted) -> Counts:
    return Counts(experiment="digits", fingerprint="f" * 12, cells=list(models), provenance=provenance())


def test_the_record_comes_back_as_it_was(tmp_path):
    path, counts = tmp_path / "deep/counts.json", counts_of(MODEL)
    write_counts(path, counts)
    assert read_counts(path) == counts
    assert read_current(path, "f" * 12) == counts
    assert read_current(tmp_path / "none.json", "f" * 12) is None
    assert (is_current(path, "f" * 12), is_current(path, "0" * 12)) == (True, False)
    with pytest.raises(UserError, match=r"counts\.json: fingerprint: made under another configuration"):
        read_current(path, "0" * 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "schema: expected 'hafabench.counts/1', found None"),
        ('{"schema": "hafabench.counts/1", "experiment": "digits"}', "cells: required key is missing"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, text, message):
    path = tmp_path / "counts.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_counts(path)
    assert is_current(path, "f" * 12) is None
