"""One training at a time: after `--unlock`, beside a living job, and on a node that lost contact while it trains.

The training processes of virtual nodes run on this machine, so that the tests can stop them for a while. Each result
must equal that of an undisturbed training, bit for bit.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.results.history import read_history
from hafabench.runs.lease import EXPIRES, WAITS, Holder, holder_of
from hafabench.runs.snakemake import comment
from tests.support.slurm_workspace import EXPERIMENT, MODEL, Workspace
from tools.slurm_cluster.cluster import Job, SlurmCluster
from tools.slurm_cluster.driver import BIN, QUICK, Driver
from tools.waiting import wait_until

RUN = f"classification/{MODEL}/seed0"
RECORD = f"results/faults/{RUN}/evaluate.json"
PATIENCE = 300
LOST_NODE = "node4"


@pytest.fixture
def workspace(tmp_path, cluster, undisturbed) -> Iterator[Workspace]:
    """A checkout. Drivers that a test started in it are killed at the end."""
    yield Workspace(tmp_path / "checkout", {}, undisturbed)


def start(cluster: SlurmCluster, folder: Path, *arguments: str, **env: str) -> Driver:
    command = ["--profile", "slurm", "--configfile", EXPERIMENT, *QUICK, *arguments]
    return Driver(cluster, folder, RECORD, *command, env=env)


def slurm_jobs(cluster: SlurmCluster, workspace: Workspace, rule: str = "train_run") -> list[Job]:
    """The live Slurm jobs of a rule, oldest first, whatever path of the folder they were submitted from."""
    wanted = comment(rule, ["classification", MODEL, "0"])
    here = workspace.folder.resolve()
    jobs = [job for job in cluster.jobs() if job.comment == wanted and Path(job.folder).resolve() == here]
    return sorted(jobs, key=lambda job: int(job.id))


@contextmanager
def frozen_training(workspace: Workspace, driver: Driver) -> Iterator[Holder]:
    """Stop the training process of a driver after its first saved state; it continues after the context."""

    def stopped() -> Holder | None:
        found = holder_of(workspace.run_folder())
        if found is None or not workspace.is_training():
            return None
        os.kill(found[0].pid, signal.SIGSTOP)
        return found[0]

    holder = wait_until(
        stopped,
        lambda: f"it trains: {driver.output[-4000:]}",
        timeout=PATIENCE,
        every=0.02,
        give_up=lambda: "the driver ended" if driver.process.poll() is not None else None,
    )
    assert holder is not None and holder.slurm_job is not None
    try:
        assert not (workspace.run_folder() / "checkpoint.pth").exists()
        yield holder
    finally:
        if holder.runs:
            os.kill(holder.pid, signal.SIGCONT)


def unlock(workspace: Workspace, cluster: SlurmCluster) -> None:
    """Follow Snakemake's advice."""
    with start(cluster, workspace.folder, "--unlock") as driver:
        driver.succeeds(PATIENCE)


def steps(workspace: Workspace) -> list[int]:
    return [int(entry["step"]) for entry in read_history(workspace.run_folder() / "history.jsonl")]


