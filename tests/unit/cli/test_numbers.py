"""Numbers and paths on the command line that no command can use: one message, and no traceback."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.cli.failures import messages_of


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("plan digits --gpu-speed nan", "'nan' is not a finite number"),
        ("plan digits --gpu-speed inf", "inf is not in the range"),
        ("plan digits --gpu-speed 1e400", "inf is not in the range"),
        ("plan digits --gpu-speed 0", "expected a GPU speed above zero"),
        ("plan digits --gpu-speed -1", "expected a GPU speed above zero"),
        ("plan digits --gpu-speed 1e-320", "expected a GPU speed above zero"),
        ("plan digits --budget nan", "'nan' is not a finite number"),
        ("plan digits --budget inf", "inf is not in the range"),
        ("plan digits --gpus 99999999999999999999", "is not in the range 1<=x<=100000"),
        ("plan digits --gpus 1.5", "'1.5' is not a valid integer"),
        ("cluster account --wait nan", "'nan' is not a finite number"),
        ("cluster account --wait inf", "inf is not in the range"),
        ("cluster account --days 99999999999", "is not in the range 1<=x<=36500"),
        ("pictures --threads 999999999", "is not in the range 1<=x<=4096"),
        ("train classification/pvt_tiny/seed0 --processes 999999", "is not in the range 1<=x<=1024"),
        ("train classification/pvt_tiny/seed0 --nodes 999999", "is not in the range 1<=x<=100000"),
        ("latency table4 --self-test --trials 99999999999", "is not in the range 1<=x<=1000000"),
        ("import x.csv --seed -1", "is not in the range 0<=x<=9223372036854775807"),
        ("import x.csv --seed 9999999999999999999999", "is not in the range 0<=x<=9223372036854775807"),
        ("evaluate classification/pvt_tiny/seed0 --weights x --weights-seed -1", "is not in the range 0<=x"),
        (f"evaluate classification/pvt_tiny/seed{'9' * 5000}", "no run 'classification/pvt_tiny/seed999"),
        (f"check --experiment {'a' * 300}", "aaa: cannot be used: File name too long"),
        (f"import {'a' * 300}", "aaa: cannot be used: File name too long"),
    ],
    ids=lambda value: value[:50],
)
def test_one_message(arguments, expected, repository, monkeypatch):
    monkeypatch.chdir(repository)
    found = CliRunner().invoke(cli, arguments.split())
    messages = messages_of(found.exception) if isinstance(found.exception, Exception) else []
    assert expected in "\n".join([found.output, *messages])
    assert found.exit_code != 0


def test_an_error_of_this_program_is_not_the_users():
    assert messages_of(KeyError("model")) == []
    assert messages_of(OSError("no file has this error")) == []
