"""Recovery of a folder after its driver has ended, and running commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hafabench.cluster.commands import CommandFailed, run
from hafabench.cluster.recover import recover
from hafabench.cluster.status import experiment_status
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.runs.snakemake import driver_processes, is_locked
from tests.support.experiments import fixed_length
from tests.support.slurm_commands import RecordedCommands, squeue, squeue_line

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
        "job 7  train_run_wildcards_classification_pvt_tiny_0  running on node1 for 1:02:03",
        "job 8  train_run_wildcards_classification_pvt_tiny_0  waiting: Priority",
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


def test_recover_does_nothing_without_the_queue(tmp_path, lock):
    with pytest.raises(CommandFailed, match="squeue: not found"):
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
