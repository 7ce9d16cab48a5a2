"""The embedded study's report can be built from its tracked records, without weights or data."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hafabench.config.experiment import load_experiment
from hafabench.reporting.frame import collect_experiment
from hafabench.reporting.report import build_report
from hafabench.reporting.write import write_report
from hafabench.results.record import write_record
from hafabench.runs.records import expected_records
from hafabench.runs.run import expand
from tools.checkout import REPOSITORY
from tools.synthetic_records import complexity, evaluation, latency

CONFIG = REPOSITORY / "configs/digits_study.yaml"
TRACKED = REPOSITORY / "results/digits_study"
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


@pytest.mark.skipif(not list(TRACKED.rglob("evaluate.json")), reason="no records of the study in this checkout")
def test_the_tracked_report_is_that_of_the_tracked_records(study, tmp_path):
    for pattern in ("*.json", "history.jsonl"):
        for path in TRACKED.rglob(pattern):
            target = tmp_path / path.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    _, missing = collect_experiment(study)
    assert missing == []
    write_report(build_report(study))
    for name in TEXTS:
        tracked = (REPOSITORY / study.reports / name).read_text()
        assert (study.reports / name).read_text() == tracked, f"{name}: `hafabench report --experiment {CONFIG.stem}`"


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout")
@pytest.mark.parametrize(
    ("path", "tracked"),
    [
        ("classification/pvt_tiny/seed0/evaluate.json", True),
        ("classification/pvt_tiny/seed0/config.json", True),
        ("classification/pvt_tiny/seed0/history.jsonl", True),
        ("complexity/detection.json", True),
        ("latency/pvt_tiny.json", True),
        ("data/detection.json", True),
        ("classification/pvt_tiny/seed0/checkpoint.pth", False),
        ("classification/pvt_tiny/seed0/train.log", False),
        ("classification/pvt_tiny/seed0/work/state.json", False),
        ("frame.parquet", False),
        ("frame.csv", False),
    ],
)
def test_git_keeps_records_and_neither_weights_nor_logs(path, tracked):
    place = str(Path("results/digits_study") / path)
    done = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", place], cwd=REPOSITORY)
    assert done.returncode == (1 if tracked else 0)
