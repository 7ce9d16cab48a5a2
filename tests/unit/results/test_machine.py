"""The state of the machine: shares of CPU time on Linux and macOS, and what a system does not report."""

from __future__ import annotations

from collections import namedtuple

import psutil
import pytest

from hafabench.results import machine
from hafabench.results.machine import MachineWatch, cpu_name

LINUX = namedtuple("LINUX", "user nice system idle iowait irq softirq steal guest guest_nice")
MACOS = namedtuple("MACOS", "user nice system idle")


@pytest.fixture
def clock(monkeypatch):
    """CPU times of the machine and of this process that a test sets."""
    times = {"machine": None, "own": (0.0,) * 5}
    monkeypatch.setattr(psutil, "cpu_times", lambda: times["machine"])
    monkeypatch.setattr(machine.os, "times", lambda: times["own"])
    return times


def test_shares_of_cpu_time_separate_other_processes_from_this_one(clock):
    clock["machine"] = LINUX(300, 50, 100, 400, 100, 10, 10, 30, 20, 20)
    watch = MachineWatch()
    clock["machine"] = LINUX(400, 55, 120, 450, 110, 12, 13, 40, 60, 20)
    clock["own"] = (50.0, 20.0, 15.0, 5.0, 0.0)
    state = watch.state()
    assert (state.busy_percent, state.others_percent, state.steal_percent) == (70.0, 25.0, 5.0)


def test_a_system_that_does_not_count_steal_leaves_it_unknown(clock):
    clock["machine"] = MACOS(300, 0, 100, 400)
    watch = MachineWatch()
    clock["machine"] = MACOS(380, 0, 120, 500)
    clock["own"] = (30.0, 10.0, 0.0, 0.0, 0.0)
    state = watch.state()
    assert (state.busy_percent, state.others_percent, state.steal_percent) == (50.0, 30.0, None)


def test_clocks_and_affinity_that_psutil_does_not_know_are_unknown(monkeypatch):
    def no_clocks(*, percpu):
        raise NotImplementedError

    monkeypatch.setattr(psutil, "cpu_freq", no_clocks)
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    state = MachineWatch().state()
    assert (state.clock_mhz, state.affinity) == (None, None)
    assert state.cores >= 1 and state.load is not None


def test_the_cpu_has_a_name_without_proc(monkeypatch):
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine, "_output", lambda command: "Apple M3")
    assert cpu_name() == "Apple M3"
    monkeypatch.setattr(machine, "_output", lambda command: "")
    assert cpu_name() == machine.platform.machine()
