"""The table of the benchmarks: its rows and its place in the page. No measured value is checked."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks.gate import PROOFS
from benchmarks.rows import BEGIN, END, Row, markdown, update_page
from benchmarks.workflow import PAPER, enlarged
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.runs.run import expand
from hafabench.stats.intervals import Interval
from tests.support.markdown import table_rows
from tools.checkout import REPOSITORY


@pytest.mark.parametrize(
    ("measured", "goal", "verdict"),
    [
        ({"value": 1.05, "low": 1.04, "high": 1.058}, {"at_most": 1.06}, "met"),
        ({"value": 1.05, "low": 1.04, "high": 1.07}, {"at_most": 1.06}, "met?"),
        ({"value": 1.07, "low": 1.05, "high": 1.09}, {"at_most": 1.06}, "missed?"),
        ({"value": 1.07}, {"at_most": 1.06}, "missed"),
        ({"value": 1.9, "low": 1.8, "high": 1.95}, {"at_least": 2.0}, "missed"),
        ({"value": 2.0}, {"at_least": 2.0}, "met"),
        ({"value": None}, {"at_least": 2.0}, "not measured"),
        ({"value": 2.0}, {}, ""),
    ],
)
def test_verdicts(measured, goal, verdict):
    assert Row("name", "what", **measured, **goal).verdict == verdict


def test_an_interval_without_bounds_is_none():
    row = Row.of("name", "what", Interval(1.0, -math.inf, math.inf, 0.99), at_most=1.1)
    assert (row.low, row.high, row.interval, row.verdict) == (None, None, "", "met")


def test_table():
    rows = [
        Row("a", "this over that", 1.054, low=1.05, high=1.06, at_most=1.06, note="MACs 1.059"),
        Row("b", "pages", 312.4, unit="images/s"),
    ]
    assert table_rows(markdown(rows, "A machine."))[1:] == [
        ["this over that (MACs 1.059)", "<= 1.06", "1.05", "1.05 to 1.06", "met"],
        ["pages", "", "312 images/s", "", ""],
    ]


def test_the_page_keeps_the_text_around_the_table(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold \\1\n{END}\nafter\n")
    update_page(page, "new \\1\n")
    assert page.read_text() == f"before\n{BEGIN}\nnew \\1\n{END}\nafter\n"
    page.write_text("no place\n")
    with pytest.raises(UserError, match="no markers"):
        update_page(page, "new\n")


def test_every_name_is_a_benchmark():
    for name in command.BENCHMARKS:
        assert command.function(name).__doc__, name


def test_command(tmp_path, monkeypatch):
    rows = [Row("plans", "a figure", 1.0, at_most=2.0, unit="s")]
    monkeypatch.setattr(command, "function", lambda name: lambda quick: iter(rows if quick else []))
    page, file = tmp_path / "page.md", tmp_path / "rows.json"
    page.write_text(f"{BEGIN}{END}")
    options = ["--quick", "--only", "plans", "--json", str(file), "--update", str(page)]
    done = CliRunner().invoke(command.cli, options, catch_exceptions=False)
    assert ["a figure", "<= 2.00", "1.00 s", "", "met"] in table_rows(done.stdout)
    assert done.stdout.strip() in page.read_text()
    assert json.loads(file.read_text())["rows"] == [rows[0].as_json()]
    assert "rough figures" in done.stdout


def test_a_failing_benchmark_does_not_cost_the_others_figures(monkeypatch):
    def failing(quick):
        """Never works."""
        raise OSError("no | such\nfile")

    figures = {"plans": lambda quick: iter([Row("plans", "a figure", 1.0)]), "imports": failing}
    monkeypatch.setattr(command, "function", figures.get)
    done = CliRunner().invoke(command.cli, ["--only", "imports", "--only", "plans"])
    assert [r"Never works. (failed: OSError: no \| such file)", "", "-", "", ""] in table_rows(done.stdout)
    assert ["a figure", "", "1.00", "", ""] in table_rows(done.stdout)
    assert isinstance(done.exception, UserError)


def test_an_enlarged_experiment_is_in_order(tmp_path):
    once = expand(load_experiment(PAPER))
    thrice = expand(load_experiment(enlarged(tmp_path, 3)))
    assert len(thrice) == 3 * len(once)


def test_the_tests_of_the_gate_exist():
    assert [name for name in PROOFS if not (REPOSITORY / name).is_file()] == []


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="unknown benchmark 'speed'; expected one of hafa_over_pvt, "):
        command.cli(["--only", "speed"], standalone_mode=False)
