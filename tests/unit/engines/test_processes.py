"""Signals that stop a training, and its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from hafabench.cli.launch import start_processes
from hafabench.cli.terminal import clean_up_on_signals
from hafabench.engines.distributed import World, joined_world
from hafabench.engines.interrupt import (
    EXIT_CODE,
    GRACE,
    STOP_AFTER,
    StopRequest,
    leave_signals_to_parent,
    seconds_in_job,
)
from hafabench.errors import UserError
from hafabench.files import atomic_path
from hafabench.runs.snakemake import hang_up_like_sigterm


@pytest.fixture
def handlers():
    """Restore the handlers of signals after a test."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_is_a_request_and_handlers_come_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.reason is None
        os.kill(os.getpid(), number)
        assert stop.reason == name
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("handlers")
def test_a_command_that_nohup_started_continues_after_the_connection_is_lost(monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    leave_signals_to_parent()
    clean_up_on_signals()
    hang_up_like_sigterm()
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.reason is None
    started = []
    monkeypatch.setattr(os, "execv", lambda *_: started.append(os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"]))
    monkeypatch.delenv("TORCHELASTIC_SIGNALS_TO_HANDLE", raising=False)
    start_processes(processes=2, nodes=1)
    assert started == ["SIGTERM,SIGINT,SIGQUIT"]
    monkeypatch.delenv("TORCHELASTIC_SIGNALS_TO_HANDLE")


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_commands_remove_their_temporary_files(tmp_path, name):
    clean_up_on_signals()
    with pytest.raises(SystemExit) as ended, atomic_path(tmp_path / "a") as temporary:
        temporary.touch()
        os.kill(os.getpid(), getattr(signal, name))
    assert ended.value.code == 128 + getattr(signal, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("handlers")
def test_a_driver_without_connection_ends_as_after_sigterm():
    received = []
    signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    hang_up_like_sigterm()
    os.kill(os.getpid(), signal.SIGHUP)
    assert received == [signal.SIGTERM]


def test_a_second_ctrl_c_ends_at_once():
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_deadline_counts_from_the_start(monkeypatch):
    monkeypatch.setenv(STOP_AFTER, "90")
    now = 1000.0
    with StopRequest(clock=lambda: now) as stop:
        now += 89
        assert stop.reason is None
        now += 1
        assert stop.reason == f"{STOP_AFTER}=90"


def test_the_time_in_a_slurm_job_counts_from_the_process_of_its_batch_script(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert seconds_in_job() == 0
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert seconds_in_job() == 0, "this node has no batch script of the job"
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    for title in ("slurmstepd: [47110.batch]", "slurmstepd: [4711.batch]"):
        with subprocess.Popen([title, *command[1:]], executable=sys.executable) as step:
            try:
                began = psutil.Process(step.pid).create_time()
                time.sleep(0.3)
                expected = time.time() - began if title.startswith("slurmstepd: [4711.") else 0
                assert seconds_in_job() == pytest.approx(expected, abs=0.2)
            finally:
                step.kill()


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "nan"])
def test_a_deadline_that_is_no_duration_is_refused(monkeypatch, text):
    monkeypatch.setenv(STOP_AFTER, text)
    with pytest.raises(UserError, match=f"{STOP_AFTER}: expected a positive number of seconds"):
        StopRequest()


def test_the_exit_code_is_that_of_a_temporary_failure():
    assert EXIT_CODE == 75


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGHUP])
def test_workers_ignore_signals_for_their_parent_for_a_limited_time(name):
    try:
        leave_signals_to_parent()
        for number in (signal.SIGINT, name, name):
            os.kill(os.getpid(), number)
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    finally:
        remaining = signal.alarm(0)
    assert 0 < remaining <= GRACE


def world(size: int) -> World:
    return World(rank=0, local_rank=0, size=size, device=torch.device("cpu"))


def test_a_batch_is_shared_equally_or_refused():
    assert world(4).share_of(32) == 8
    with pytest.raises(UserError, match="batch_size: 32 images cannot be shared equally by 3 processes"):
        world(3).share_of(32)


def test_alone_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "7")
    with joined_world() as alone:
        assert (alone.size, alone.is_first, alone.mean(1.5, 2.0)) == (1, True, [1.5, 2.0])
        model = torch.nn.Linear(1, 1)
        assert alone.wrap(model) is model


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="environment: RANK: expected the number that torchrun sets"), joined_world():
        pass
