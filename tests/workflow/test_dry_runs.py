"""Dry runs of both experiments: job counts, missing data and invalid configurations."""

from __future__ import annotations

from collections import Counter

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.runs.jobs import JobList
from tools import cluster_docs
from tools.checkout import REPOSITORY, job_counts, snakemake


def test_digits(tmp_path):
    done = snakemake(tmp_path, REPOSITORY / "configs/digits.yaml", "--dry-run", "all")
    assert done.returncode == 0, done.stdout
    assert job_counts(done.stdout) == {
        "all": 1,
        "prepare_dataset": 3,
        "train_run": 11 + 4 + 4,
        "evaluate_run": 11 + 4 + 4,
        "count_complexity": 3,
        "count_conventions": 1,
        "measure_latency": 1,
        "collect_records": 1,
        "draw_pictures": 1,
        "write_report": 1,
        "total": 50,
    }


def test_paper_without_its_data_lists_missing_data_and_plans(tmp_path):
    done = snakemake(tmp_path, REPOSITORY / "configs/paper.yaml", "--dry-run", "all")
    assert done.returncode == 0, done.stdout
    assert job_counts(done.stdout) == {
        "all": 1,
        "prepare_dataset": 3,
        "train_run": 32 + 10 + 10,
        "evaluate_run": 32 + 10 + 10,
        "count_complexity": 3,
        "count_conventions": 1,
        "measure_latency": 4,
        "collect_records": 1,
        "draw_pictures": 1,
        "write_report": 1,
        "total": 119,
    }
    assert done.stdout.count("missing data: ") == 3
    assert job_counts(cluster_docs.block("listing")) == job_counts(done.stdout), cluster_docs.STALE
    # Status and accounting know every job.
    known = Counter(job.rule for job in JobList(load_experiment(REPOSITORY / "configs/paper.yaml")).values())
    assert {**known, "all": 1, "total": known.total() + 1} == job_counts(done.stdout)


def test_paper_without_its_data_starts_no_job(tmp_path):
    done = snakemake(tmp_path, REPOSITORY / "configs/paper.yaml", "all")
    assert done.returncode != 0
    assert "no job started, data is missing" in done.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_second_experiment_of_the_same_name_starts_no_job(tmp_path, write_experiment):
    first, target = write_experiment(), "results/digits/data/classification.json"
    assert snakemake(tmp_path, first, target).returncode == 0
    second = first.with_name("second.yaml")
    second.write_text(first.read_text().replace("title: ", "title: Another, "))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results/*")}
    for arguments in (["--dry-run", "all"], ["all"]):
        done = snakemake(tmp_path, second, *arguments)
        assert done.returncode != 0
        assert "second.yaml: experiment: results/digits belongs to digits.yaml, another experiment" in done.stdout
        assert "rule " not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results/*")} == before
    # The first one may be edited and moved.
    moved = first.rename(first.with_name("moved.yaml"))
    moved.write_text(second.read_text())
    second.unlink()
    assert snakemake(tmp_path, moved, target).returncode == 0


@pytest.mark.slow
def test_one_missing_data_set_blocks_only_the_jobs_that_need_it(tmp_path, write_experiment):
    def without_segmentation(content):
        content["datasets"]["segmentation"] |= {"root": str(tmp_path / "absent"), "generator": None}

    data = "results/digits/data"
    files = [f"{data}/segmentation.json", f"{data}/classification.json"]
    done = snakemake(tmp_path, write_experiment(without_segmentation), *files)
    assert done.returncode != 0
    assert "missing data: segmentation: " in done.stdout
    assert "absent: no such folder" in (tmp_path / data / "segmentation.log").read_text()
    assert [(tmp_path / file).exists() for file in files] == [False, True]


def test_an_invalid_configuration_is_refused_before_the_dag(tmp_path, write_experiment):
    path = write_experiment(lambda c: c["train"]["classification"].append("pvt_gigantic"))
    done = snakemake(tmp_path, path, "--dry-run", "all")
    assert done.returncode != 0
    assert "the experiment is invalid" in done.stdout
    assert f"{path.name}:" in done.stdout
    assert "train.classification[11]: unknown model 'pvt_gigantic'" in done.stdout
    assert "Traceback" not in done.stdout
