"""Recovery of a folder after its driver has ended, and running commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hafabench.cluster import recover as recovery
from hafabench.cluster.commands import CommandFailed, run
from hafabench.cluster.recover import recover
from hafabench.cluster.status import experiment_status
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import save_checkpoint
from hafabench.runs.attempts import AS_JOB
from hafabench.runs.jobs import JobList
from hafabench.runs.kept_outputs import keep_finished
from hafabench.runs.lease import take, this_process
from hafabench.runs.run import expand
from hafabench.runs.snakemake import driver_processes, is_locked
from hafabench.runs.state import store_configuration
from tests.support.experiments import fixed_length
from tests.support.slurm_commands import RecordedCommands, squeue, squeue_line
from tests.support.snakemake_marks import mark

RUN = "classification/pvt_tiny/seed0"


@pytest.fixture
def digits(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment(fixed_length))


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / ".snakemake/locks/0.input.lock"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def unlocking(lock: Path) -> list[str]:
    return [sys.executable, "-c", f"import pathlib; pathlib.Path({str(lock)!r}).unlink()"]


def test_a_driver_of_this_folder_is_found(tmp_path, digits, lock):
    program = tmp_path / "snakemake"
    program.write_text(f"#!{sys.executable}\nimport sys; print('up', flush=True); sys.stdin.read()\n")
    program.chmod(0o755)
    (tmp_path / "other").mkdir()

    def started(folder: Path, *words: str) -> subprocess.Popen:
        command = [sys.executable, str(program), *words]
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"up\n"
        return process

    driver = started(tmp_path, "all")
    others = [started(tmp_path / "other", "all"), started(tmp_path, "--mode", "remote")]
    try:
        assert driver_processes(tmp_path) == [driver.pid]
        assert f"process {driver.pid}" in experiment_status(digits, runner=squeue()).driver
        with pytest.raises(UserError, match=f"process {driver.pid}"):
            recover(tmp_path, unlocking(lock), "cancel", print, squeue())
    finally:
        for process in (driver, *others):
            process.communicate()
    assert lock.exists()
    assert driver_processes(tmp_path) == []
    assert "the folder is locked" in experiment_status(digits, runner=squeue()).driver


def test_recover_shows_and_leaves_everything(tmp_path, lock):
    answers, said = (
        squeue(squeue_line(7, "RUNNING", tmp_path), squeue_line(8, "PENDING", tmp_path, reason="Priority", node="")),
        [],
    )
    with pytest.raises(UserError, match=r"2 live jobs of this folder; nothing was changed.*--wait.*--cancel"):
        recover(tmp_path, unlocking(lock), "show", said.append, answers)
    assert said == [
        "job 7 of experiment digits  train_run_wildcards_classification_pvt_tiny_0  running on node1 for 1:02:03",
        "job 8 of experiment digits  train_run_wildcards_classification_pvt_tiny_0  waiting: Priority",
    ]
    assert lock.exists()
    assert [command[0] for command in answers.calls] == ["squeue"]


@pytest.mark.parametrize("mode", ["wait", "cancel"])
def test_recover_unlocks_only_without_live_jobs(tmp_path, lock, mode):
    both = f"{squeue_line(7, 'RUNNING', tmp_path)}\n{squeue_line(9, 'COMPLETING', tmp_path)}"
    looks = [both, squeue_line(9, "COMPLETING", tmp_path), squeue_line(9, "COMPLETING", tmp_path), ""]
    cancelled, said = [], []

    def slurm(arguments, timeout: float) -> str:
        assert lock.exists()
        if arguments[0] == "squeue":
            return looks.pop(0)
        cancelled.append(list(arguments))
        return ""

    recover(tmp_path, unlocking(lock), mode, said.append, slurm, every_s=0)
    assert looks == []
    assert not is_locked(tmp_path)
    assert cancelled == ([["scancel", "7", "9"]] if mode == "cancel" else [])
    assert said[-1].startswith("no live jobs; unlocked")


@pytest.fixture
def orphan(tmp_path):
    """A function that starts a program that runs as a job of a driver does, until it is terminated."""
    program = tmp_path / "bin/hafabench"
    program.parent.mkdir()
    program.write_text("import sys; print('up', flush=True); sys.stdin.read()\n")
    started: list[subprocess.Popen] = []

    def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(program), *words],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_recover_knows_the_processes_of_this_machine(tmp_path, lock, orphan):
    (tmp_path / "other").mkdir()
    job = orphan(tmp_path, "train", RUN, **{AS_JOB: "1"})
    # By hand, in another folder, and in a Slurm job, which the queue shows.
    orphan(tmp_path, "train", RUN)
    orphan(tmp_path / "other", "train", RUN, **{AS_JOB: "1"})
    orphan(tmp_path, "train", RUN, SLURM_JOB_ID="7", **{AS_JOB: "1"})
    queue = squeue(squeue_line(7, "RUNNING", tmp_path))
    said: list[str] = []
    with pytest.raises(UserError, match="2 live jobs of this folder; nothing was changed"):
        recover(tmp_path, unlocking(lock), "show", said.append, queue)
    assert said[1].startswith(f"process {job.pid}  train {RUN}  running on this machine for ")
    assert lock.exists() and job.poll() is None


def test_recover_ends_local_jobs_without_slurm(tmp_path, lock, orphan):
    job = orphan(tmp_path, "train", RUN, **{AS_JOB: "1"})
    said: list[str] = []
    recover(tmp_path, unlocking(lock), "cancel", said.append, RecordedCommands({}), every_s=0.01)
    assert job.wait() == -signal.SIGTERM
    assert said[1] == "cancelled 1 jobs" and said[-1].startswith("no live jobs; unlocked")


def test_recover_waits_for_trainings_on_other_machines(digits, tmp_path, lock, monkeypatch):
    run = expand(digits)[RUN]
    far = replace(this_process("train"), host="n017", system="elsewhere", pid=7)
    lease = take(run.folder, run.id, far)
    arguments = (tmp_path, unlocking(lock))
    with pytest.raises(UserError, match=f"{RUN}: process 7 on n017 cannot be ended from this machine"):
        recover(*arguments, "cancel", print, squeue(), experiment=digits)
    assert lock.exists()
    said: list[str] = []
    monkeypatch.setattr(recovery.time, "sleep", lambda _seconds: lease.release())
    recover(*arguments, "wait", said.append, squeue(), experiment=digits)
    assert said[0] == f"process 7  train {RUN}  running on n017"
    # A process that was killed with its machine leaves its lease, whose time does not change any more.
    take(run.folder, run.id, far)
    os.utime(run.folder / "lease-1.json", (1, 1))
    recover(*arguments, "show", said.append, squeue(), experiment=digits)


@pytest.mark.parametrize("state", ["NODE_FAIL", "", "CANCELLED", "RUNNING"])
def test_recover_knows_the_process_of_a_slurm_job_whose_node_lost_contact(digits, tmp_path, lock, state):
    run = expand(digits)[RUN]
    far = replace(this_process("train"), host="n017", system="elsewhere", pid=7, slurm_job="12")
    take(run.folder, run.id, far)

    def slurm(arguments, _timeout):
        if "--states=all" in arguments:
            return f"{state}\n"
        return squeue_line(12, state, tmp_path) if state == "RUNNING" else ""

    said: list[str] = []
    if state == "CANCELLED":
        # Slurm has ended its processes, which could not give the lease back.
        recover(tmp_path, unlocking(lock), "show", said.append, slurm, experiment=digits)
        return
    with pytest.raises(UserError, match="1 live jobs of this folder"):
        recover(tmp_path, unlocking(lock), "show", said.append, slurm, experiment=digits)
    lost = f"process 7  train {RUN}  running on n017, which Slurm job 12 started"
    assert (said == [lost]) is (state != "RUNNING")


def test_recover_keeps_what_is_proven_to_be_complete(digits, tmp_path):
    trained, torn, other, missing = list(expand(digits).values())[:4]
    for one, fingerprint in ((trained, trained.fingerprint), (torn, torn.fingerprint), (other, "0" * 12)):
        store_configuration(one)
        save_checkpoint(one.checkpoint, {"state_dict": {}, "meta": {"run": one.id, "fingerprint": fingerprint}})
    torn.checkpoint.write_bytes(torn.checkpoint.read_bytes()[:-20])
    marks = {one.id: mark(tmp_path, str(one.checkpoint)) for one in (trained, torn, other, missing)}
    (tmp_path / ".snakemake/incomplete/migration_underway").touch()
    said: list[str] = []
    recover(tmp_path, ["false"], "show", said.append, squeue(), experiment=digits)
    assert said == [f"finished and kept: {trained.checkpoint}", "no live jobs; the folder is not locked"]
    assert [name for name, path in marks.items() if not path.exists()] == [trained.id]
    assert trained.checkpoint.exists()


def test_a_driver_keeps_what_is_complete_without_importing_torch(digits, tmp_path):
    jobs = JobList(digits)
    trained, damaged, missing = list(jobs.runs.values())[:3]
    for one in (trained, damaged):
        store_configuration(one)
        save_checkpoint(one.checkpoint, {"state_dict": {"weight": torch.ones(100)}})
    content = bytearray(damaged.checkpoint.read_bytes())
    position = content.index(torch.ones(100).numpy().tobytes())
    content[position + 7] ^= 1
    damaged.checkpoint.write_bytes(content)
    marks = [mark(tmp_path, str(one.checkpoint)) for one in (trained, damaged, missing)]
    assert keep_finished(jobs, tmp_path) == [trained.checkpoint]
    assert [path.exists() for path in marks] == [False, True, True]
    damaged.checkpoint.write_text("no archive")
    assert keep_finished(jobs, tmp_path) == []


@pytest.mark.parametrize("trace", ["log", "mark"])
def test_recover_does_nothing_without_the_queue(tmp_path, lock, trace):
    if trace == "log":
        (tmp_path / "logs/slurm").mkdir(parents=True)
    else:
        mark(tmp_path, "results/x", slurm_job="12")
    with pytest.raises(CommandFailed, match=r"squeue: not found.* nothing was changed\. Repeat this where squeue"):
        recover(tmp_path, unlocking(lock), "cancel", print, RecordedCommands({}))
    assert lock.exists()


def test_a_lock_that_stays_is_an_error(tmp_path, lock):
    with pytest.raises(UserError, match="could not be unlocked: no Snakefile here"):
        recover(tmp_path, [sys.executable, "-c", "print('no Snakefile here')"], "wait", print, squeue())


def test_a_folder_that_is_free_already(tmp_path):
    said = []
    recover(tmp_path, ["false"], "show", said.append, squeue())
    assert said == ["no live jobs; the folder is not locked"]


def test_commands_fail_with_a_sentence():
    with pytest.raises(CommandFailed, match=r"^no-such-command: not found"):
        run(["no-such-command"])
    with pytest.raises(CommandFailed, match=r"no answer within 0\.2 s") as caught:
        run(["sleep", "5"], 0.2)
    assert caught.value.message == "no answer within 0.2 s"
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])
    assert caught.value.message == "one two"
    assert run(["echo", "hello"]) == "hello\n"
