"""Numbers of another configuration, other data or earlier records are left out of every report and named."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.reporting import markdown
from hafabench.reporting.html.overview import experiment_details
from hafabench.reporting.report import build_report
from hafabench.results.record import read_record, write_record
from hafabench.runs.jobs import JobList
from tests.support.experiments import shrink
from tests.support.finished import finish, make_up

RUN, OTHER = "classification/pvt_tiny_hafa/seed0", "classification/resnet18/seed0"


@pytest.fixture
def finished(write_experiment, tmp_path, monkeypatch) -> JobList:
    file = write_experiment(shrink)
    monkeypatch.chdir(tmp_path)
    return finish(load_experiment(file))


def edited(write_experiment, edit):
    def both(content):
        shrink(content)
        edit(content)

    return load_experiment(write_experiment(both))


def mark_of(report, model: str) -> str:
    table = report.tables["table1"]
    row = next(row for row in table.rows if row.model == model)
    return row.cells[[column.key for column in table.columns].index("top1")].mark


def test_a_report_without_an_edit_leaves_nothing_out(finished):
    report = build_report(finished.experiment)
    assert report.left_out == {}
    assert (mark_of(report, "pvt_tiny_hafa"), mark_of(report, "resnet18")) == ("measured", "measured")
    assert set(finished.runs) <= set(report.frame["id"])


def test_numbers_of_another_learning_rate_are_stale_everywhere(finished, write_experiment):
    experiment = edited(
        write_experiment,
        lambda content: content["overrides"].append({"runs": RUN, "why": "an edit", "set": {"lr": 0.002}}),
    )
    report = build_report(experiment)
    clause = f"stale: recipe.lr: {finished.runs[RUN].recipe.lr} -> 0.002"
    assert report.left_out[RUN] == clause
    assert RUN not in set(report.frame["id"])
    assert OTHER in set(report.frame["id"])
    assert (mark_of(report, "pvt_tiny_hafa"), mark_of(report, "resnet18")) == ("stale", "measured")
    details = dict(experiment_details(report))
    assert details["Runs"] == "1 of 4 evaluated"
    assert clause in details["Missing"]
    assert clause in markdown.tables_page(report).replace("\\", "")
    assert any(note.startswith("stale: the record was made under") for note in report.tables["table1"].notes)
    verdict = next(one for one in report.ledger.verdicts if one.claim.locator == "table1/pvt_tiny_hafa/top1")
    assert (verdict.verdict, verdict.because) == ("not run", clause)
    file = str(experiment.file)
    shutil.rmtree("results/digits/data")  # these reports are not complete enough to be explained
    for command in (["runs"], ["status"], ["claims"], ["explain", "table1/pvt_tiny_hafa/top1"]):
        done = CliRunner().invoke(cli, [*command, "-e", file])
        assert done.exit_code == 0, done.output
        assert clause.removeprefix("stale: ") in " ".join(done.output.split()), command


def test_numbers_of_other_data_are_stale(finished):
    run = finished.runs[RUN]
    record = read_record(run.record)
    digests = {"listing_digest": "a" * 64}
    changed = record.provenance.model_copy(update=digests)
    write_record(run.record, record.model_copy(update={"provenance": changed}))
    make_up(finished, finished["collect_records"])
    assert build_report(finished.experiment).left_out == {}
    path = finished["prepare_dataset classification"].outputs[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"listings": {"val": "b" * 64}}))
    assert build_report(finished.experiment).left_out[RUN] == f"stale: its validation data: {'a' * 12} -> {'b' * 12}"


def test_numbers_that_are_not_those_of_the_present_record_are_stale(finished):
    record = finished.runs[RUN].record
    write_record(record, read_record(record).model_copy(update={"warnings": ["made again"]}))
    report = build_report(finished.experiment)
    assert list(report.left_out) == [RUN]
    assert report.left_out[RUN].endswith("`hafabench collect` reads it again")
    assert mark_of(report, "pvt_tiny_hafa") == "stale"
    # A copy of the frame without its records can still be reported.
    record.unlink()
    assert build_report(finished.experiment).left_out == {}


def test_numbers_of_runs_that_the_experiment_no_longer_has_are_left_out(finished, write_experiment):
    experiment = edited(write_experiment, lambda content: content["train"]["classification"].remove("resnet18"))
    report = build_report(experiment)
    assert report.left_out[OTHER] == "not part of this experiment"
    assert mark_of(report, "resnet18") == "not run"
    assert dict(experiment_details(report))["Left out"] == f"not part of this experiment: {OTHER}"


def test_counts_and_timings_of_other_sizes_are_stale(finished, write_experiment):
    def edit(content):
        content["complexity"]["num_classes"]["detection"] = 7
        content["latency"][0]["repeats"] = 4

    report = build_report(edited(write_experiment, edit), partial=True)
    assert report.left_out == dict.fromkeys(["complexity/detection", "latency/table4"], "stale: its models or sizes")
