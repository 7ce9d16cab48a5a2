"""One training on two nodes by the workflow's own rule, with gloo on CPUs and GPUs that exist only for Slurm."""

from __future__ import annotations

import re
import subprocess

import pytest
import torch

from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.results.history import read_history
from tests.support.slurm_workspace import EXPERIMENT, MODEL, Workspace
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.configuration import GPU_TYPE
from tools.slurm_cluster.driver import BIN
from tools.waiting import wait_until

RUN = f"classification/{MODEL}/seed0"
SITE = {
    "gpu": {"partition": "gpu", "gpu_type": GPU_TYPE, "gpus": 1, "max_nodes": 2, "cpus": 2, "memory_gb": 4},
    "cpu": {"partition": "cpu"},
}
PATIENCE = 400


@pytest.fixture(scope="module")
def on_one_node(tmp_path_factory, session_cluster) -> Workspace:
    """The same training by two processes on one node, without Slurm."""
    workspace = Workspace(tmp_path_factory.mktemp("one_node") / "checkout", SITE, scale="full", epochs=4)
    for command in (["data", "prepare", "classification"], ["train", RUN, "--threads", "1", "--processes", "2"]):
        subprocess.run([BIN / "hafabench", *command, "--experiment", EXPERIMENT], cwd=workspace.folder, check=True)
    return workspace


def test_two_nodes_train_what_two_processes_do_also_after_scancel(
    cluster: SlurmCluster, tmp_path, on_one_node: Workspace
):
    workspace = Workspace(tmp_path / "checkout", SITE, on_one_node, scale="full", epochs=4)
    with workspace.start(cluster) as driver:
        wait_until(
            workspace.is_training,
            lambda: f"the training has written a state: {driver.output[-3000:]}",
            timeout=PATIENCE,
            give_up=lambda: None if driver.process.poll() is None else driver.output[-3000:],
        )
        (job,) = cluster.jobs()
        details = cluster.details(job.id)
        cluster.scancel(job.id)
        driver.succeeds(PATIENCE)
    assert (details["NumNodes"], details["TresPerNode"]) == ("2", f"gres:gpu:{GPU_TYPE}:1")
    steps = {row["JobID"]: row for row in cluster.sacct("JobID", "JobName", "NNodes", "AllocTRES", jobs=job.id)}
    step = steps[f"{job.id}.0"]
    assert (step["NNodes"], "gres/gpu=2" in step["AllocTRES"]) == ("2", True), "the training's step is on both nodes"

    found, expected = (load_checkpoint(w.run_folder() / "checkpoint.pth") for w in (workspace, on_one_node))
    assert found["meta"]["training"]["processes"] == expected["meta"]["training"]["processes"] == 2
    assert found["meta"]["training"]["resumes"] == 1, "asked to stop, it saved; the next attempt went on from there"
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    every = [int(entry["step"]) for entry in read_history(workspace.run_folder() / "history.jsonl")]
    assert every == list(range(5, found["meta"]["training"]["steps"] + 1, 5))
    first, second = workspace.slurm_logs()
    resumed = int(re.search(r"resumed after step (\d+)", second).group(1))
    # Slurm ends a job some seconds after scancel. A very busy machine may not have saved the state by then.
    saved = "stopped after step" in first
    least = 11 if saved else 10
    assert least <= resumed < 20, "both nodes finish the step, and the first one saves the state"
    assert (workspace.run_folder() / "evaluate.json").exists()
