"""The embedded study's report can be built from its tracked records, without weights or data."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.reporting.frame import collect_experiment
from hafabench.reporting.markdown import without_audit
from hafabench.reporting.report import build_report
from hafabench.reporting.write import write_report
from hafabench.results.record import write_record
from hafabench.runs.paths import picture_index, report_files
from hafabench.runs.records import expected_records
from hafabench.runs.run import expand
from tools.checkout import REPOSITORY
from tools.samples import SAMPLES, keep, restore
from tools.synthetic_records import complexity, evaluation, latency

CONFIG = REPOSITORY / "configs/digits_study.yaml"
SAMPLE = REPOSITORY / SAMPLES / "digits_study"
METRICS = {"classification": ["top1"], "segmentation": ["miou"], "detection": ["box_ap", "mask_ap"]}
# Texts that have to come out as they are tracked; figures change with matplotlib's version.
TEXTS = ["comparisons.md", "comparisons.csv", "tables.md", "paper.tex"]


@pytest.fixture
def study(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return load_experiment(CONFIG)


def test_the_study_is_a_baseline_and_hafa_on_three_tasks_with_five_seeds(study):
    runs = expand(study).values()
    pairs = {(run.task, run.model.name, run.seed) for run in runs}
    assert pairs == {(t, m, s) for t in METRICS for m in ("pvt_tiny", "pvt_tiny_hafa") for s in range(5)}
    # The two runs of a pair have the same recipe and data set, and differ only in the model.
    for run in runs:
        other = next(o for o in runs if (o.task, o.seed) == (run.task, run.seed) and o is not run)
        assert (run.recipe, run.dataset) == (other.recipe, other.dataset)


def test_records_alone_make_the_report(study):
    rng = np.random.default_rng(0)
    about = {"experiment": "digits_study"}
    for run in expand(study).values():
        value = 50.0 + 5.0 * (run.model.name == "pvt_tiny_hafa") + rng.normal()
        numbers = dict.fromkeys(METRICS[run.task], value)
        record = evaluation(run.task, run.model.name, run.seed, numbers, fingerprint=run.fingerprint, **about)
        write_record(run.record, record)
    for path, fingerprint in expected_records(study).items():
        if path.parent.name == "complexity":
            counted = {"pvt_tiny": {"params": 13e6, "gmacs": 1.9}, "pvt_tiny_hafa": {"params": 14e6, "gmacs": 2.0}}
            write_record(path, complexity(path.stem, counted, fingerprint=fingerprint, **about))
        elif path.parent.name == "latency":
            write_record(path, latency(path.stem, {"pvt_tiny": (9.0, 10.0, 11.0)}, fingerprint=fingerprint, **about))
    _, missing = collect_experiment(study)
    assert missing == []
    write_report(build_report(study))
    lines = list(csv.DictReader((study.reports / "comparisons.csv").read_text().splitlines()))
    assert [(line["metric"], line["n"], line["verdict"]) for line in lines] == [
        (metric, "5", "better") for metric in ("top1", "miou", "box_ap", "mask_ap")
    ]


def test_the_sample_report_is_that_of_the_sample_records(study):
    assert restore(study, REPOSITORY / SAMPLES) == study.results
    _, missing = collect_experiment(study)
    assert missing == []
    write_report(build_report(study))
    for name in TEXTS:
        sample = (SAMPLE / "report" / name).read_text()
        assert (study.reports / name).read_text() == without_audit(sample), f"{name}: see docs/samples/README.md"


def test_a_sample_is_kept_from_results_and_report_without_weights_and_logs(study, tmp_path):
    restore(study, REPOSITORY / SAMPLES)
    for path in report_files(study):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("new")
    run = study.results / "classification/pvt_tiny/seed0"
    for name in ("checkpoint.pth", "train.log", "work/state.json", "../../../frame.csv"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("not kept")
    sample = tmp_path / "samples/digits_study"
    (sample / "results").mkdir(parents=True)
    assert keep(study, tmp_path / "samples") == [sample / "report", sample / "results"]
    written = [sample / "report" / path.relative_to(study.reports) for path in report_files(study)]
    assert {path.read_text() for path in written} == {"new"}
    assert (sample / "report" / picture_index(study).relative_to(study.reports)).is_file()
    kept = {path.relative_to(sample / "results") for path in (sample / "results").rglob("*") if path.is_file()}
    assert kept == {
        path.relative_to(SAMPLE / "results") for path in (SAMPLE / "results").rglob("*") if path.is_file()
    }


def test_records_are_restored_only_where_there_are_none(study):
    restore(study, REPOSITORY / SAMPLES)
    assert picture_index(study).is_file()
    with pytest.raises(UserError, match="already contains records"):
        restore(study, REPOSITORY / SAMPLES)