def equals(undisturbed: Workspace, workspace: Workspace, *, resumes: int) -> None:
    """Check weights and history of a finished run."""
    content = load_checkpoint(workspace.run_folder() / "checkpoint.pth")
    expected = load_checkpoint(undisturbed.run_folder() / "checkpoint.pth")
    assert content["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        assert torch.equal(content["state_dict"][name], value), name
    assert content["meta"]["training"]["resumes"] == resumes
    assert steps(workspace) == steps(undisturbed)
    assert list(workspace.run_folder().glob("lease-*")) == []
    assert not (workspace.run_folder() / "work").exists()


def status(cluster: SlurmCluster, workspace: Workspace) -> str:
    command = [BIN / "hafabench", "status", "--experiment", EXPERIMENT]
    done = subprocess.run(
        command, cwd=workspace.folder, env=cluster.env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def slurm_log(workspace: Workspace, job: str, rule: str = "train_run") -> str:
    path = workspace.folder / f"logs/slurm/faults/rule_{rule}/classification_{MODEL}_0/{job}.log"
    return path.read_text() if path.exists() else ""


def test_a_driver_after_unlock_waits_for_the_training_of_the_killed_one(tmp_path, cluster, workspace, undisturbed):
    """The new driver runs in the same folder through another path."""
    other_path = tmp_path / "link"
    other_path.symlink_to(workspace.folder)
    with start(cluster, workspace.folder) as first, frozen_training(workspace, first) as holder:
        first.kill()
        unlock(workspace, cluster)
        second = start(cluster, other_path)
        try:
            wait_until(second.submitted, lambda: f"a second job: {second.output[-4000:]}", timeout=PATIENCE)
            old, new = slurm_jobs(cluster, workspace)
            assert (old.id, old.state) == (holder.slurm_job, "RUNNING")
            assert (new.id, new.state, new.reason) == (second.submitted()[0], "PENDING", "Dependency")
            assert cluster.details(new.id)["Dependency"].startswith(f"afterany:{old.id}(")
            assert f"begins after Slurm job {old.id}, which does the same, has ended" in second.output
            os.kill(holder.pid, signal.SIGCONT)
            second.succeeds(PATIENCE)
        finally:
            second.kill()
    assert [cluster.details(job)["JobState"] for job in (old.id, new.id)] == ["COMPLETED", "COMPLETED"]
    assert second.output.count("rule train_run:") == 1 and second.output.count("rule evaluate_run:") == 1
    assert "already trained" in slurm_log(workspace, new.id)
    equals(undisturbed, workspace, resumes=0)


def test_a_job_that_begins_beside_the_training_waits_for_its_lease(tmp_path, cluster, workspace, undisturbed):
    """The new driver does not know of the training, because squeue does not answer when it submits its job."""
    silent = tmp_path / "silent"
    silent.mkdir()
    squeue = shutil.which("squeue", path=cluster.env["PATH"])
    # The driver still reads the states of its own jobs.
    no_answer = 'echo "squeue: error: no answer" >&2; exit 1'
    script = f'#!/bin/sh\ncase "$*" in *--states=all*) exec {squeue} "$@";; *) {no_answer};; esac\n'
    (silent / "squeue").write_text(script)
    (silent / "squeue").chmod(0o755)
    log = workspace.run_folder() / "train.log"
    with start(cluster, workspace.folder) as first, frozen_training(workspace, first) as holder:
        first.kill()
        unlock(workspace, cluster)
        before = log.read_text()
        second = start(cluster, workspace.folder, PATH=os.pathsep.join([str(silent), str(BIN), cluster.env["PATH"]]))
        try:
            said = f"{RUN}: {WAITS} process {holder.pid} on {holder.host}, Slurm job {holder.slurm_job}, until it"
            wait_until(
                lambda: second.submitted() and said in slurm_log(workspace, second.submitted()[0]),
                lambda: f"it waits: {second.output[-4000:]}",
                timeout=PATIENCE,
            )
            (new,) = second.submitted()
            assert log.read_text() == before and f", Slurm job {holder.slurm_job}\n" in before
            (line,) = [
                line for line in status(cluster, workspace).splitlines() if line.startswith(f"  train_run {RUN}")
            ]
            assert f"{WAITS} process {holder.pid} on {holder.host}" in line and f"job {new}" in line
            os.kill(holder.pid, signal.SIGCONT)
            second.succeeds(PATIENCE)
        finally:
            second.kill()
    assert second.output.count("rule train_run:") == 1, "waiting is no failed attempt"
    assert f"{RUN}: has the lease after" in slurm_log(workspace, new)
    equals(undisturbed, workspace, resumes=0)


def test_a_job_on_a_node_that_lost_contact_writes_nothing_after_the_next_attempt_began(
    cluster, workspace, undisturbed
):
    (workspace.folder / "configs/site.yaml").write_text(
        (workspace.folder / "configs/site.yaml").read_text() + "cpu: {constraint: fast}\n"
    )
    for name in cluster.settings.node_names:
        if name != LOST_NODE:
            cluster.run("scontrol", "update", f"nodename={name}", "state=drain", "reason=test")
    try:
        with (
            start(cluster, workspace.folder, **{EXPIRES: "6"}) as driver,
            frozen_training(workspace, driver) as lost,
        ):
            assert (lost.host, lost.expires_s) == (LOST_NODE, 6)
            cluster.lose_contact(LOST_NODE)
            for name in cluster.settings.node_names:
                if name != LOST_NODE:
                    cluster.node_up(name)
            waits = f"{RUN}: {WAITS} process {lost.pid} on {LOST_NODE}, Slurm job {lost.slurm_job}"
            wait_until(
                lambda: waits in slurm_log(workspace, str(lost.slurm_job)),
                lambda: f"the next attempt waits: {driver.output[-4000:]} {cluster.jobs()}",
                timeout=PATIENCE,
            )
            driver.succeeds(PATIENCE)
            made = {path: path.stat().st_mtime_ns for path in workspace.run_folder().rglob("*") if path.is_file()}
            assert lost.runs, "the process still lives"
            os.kill(lost.pid, signal.SIGCONT)
            wait_until(lambda: not lost.runs, "the process on the lost node ends", timeout=60)
            wait_until(
                lambda: not snakemake_of(lost), "Snakemake ends on the lost node, and removes nothing", timeout=60
            )
            left = {path: path.stat().st_mtime_ns for path in workspace.run_folder().rglob("*") if path.is_file()}
            assert left == made
    finally:
        cluster.node_down(LOST_NODE)
    assert cluster.details(str(lost.slurm_job))["Restarts"] == "1"
    log = slurm_log(workspace, str(lost.slurm_job))
    assert f"{RUN}: has the lease after" in log
    assert "which attempt 1 saved" in log
    equals(undisturbed, workspace, resumes=1)


def snakemake_of(holder: Holder) -> list[int]:
    """The processes of Snakemake in the Slurm job of a process, on its node."""
    wanted = {f"SLURM_JOB_ID={holder.slurm_job}".encode(), f"SLURMD_NODENAME={holder.host}".encode()}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            environment = set((path / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if b"snakemake" in words and wanted <= environment:
            found.append(int(path.name))
    return found


def test_a_waiting_evaluation_of_a_killed_driver_is_not_doubled(cluster, workspace, undisturbed):
    shutil.copytree(undisturbed.run_folder(), workspace.run_folder(), dirs_exist_ok=True)
    for name in cluster.settings.node_names:
        cluster.run("scontrol", "update", f"nodename={name}", "state=drain", "reason=test")
    with start(cluster, workspace.folder) as first:
        wait_until(first.submitted, lambda: f"a job: {first.output[-4000:]}", timeout=PATIENCE)
        first.kill()
        (old,) = slurm_jobs(cluster, workspace, "evaluate_run")
        assert old.state == "PENDING"
        unlock(workspace, cluster)
        with start(cluster, workspace.folder) as second:
            wait_until(second.submitted, lambda: f"a second job: {second.output[-4000:]}", timeout=PATIENCE)
            (new,) = second.submitted()
            assert cluster.details(new)["Dependency"].startswith(f"afterany:{old.id}(")
            (line,) = [line for line in status(cluster, workspace).splitlines() if "evaluate_run" in line]
            assert f"job {old.id}" in line, "the job that waits for a node, and not the one that waits for this job"
            for name in cluster.settings.node_names:
                cluster.node_up(name)
            second.succeeds(PATIENCE)
    assert cluster.details(old.id)["JobState"] == cluster.details(new)["JobState"] == "COMPLETED"
    assert "train_run" not in second.output
    assert second.output.count("rule evaluate_run:") == 1
    assert (workspace.run_folder() / "evaluate.json").exists()


def test_a_dependency_on_a_forgotten_job_does_not_keep_a_job_waiting(cluster):
    job = cluster.sbatch("true", "--dependency=afterany:4000000:4000001", "--mem=100")
    wait_until(lambda: cluster.job(job).state == "COMPLETED", lambda: f"{cluster.job(job)}", timeout=60)
