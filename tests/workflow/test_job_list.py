"""The list of jobs equals the DAG that Snakemake builds, for every shipped experiment, without data sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hafabench.config.experiment import load_experiment
from hafabench.config.site import load_site
from hafabench.runs.jobs import JobList
from hafabench.runs.snakemake import RESOURCE_NAMES, executor_resources, site_resources
from tests.support.snakemake_dag import snakemake_dag
from tools.checkout import REPOSITORY

EXPERIMENTS = ("digits", "digits_study", "paper", "regression_digits")
SITE = {
    "account": "vision",
    "gpu": {"partition": "gpu", "gpu_type": "a100", "gpus": 4, "max_nodes": 2, "qos": "long"},
    "cpu": {"partition": "cpu", "extra": "--exclusive"},
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_list_is_snakemakes_dag(experiment, tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(SITE))
    file = REPOSITORY / "configs" / f"{experiment}.yaml"
    dag = snakemake_dag(tmp_path, file, "all", "regression", HAFABENCH_SITE=str(site))
    monkeypatch.chdir(tmp_path)
    # The path as the Snakefile writes it.
    jobs = JobList(load_experiment(Path(os.path.relpath(file))), load_site(site))
    listed = {**jobs, **jobs.optional}
    ids = {(job.rule, *job.wildcards.values()): job.id for job in listed.values()}
    planned = {ids.get((one["rule"], *one["wildcards"].values()), one["rule"]): one for one in dag}
    (complete,) = (planned.pop(one) for one in list(planned) if one == "all")
    assert complete["input"] == list(map(str, jobs.targets))
    assert planned.keys() == listed.keys()
    for job in listed.values():
        one = planned[job.id]
        assert one["wildcards"] == job.wildcards, job.id
        assert one["input"] == list(map(str, job.inputs)), job.id
        assert one["output"] == list(map(str, job.outputs)), job.id
        if job.rule in ("train_run", "evaluate_run"):
            # Snakemake would delete the log of another process that trains the run.
            assert one["log"] == [] and f"job_log {job.log})" in one["shell"], job.id
        else:
            assert one["log"] == list(map(str, job.logs)), job.id
        needs = {ids[tuple(need)] for need in one["needs"]}
        assert needs == set(job.needs), job.id
        assert one["params"].get("fingerprint") == job.fingerprint, job.id
        assert job.command in one["shell"], job.id
        assert (one["priority"], one["is_local"]) == (job.priority, job.is_local), job.id
        assert one["threads"] == (job.threads or 2), job.id
        nodes = site_resources(jobs.site, job.uses_gpu).items()
        expected = {name: value for name, value in nodes if name not in RESOURCE_NAMES}
        expected |= executor_resources(job.resources(), jobs.site)
        found = {name: value for name, value in one["resources"].items() if name not in ("tmpdir", "mem_mib", "mem")}
        assert found == expected, job.id
