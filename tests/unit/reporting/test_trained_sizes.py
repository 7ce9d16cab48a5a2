"""Reports of experiments with scaled models name the scale and the size of what was trained."""

from __future__ import annotations

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.engines.trained import parameters_of
from hafabench.measure.complexity import build_on_meta
from hafabench.reporting import latex, markdown
from hafabench.reporting.frame import read_frame, write_frame
from hafabench.reporting.html.page import build_page, render
from hafabench.reporting.report import Report
from hafabench.results.record import Record, read_record, write_record
from hafabench.runs.run import expand
from tools.synthetic_records import complexity, evaluation, frame_of

SENTENCE = "Accuracies are those of models with 0.25 of the paper's width and 1 of its depth."


@pytest.fixture
def experiment_of(write_experiment, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def load(**scale):
        return load_experiment(write_experiment(lambda content: content.update(model_scale=scale)))

    return load


@pytest.fixture
def report_of(experiment_of, tmp_path):
    def report(**scale) -> Report:
        counts = {name: {"params": 13_229_288} for name in ("pvt_tiny", "resnet18")}
        records = [
            evaluation("classification", "pvt_tiny", seed, {"top1": 90.0}, trained_params=812_345) for seed in (0, 1)
        ]
        records += [evaluation("classification", "resnet18", 0, {"top1": 80.0})]
        return Report(
            experiment_of(**scale), frame_of(tmp_path, *records, complexity("classification", counts)), None
        )

    return report


def test_every_format_names_the_scale_and_the_trained_size(report_of):
    report = report_of(width=0.25)
    page = render(build_page(report)).replace("&#39;", "'")
    text = markdown.tables_page(report)
    for output in (page, text.replace("\\", "")):
        assert SENTENCE in output
        assert "Sizes of the trained models" in output
        assert "0.81" in output
        assert "13.23" in output
    (row,) = [line for line in text.splitlines() if line.startswith("| classification |")]
    assert row.replace(" ", "") == "|classification|pvt\\_tiny|0.81|13.23|"
    # A record of an earlier version does not tell its size.
    assert [size.model for size in report.trained_sizes] == ["pvt_tiny"]
    assert "0.25 of the paper's width" in latex.render_table(report.tables["table1"])


def test_tables_without_accuracies_do_not_name_the_scale(report_of):
    for table in report_of(width=0.25).tables.values():
        assert bool(table.model_scale) == any(column.verb == "evaluate" for column in table.columns)


def test_full_size_is_not_mentioned(report_of):
    report = report_of(width=1)
    assert "Sizes of the trained models" not in render(build_page(report)) + markdown.tables_page(report)
    assert report.model_scale == ""


def test_records_keep_the_size_and_older_records_stay_valid(tmp_path):
    for params in (812_345, None):
        path = tmp_path / f"{params}.json"
        write_record(path, evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}, trained_params=params))
        assert read_record(path).trained_params == params
    older = evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}).model_dump(by_alias=True)
    del older["trained_params"]
    assert Record.model_validate(older).trained_params is None


def test_frames_of_earlier_versions_have_unknown_sizes(tmp_path):
    frame = frame_of(tmp_path, evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}, trained_params=5))
    parquet, _ = write_frame(frame.drop(columns="trained_params"), tmp_path / "earlier")
    assert read_frame(parquet)["trained_params"].isna().all()


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_the_counted_size_is_that_of_the_scaled_model(experiment_of, task):
    run = expand(experiment_of(width=0.25))[f"{task}/pvt_tiny_hafa/seed0"]
    expected = build_on_meta(run.model, task, run.dataset.num_classes)
    assert parameters_of(run) == sum(parameter.numel() for parameter in expected.parameters())
    assert parameters_of(run) < parameters_of(expand(experiment_of(width=1))[run.id]) / 8
