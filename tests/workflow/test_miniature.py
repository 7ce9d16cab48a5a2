"""A miniature of the embedded experiment from start to end, and which jobs run again after a change."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.support.experiments import experiment_content, shrink
from tools.checkout import REPOSITORY, job_counts, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("miniature")


@pytest.fixture
def experiment(workspace, monkeypatch) -> Path:
    content = experiment_content()
    shrink(content)
    path = workspace / "digits.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture
def finished(workspace, experiment) -> Path:
    """The workspace after a complete run."""
    done = snakemake(workspace, experiment, "all")
    assert done.returncode == 0, done.stdout[-6000:]
    return workspace


def planned(workspace: Path, experiment: Path) -> dict[str, int]:
    done = snakemake(workspace, experiment, "--dry-run", "all")
    assert done.returncode == 0, done.stdout
    return job_counts(done.stdout)


def test_tables_are_made_from_what_ran(finished):
    for table in (*(f"table{number}" for number in range(1, 7)), "section4_1", "section4_4"):
        for suffix in ("md", "tex", "csv"):
            assert (finished / f"reports/digits/tables/{table}.{suffix}").stat().st_size > 0
    record = json.loads((finished / "results/digits/classification/resnet18/seed0/evaluate.json").read_text())
    top1 = next(metric["value"] for metric in record["metrics"] if metric["name"] == "top1")
    row = next(
        line for line in (finished / "reports/digits/tables/table1.md").read_text().splitlines() if "ResNet18" in line
    )
    assert f"{top1:.1f}" in row
    assert record["training"]["steps"] == 2
    assert record["provenance"]["dataset_digest"]


def test_the_report_shows_what_ran_with_its_pictures(finished):
    report = (finished / "reports/digits/report.html").read_text()
    assert "4 of 4 evaluated" in report
    # There is one classifier with LAA and no pair of segmentation runs.
    assert report.count("data:image/webp;base64,") == 3 * 4
    figures = finished / "reports/digits/figures"
    assert (figures / "offsets.webp").is_file()
    assert len(list((figures / "tiles/offsets").iterdir())) == 3 * 4
    assert not (figures / "clusters.webp").exists()


def test_a_second_run_does_nothing(finished, experiment):
    assert planned(finished, experiment) == {}


def test_a_touched_source_file_reruns_nothing(finished, experiment):
    for path in (REPOSITORY / "src/hafabench/models/pvt.py", REPOSITORY / "workflow/rules/train.smk"):
        kept = path.stat()
        os.utime(path)
        try:
            assert planned(finished, experiment) == {}
        finally:
            os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))


def test_a_copy_without_metadata_and_times_reruns_nothing(finished, experiment, tmp_path):
    for folder in ("results", "reports", "data"):
        shutil.copytree(finished / folder, tmp_path / folder, copy_function=shutil.copyfile)
    for seconds, path in enumerate(sorted(tmp_path.rglob("*"), reverse=True)):
        os.utime(path, (1_700_000_000 + seconds,) * 2)
    assert planned(tmp_path, experiment) == {}


@pytest.mark.parametrize("has_metadata", [True, False])
def test_a_changed_learning_rate_reruns_that_run_and_its_dependants(finished, experiment, has_metadata, tmp_path):
    if not has_metadata:
        for folder in ("results", "reports", "data"):
            shutil.copytree(finished / folder, tmp_path / folder)
        finished = tmp_path
    content = yaml.safe_load(experiment.read_text())
    content["overrides"].append({"runs": "classification/pvt_tiny_hafa/*", "why": "a test", "set": {"lr": 0.002}})
    experiment.write_text(yaml.safe_dump(content, sort_keys=False))
    assert planned(finished, experiment) == {
        "all": 1,
        "train_run": 3,
        "evaluate_run": 3,
        "collect_records": 1,
        "draw_pictures": 1,
        "write_report": 1,
        "total": 10,
    }


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        ("classification/resnet18/seed0/evaluate.json", "evaluate_run"),
        ("complexity/segmentation.json", "count_complexity"),
        ("latency/table4.json", "measure_latency"),
        ("data/classification.json", "prepare_dataset"),
        ("counts.json", "count_conventions"),
        ("frame.parquet", "collect_records"),
        ("frame.csv", "collect_records"),
        ("../../reports/digits/figures/offsets.webp", "draw_pictures"),
        ("../../reports/digits/tables/table1.tex", "write_report"),
    ],
)
def test_a_lost_output_is_made_again_alone(finished, experiment, record, rule):
    path = finished / "results/digits" / record
    kept = path.read_bytes(), path.stat()
    path.unlink()
    try:
        remade = {rule}
        if rule in ("evaluate_run", "count_complexity", "measure_latency"):
            remade.add("collect_records")
        if rule != "prepare_dataset":
            remade.add("write_report")
        assert planned(finished, experiment) == {**dict.fromkeys(["all", *remade], 1), "total": len(remade) + 1}
    finally:
        path.write_bytes(kept[0])
        os.utime(path, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))


def test_a_failing_job_does_not_stop_the_others_and_can_be_repeated(finished, experiment):
    image = next((finished / "data/digits/imagenet/val").rglob("*.JPEG"))
    record = finished / "results/digits/classification/resnet18/seed0/evaluate.json"
    whole = image.read_bytes()
    record.unlink()
    image.write_bytes(whole[: len(whole) // 2])
    try:
        done = snakemake(finished, experiment, "--keep-going", "all")
        assert done.returncode != 0
        log = record.with_name("evaluate.log").read_text()
        assert f"{image.name}: files changed since they were made" in log
        assert "hafabench data prepare" in log
        assert "Traceback" not in log
        assert not record.exists()
    finally:
        image.write_bytes(whole)
    started = time.time()
    assert snakemake(finished, experiment, "all").returncode == 0
    assert record.stat().st_mtime > started
