"""Status and recovery with a real queue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hafabench.cluster.queue import live_jobs
from hafabench.cluster.recover import recover
from hafabench.cluster.status import experiment_status, render
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.runs.run import expand
from hafabench.runs.snakemake import comment, unlock_command
from tests.support.experiments import fixed_length
from tests.support.messages import missing_facts
from tests.support.slurm_jobs import TRAINING, submit, wait_for_state
from tools.waiting import wait_until


def test_jobs_from_queue_files_and_logs(cluster, workspace, write_experiment):
    experiment = load_experiment(write_experiment(fixed_length))
    runs = expand(experiment)
    run = runs["classification/pvt_tiny/seed0"]
    run.work.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.resolved()))
    run.history.write_text('{"step": 32, "loss": 2.0, "epoch": 1.0, "images_per_s": 41.5, "eta_s": 90}\n')
    failed = comment("train_run", ["classification", "swin_tiny", "0"])
    log = workspace / "logs/slurm" / experiment.name / failed.replace("_wildcards_", "/") / "%j.log"
    log.parent.mkdir(parents=True)
    script = "echo step 1; echo 'error: no GPU here' >&2; exit 1"
    broken = submit(cluster, workspace, script, failed, f"--output={log}")
    wait_for_state(cluster, broken, "FAILED")
    running = submit(cluster, workspace, "sleep 300", TRAINING)
    wait_for_state(cluster, running, "RUNNING")
    # This job waits, because it needs all nodes and the first job runs on one of them.
    everything = (f"--nodes={len(cluster.settings.node_names)}", "--exclusive")
    other = comment("train_run", ["classification", "resnet18", "0"])
    waiting = submit(cluster, workspace, "true", other, *everything)
    wait_until(
        lambda: cluster.job(waiting).reason not in ("None", "Prolog"), "the second job has a reason", timeout=60
    )

    found = {status.job.id: status for status in experiment_status(experiment).jobs}

    alive = found["train_run classification/pvt_tiny/seed0"]
    assert (alive.state, alive.slurm_id) == ("running", running)
    assert alive.node == cluster.job(running).node
    assert missing_facts(alive.detail, "epoch 1.0 of 4", "step 32 of 128", "41.5 images/s") == []
    queued = found["train_run classification/resnet18/seed0"]
    assert (queued.state, queued.slurm_id) == ("queued", waiting)
    assert queued.detail == cluster.job(waiting).reason != "None"
    # The waiting job reserves nodes that other tests need.
    cluster.cancel_all()
    dead = found["train_run classification/swin_tiny/seed0"]
    assert (dead.state, dead.detail) == ("failed", "error: no GPU here")
    assert found["evaluate_run classification/pvt_tiny/seed0"].state == "to do"
    text = render(experiment_status(experiment))
    assert f"again: hafabench train classification/swin_tiny/seed0 --experiment {experiment.file}" in text


def locked(folder: Path) -> Path:
    lock = folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/checkpoint.pth\n")
    return lock


SNAKEFILE = 'rule all:\n    output: "results/checkpoint.pth"\n    shell: "touch {output}"\n'


def test_recover_cancels_live_jobs_only_on_request(cluster, workspace, write_experiment):
    lock = locked(workspace)
    job = submit(cluster, workspace, "sleep 300", TRAINING)
    other = submit(cluster, workspace, "sleep 300", "someone-else's")
    wait_for_state(cluster, job, "RUNNING")
    snakefile = workspace / "Snakefile"
    snakefile.write_text(SNAKEFILE)
    command = unlock_command(write_experiment(), snakefile)
    said: list[str] = []

    with pytest.raises(UserError, match="1 live jobs of this folder; nothing was changed"):
        recover(workspace, command, "show", said.append)
    assert lock.exists() and len(live_jobs(workspace)) == 1
    assert said[0].startswith(
        f"job {job} of an unknown experiment  train_run_wildcards_classification_pvt_tiny_0  running on node"
    )

    recover(workspace, command, "cancel", said.append, every_s=0.5)
    assert not lock.exists()
    assert live_jobs(workspace) == []
    assert cluster.job(job).state == "CANCELLED"
    assert cluster.job(other).state in ("RUNNING", "PENDING")


def test_recover_waits_for_the_end(cluster, workspace, write_experiment):
    lock = locked(workspace)
    job = submit(cluster, workspace, "sleep 4", TRAINING)
    (workspace / "Snakefile").write_text(SNAKEFILE)
    recover(workspace, unlock_command(write_experiment()), "wait", [].append, every_s=0.5)
    assert cluster.job(job).state == "COMPLETED"
    assert not lock.exists()
