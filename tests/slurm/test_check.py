"""`hafabench cluster check` on a real cluster: a correct site file passes, and each error gives one message."""

from __future__ import annotations

import pytest

from hafabench.cluster.check import check_cluster
from hafabench.config.experiment import load_experiment
from hafabench.config.site import GpuPool, Pool, Site
from tests.support.messages import missing_facts
from tests.support.slurm_jobs import submit, wait_for_state
from tools.slurm_cluster.configuration import ACCOUNT

CPU = Pool(partition="cpu", cpus=8, memory_gb=7)
GPU = GpuPool(partition="gpu", gpus=2, cpus=8, memory_gb=7)


def findings(experiment, level: str | None = None, probe: bool = False, wait_s: int = 60, **changes) -> list[str]:
    site = Site(**({"account": ACCOUNT, "cpu": CPU, "gpu": GPU} | changes))
    found = check_cluster(experiment, site, probe=probe, wait_s=wait_s)
    return [f"{finding.about}: {finding.sentence}" for finding in found if level in (None, finding.level)]


@pytest.fixture
def paper(write_experiment):
    return load_experiment(write_experiment(base="paper"))


def test_a_correct_site_file_has_no_problem_and_a_node_is_probed(cluster, workspace, write_experiment):
    digits = load_experiment(write_experiment())
    assert findings(digits, "problem", probe=True) == []
    said = findings(digits, "ok", probe=True)
    assert any(line.startswith("cpu node: ") and "hafabench runs" in line for line in said)


def test_the_largest_request_of_the_paper_is_tested_with_slurm(cluster, workspace, paper):
    assert findings(paper, "problem") == []
    assert any("largest request (train_run" in line for line in findings(paper, "ok"))


def test_data_that_a_node_does_not_see(cluster, workspace, paper):
    said = findings(paper, "problem", probe=True)
    assert any("data set imagenet1k: 2 of 2 paths are not visible from node" in line for line in said)
    # The test cluster's GPUs are no real devices, so torch finds none.
    assert any("torch finds no GPU on node" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"gpu": GPU.model_copy(update={"partition": "gpus"})},
            ("gpu.partition: ", "'gpus'"),
        ),
        (
            {"gpu": GPU.model_copy(update={"gpu_type": "a100"})},
            ("gpu.gpu_type: ", "'a100'"),
        ),
        (
            {"gpu": GPU.model_copy(update={"partition": "short"})},
            ("gpu.max_hours: ", "partition short"),
        ),
        (
            {"gpu": GPU.model_copy(update={"constraint": "fast&huge"})},
            ("gpu.constraint: ", "fast&huge", "fast"),
        ),
        (
            {"gpu": GPU.model_copy(update={"gpus": 8})},
            ("gpu.gpus: ", "8 GPUs", "has 2"),
        ),
        ({"account": "nobody"}, ("account: ", "user root", "'nobody'")),
    ],
)
def test_each_error_is_one_message(cluster, workspace, paper, changes, expected):
    said = findings(paper, "problem", **changes)
    assert any(line.startswith(expected[0]) and not missing_facts(line, *expected) for line in said), said
    assert not any("\n" in line for line in said)


def test_no_free_node_is_no_problem(cluster, workspace, write_experiment):
    for _ in cluster.settings.node_names:
        job = submit(cluster, workspace, "sleep 300", "others", "--nodes=1", "--exclusive", "--partition=cpu")
        wait_for_state(cluster, job, "RUNNING")
    digits = load_experiment(write_experiment())
    assert findings(digits, "problem", probe=True, wait_s=3) == []
    assert any("within 3 s" in line for line in findings(digits, "note", probe=True, wait_s=3))
