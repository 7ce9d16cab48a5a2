"""Learning curves are read from histories, and a damaged history is one clear error."""

from __future__ import annotations

import json

import pytest

from hafabench.errors import UserError
from hafabench.reporting.curves import read_curve

GOOD = {"step": 1, "loss": 2.5, "lr": 1e-3}


def test_a_curve_has_the_entries_of_the_history(tmp_path):
    file = tmp_path / "history.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"step": 2, "eval": None}) + "\n{")
    assert read_curve(file) == {"step": [1, 2], "loss": [2.5, 2.5], "lr": [1e-3, 1e-3]}


@pytest.mark.parametrize(
    "value", ["x", None, True, [1.0], 10**400], ids=["text", "null", "truth value", "list", "enormous"]
)
def test_a_value_that_is_no_number_is_named_with_its_line(tmp_path, value):
    file = tmp_path / "history.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"loss": value}) + "\n")
    with pytest.raises(UserError) as caught:
        read_curve(file)
    assert str(caught.value).startswith(f"{file}:2: loss: expected a number, found ")
    assert str(caught.value).endswith("restore the file from a copy or remove it")


def test_a_lost_key_is_named(tmp_path):
    file = tmp_path / "history.jsonl"
    file.write_text(json.dumps({"step": 1, "loss": 2.5}) + "\n")
    with pytest.raises(UserError, match=r"history\.jsonl:1: lr: expected a number, found null"):
        read_curve(file)
