"""Status and recovery with a real queue."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from hafabench.cluster.ends import how_it_ended
from hafabench.cluster.queue import ended_jobs, live_jobs
from hafabench.cluster.recover import recover
from hafabench.cluster.status import experiment_status, render
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.runs.run import expand
from hafabench.runs.snakemake import comment, job_name_prefix, unlock_command
from tests.support.experiments import fixed_length
from tests.support.messages import missing_facts
from tests.support.slurm_commands import UUID
from tests.support.slurm_jobs import EVALUATION, TRAINING, submit, wait_for_state
from tests.support.slurm_workspace import EXPERIMENT, MODEL, Workspace
from tools.waiting import wait_until

RUN = "classification/pvt_tiny/seed0"


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


def job_name(experiment: str) -> str:
    return f"--job-name={job_name_prefix(experiment)}_{UUID}"


def test_two_experiments_in_one_folder(cluster, workspace, write_experiment):
    def renamed(content):
        fixed_length(content)
        content["experiment"] = "other.digits"

    own, other = load_experiment(write_experiment(fixed_length)), load_experiment(write_experiment(renamed))
    # Both give the job that trains this run the same comment. The log tells that of the other experiment apart.
    log = workspace / "logs/slurm" / other.name / TRAINING.replace("_wildcards_", "/") / "%j.log"
    log.parent.mkdir(parents=True)
    failed = submit(
        cluster, workspace, "echo 'error: no GPU' >&2; exit 1", TRAINING, f"--output={log}", job_name(other.name)
    )
    wait_for_state(cluster, failed, "FAILED")
    running = submit(cluster, workspace, "sleep 300", EVALUATION, job_name(own.name))
    waiting = submit(cluster, workspace, "sleep 300", EVALUATION, job_name(other.name), "--hold")
    wait_for_state(cluster, running, "RUNNING")

    found = {one.name: {job.job.id: job for job in experiment_status(one).jobs} for one in (own, other)}
    states = [
        (found[one.name][f"{rule} {RUN}"].state, found[one.name][f"{rule} {RUN}"].slurm_id)
        for one in (own, other)
        for rule in ("train_run", "evaluate_run")
    ]
    assert states == [("to do", ""), ("running", running), ("failed", failed), ("queued", waiting)]
    said: list[str] = []
    locked(workspace)
    with pytest.raises(UserError, match="2 live jobs of this folder"):
        recover(workspace, unlock_command(own.file), "show", said.append, experiment=own)
    assert [line.split("  ")[0] for line in said] == [
        f"job {running} of experiment {own.name}",
        f"job {waiting} of experiment {other.name}",
    ]


# How the Slurm jobs of trainings end, by model: the script, options, the kind of the end, and a part of the sentence.
# Slurm measures time limits in minutes, so that the first one takes the longest.
ENDS = {
    "resnet18": ("sleep 300", ("--time=1",), "time", "it reached its time limit on node"),
    "pvt_tiny": (
        "python3 -c 'bytearray(10**9)'; exit 1",
        (),
        "memory",
        "it used more memory than it requested on node",
    ),
    "pvt_tiny_hafa_qkv": ("/gone/bin/python -m hafabench", (), "environment", "/gone/bin/python: not found"),
    "pvt_v2_b1": ("head -c 9 /dev/zero > /dev/full", (), "space", "No space left on device"),
    "pvt_v2_b1_hafa": ("sleep 300", (), "cancelled", "it was cancelled by "),
    "pvt_tiny_hafa": ("sleep 300", ("--partition=cancelled", "--constraint=only_node2"), "preempted", "another job"),
    "swin_tiny": (
        "sleep 300",
        ("--no-requeue", "--constraint=only_node4"),
        "node",
        "its node failed or lost contact",
    ),
    "swin_tiny_hafa": ("true", ("--output=gone/%j.log",), "folder", "Slurm could not write its log"),
}


def test_the_reason_of_every_end(cluster, workspace, write_experiment):
    experiment = load_experiment(write_experiment(fixed_length))
    ids = {}
    for model, (script, options, _, _) in ENDS.items():
        job_comment = comment("train_run", ["classification", model, "0"])
        folder = workspace / "logs/slurm" / experiment.name / job_comment.replace("_wildcards_", "/")
        folder.mkdir(parents=True)
        # The last of an option counts. Jobs on other nodes than the first end with their nodes.
        usual = (job_name(experiment.name), "--constraint=only_node1", f"--output={folder}/%j.log")
        ids[model] = submit(cluster, workspace, script, job_comment, *usual, *options)
    for model in ("pvt_v2_b1_hafa", "pvt_tiny_hafa", "swin_tiny"):
        wait_for_state(cluster, ids[model], "RUNNING")
    cluster.scancel(ids["pvt_v2_b1_hafa"])
    submit(cluster, workspace, "sleep 1", "x", "--partition=gpu", "--constraint=only_node2", "--exclusive")
    cluster.node_down("node4")
    wait_until(lambda: not any(job.id in ids.values() for job in cluster.jobs()), "all jobs have ended", timeout=150)

    def told() -> dict[str, tuple[str, str]]:
        found = {status.job.id: status for status in experiment_status(experiment, fresh_s=0).jobs}
        jobs = {model: found[f"train_run classification/{model}/seed0"] for model in ENDS}
        return {model: (job.kind, job.detail) for model, job in jobs.items()}

    expected = {model: kind for model, (_, _, kind, _) in ENDS.items() if kind != "folder"}
    # The accounting is some seconds behind.
    wait_until(
        lambda: {model: told()[model][0] for model in expected} == expected,
        lambda: f"the kinds are {expected}: {told()}",
        timeout=60,
    )
    details = {model: detail for model, (_, detail) in told().items()}
    assert [details[model] for model in expected if ENDS[model][3] not in details[model]] == []
    # Nothing in the folder tells that this job has run. The executor, which knows it, stores its end.
    (ended,) = ended_jobs([ids["swin_tiny_hafa"]]).values()
    log = workspace / "gone" / f"{ids['swin_tiny_hafa']}.log"
    assert how_it_ended(ended.state, ended.exit_code, ended.node, log).kind == "folder"


def test_the_summary_of_the_driver_names_refused_jobs(cluster, tmp_path):
    workspace = Workspace(tmp_path / "refused", {"account": "nobody", "cpu": {"partition": "cpu"}})
    with workspace.start(cluster, "--retries", "2", seeds=(0, 1)) as driver:
        assert driver.finished(120) == 1
        said = driver.output.splitlines()
        arguments = driver.process.args[1:]
    summary = said[said.index("2 failed or interrupted") :]
    assert missing_facts(" ".join(summary), "refused by Slurm (2)", "Invalid account or account/partition") == []
    again = [f"again: hafabench train classification/{MODEL}/seed{seed} --experiment {EXPERIMENT}" for seed in (0, 1)]
    assert [line.strip() for line in summary if "again: " in line] == again
    assert f"  {shlex.join(['snakemake', *arguments])}" in summary


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
