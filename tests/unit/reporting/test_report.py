"""The report of an experiment: all files of its rule, built from the collected frame."""

from __future__ import annotations

import json

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.reporting.frame import collect_experiment
from hafabench.reporting.report import build_report
from hafabench.reporting.write import write_report
from hafabench.results.record import write_record
from hafabench.runs.paths import report_files
from hafabench.runs.run import expand
from tests.support.markdown import table_rows
from tests.support.opened_files import files_read
from tests.support.synthetic_experiment import fill_results
from tools.synthetic_records import evaluation


@pytest.fixture
def experiment(write_experiment, monkeypatch, tmp_path):
    path = write_experiment()
    monkeypatch.chdir(tmp_path)
    return load_experiment(path)


def test_report_needs_the_collected_frame(experiment):
    with pytest.raises(UserError, match="no such frame; `hafabench collect` makes it"):
        build_report(experiment)
    assert not experiment.reports.exists()


def test_report_of_what_has_run_so_far(experiment):
    run = expand(experiment)["classification/pvt_tiny/seed0"]
    write_record(
        run.record, evaluation("classification", "pvt_tiny", 0, {"top1": 91.25}, fingerprint=run.fingerprint)
    )
    run.history.write_text(json.dumps({"step": 8, "loss": 2.3, "lr": 1e-3}) + "\n")
    collect_experiment(experiment)
    written = set(write_report(build_report(experiment)))
    # The workflow expects these files.
    assert written == set(report_files(experiment))
    assert written == {path for path in experiment.reports.rglob("*") if path.is_file()}
    rows = table_rows((experiment.reports / "tables.md").read_text())
    assert ["PVT-Tiny", "\u2013", "13.2"] in [row[:3] for row in rows]
    assert "| 91.3 " in (experiment.reports / "tables/table1.md").read_text()


def test_the_writers_read_every_file_once(experiment):
    fill_results(experiment, share=0.2)
    # The states of jobs are found by reading records and histories, and the frame is read.
    report = build_report(experiment)
    with files_read("results") as read:
        write_report(report)
    histories = [str(run.history) for run in expand(experiment).values() if run.history.is_file()]
    assert histories and set(histories) <= set(read)
    assert set(read.values()) == {1}, read
    # Everything else comes from the frame.
    assert not [path for path in read if path.endswith("evaluate.json")]
