"""The final numbers on the console are those of the tables."""

from __future__ import annotations

import re
import shutil

import pytest

from hafabench.config.experiment import Experiment, load_experiment
from hafabench.reporting.markdown import render_table
from hafabench.reporting.report import Report, build_report
from hafabench.reporting.summary import final_numbers
from tests.support.markdown import table_rows
from tests.support.synthetic_experiment import fill_results


@pytest.fixture
def experiment(write_experiment, tmp_path, monkeypatch) -> Experiment:
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment(lambda content: content.update(seeds=[0, 1])))


@pytest.fixture
def report(experiment) -> Report:
    fill_results(experiment)
    return build_report(experiment)


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of each row by the model; columns are two or more spaces apart."""
    return {line.split("  ")[0]: re.split(r" {2,}", line.strip())[1:] for line in text.splitlines()}


def test_every_row_shows_the_number_and_the_difference_of_its_table(report):
    rows = rows_of(final_numbers(report))
    grid = table_rows(render_table(report.tables["table1"]))
    position = next(i for i, name in enumerate(grid[0]) if name.startswith("Top-1") and "paper" not in name)
    printed = {row[0].replace("\\", ""): row[position] for row in grid[1:] if row[position][:1].isdigit()}
    assert {"PVT-Tiny", "PVT-Tiny(HAFA)"} <= printed.keys() <= rows.keys()
    for model, cell in printed.items():
        # Tables print the spread over seeds after the mean.
        mean, change = re.fullmatch(r"([\d.]+)[^(]*(?:\(([-+]?[\d.]+)[^)]*\))?.*", cell).groups()
        assert rows[model][0] == mean + (f" ({change})" if change else "")
        assert rows[model][-1] == "2"
    assert report.warning in final_numbers(report)


def test_a_row_has_a_cell_per_trained_task_and_an_empty_experiment_no_table(report, experiment):
    rows = rows_of(final_numbers(report))
    trained = experiment.config.train
    for row in report.metrics["table1"].table_layout.rows:
        if row.model in trained["classification"]:
            tasks = sum(row.model in models for models in trained.values())
            assert len(list(filter(None, rows[row.label]))) == tasks + 1
    shutil.rmtree(experiment.results)
    fill_results(experiment, share=0.0)
    assert final_numbers(build_report(experiment)) == ""
