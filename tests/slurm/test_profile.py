"""``snakemake --profile slurm`` in a checkout, and the resources that it requests from a real Slurm."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from hafabench.config.experiment import load_experiment
from hafabench.runs.jobs import JobList
from tests.support.slurm_workspace import Workspace
from tools.checkout import REPOSITORY, job_counts
from tools.slurm_cluster.configuration import ACCOUNT
from tools.slurm_cluster.driver import BIN, QUICK, Driver
from tools.slurm_cluster.machine import why_unavailable
from tools.waiting import wait_until

# Two jobs on a GPU node, of which one succeeds at its second attempt, and one job without a GPU.
TOYS = """
from pathlib import Path
from hafabench.config.site import load_site, site_file
from hafabench.runs.snakemake import site_resources

SITE = load_site(site_file(Path(workflow.basedir)))


rule all:
    input: "on_gpu", "second_time", "on_cpu"


rule needs_gpus:
    output: "{name}"
    wildcard_constraints: name="on_gpu|second_time"
    resources:
        **site_resources(SITE, gpus=2),
        gpu=2,
        runtime=7,
        mem_mb=lambda wildcards, attempt: 700 * attempt,
        again=lambda wildcards, attempt: attempt,
    shell:
        "echo $CUDA_VISIBLE_DEVICES on $SLURMD_NODENAME >> seen_by_{wildcards.name}; "
        "[ {wildcards.name} = on_gpu ] || [ {resources.again} = 2 ]; touch {output}"


rule needs_none:
    output: "on_cpu"
    resources: **site_resources(SITE)
    shell: "touch {output}"
"""
SITE = {
    "account": ACCOUNT,
    "gpu": {"partition": "gpu", "gpu_type": "fake", "constraint": "fast&only_node3", "extra": "--mail-type=NONE"},
    "cpu": {"partition": "cpu,preemptible"},
}


@pytest.fixture
def toys(tmp_path) -> Path:
    """A folder with the project's profile, a site file and a workflow of tiny jobs."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/paper.yaml").write_text("{}\n")
    (tmp_path / "configs/site.yaml").write_text(yaml.safe_dump(SITE))
    (tmp_path / "slurm").symlink_to(REPOSITORY / "slurm")
    (tmp_path / "Snakefile").write_text(TOYS)
    return tmp_path


def test_settings_of_the_site_file_reach_slurm(cluster, toys):
    with Driver(cluster, toys, "all", "--profile", "slurm", *QUICK) as driver:
        driver.succeeds(200)
        ids = driver.submitted()
    assert len(ids) == 4
    jobs: dict[str, list[dict[str, str]]] = {}
    for job_id in ids:
        details = cluster.details(job_id)
        jobs.setdefault(details["Comment"], []).append(details)
    first, second = jobs.pop("rule_needs_gpus_wildcards_second_time")
    (only,) = jobs.pop("rule_needs_gpus_wildcards_on_gpu")
    (cpu,) = jobs.pop("rule_needs_none")
    assert jobs == {}
    for job in (first, second, only):
        assert job["Account"] == ACCOUNT
        assert job["Partition"] == "gpu"
        assert job["Features"] == "fast&only_node3"
        assert job["NodeList"] == "node3"
        assert job["NumNodes"] == "1"
        assert job["TresPerJob"] == "gres:gpu:fake:2"
        assert job["TimeLimit"] == "00:07:00"
        assert job["Requeue"] == "1"
    assert [job["JobState"] for job in (first, second)] == ["FAILED", "COMPLETED"]
    assert [job["MinMemoryNode"] for job in (first, second)] == ["700M", "1400M"], "raised on retry"
    assert cpu["Partition"] in ("cpu", "preemptible")
    assert "TresPerJob" not in cpu
    assert (toys / "seen_by_on_gpu").read_text() == "0,1 on node3\n"
    logs = sorted((toys / "logs/slurm/rule_needs_gpus/second_time").glob("*.log"))
    assert [path.stem for path in logs] == sorted((first["JobId"], second["JobId"])), "of every attempt, good or bad"


@pytest.mark.parametrize(
    ("arguments", "experiment"),
    [((), "configs/paper.yaml"), (("--configfile", "configs/digits.yaml"), "configs/digits.yaml")],
)
def test_it_works_verbatim_in_a_checkout(tmp_path, arguments, experiment):
    if reason := why_unavailable():
        pytest.skip(reason)
    workspace = Workspace(tmp_path / "checkout", {})
    command = [str(BIN / "snakemake"), "--profile", "slurm", "all", *arguments, "--dry-run"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    done = subprocess.run(command, cwd=workspace.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = job_counts(done.stdout + done.stderr)
    by_rule = Counter(job.rule for job in JobList(load_experiment(REPOSITORY / experiment)).values())
    assert {rule: counts[rule] for rule in by_rule} == by_rule


def test_an_error_in_the_site_file_is_reported_before_any_submission(cluster, tmp_path):
    workspace = Workspace(tmp_path / "checkout", {"gpu": {"partitions": "a100"}})
    with workspace.start(cluster) as driver:
        assert driver.finished(60) != 0
        assert "configs/site.yaml:3: gpu.partitions: unknown key" in driver.output
        assert "Traceback" not in driver.output
        assert driver.submitted() == []
    assert cluster.jobs() == []


def test_interrupting_the_driver_cancels_its_jobs(cluster, toys):
    (toys / "Snakefile").write_text(TOYS.replace('shell: "touch {output}"', 'shell: "sleep 600"'))
    with Driver(cluster, toys, "on_cpu", "--profile", "slurm", *QUICK) as driver:
        wait_until(lambda: any(job.state == "RUNNING" for job in cluster.jobs()), "the job runs", timeout=60)
        driver.interrupt()
        assert driver.finished(120) != 0
    wait_until(lambda: cluster.jobs() == [], "no job is left", timeout=60)


@pytest.mark.parametrize(("arguments", "expected"), [((), 3), (("--jobs", "2"), 2)])
def test_the_site_file_limits_how_many_jobs_are_submitted(cluster, tmp_path, arguments, expected):
    workspace = Workspace(tmp_path / "checkout", {"max_submitted_jobs": 3})
    with workspace.start(cluster, *arguments) as driver:
        wait_until(lambda: "Provided remote nodes: " in driver.output, lambda: driver.output, timeout=60)
        assert f"Provided remote nodes: {expected}\n" in driver.output
