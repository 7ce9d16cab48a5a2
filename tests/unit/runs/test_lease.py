"""The lease of a run: one process at a time writes into its folder, also on file systems that machines share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hafabench.errors import UserError
from hafabench.runs import lease as leases
from hafabench.runs.lease import (
    EXPIRES,
    EXPIRES_S,
    WAITS,
    Holder,
    Lease,
    LeaseLost,
    hold,
    holder_of,
    take,
    this_process,
)
from hafabench.runs.run import Run
from tools.tiny_runs.classification import tiny_run

RUN = "classification/pvt_tiny/seed0"


@pytest.fixture
def run(tmp_path) -> Run:
    return tiny_run(tmp_path / "seed0", images=tmp_path)


class Clock:
    """A clock that only goes on while somebody sleeps; ``each`` is called before every sleep."""

    def __init__(self, each: Callable[[], object] = lambda: None):
        self.now, self._each = 0.0, each

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._each()
        self.now += seconds
        assert self.now < 10 * EXPIRES_S


def elsewhere(**changes) -> Holder:
    """A process of another machine."""
    return replace(
        this_process("train"), **{"host": "n017", "system": "elsewhere", "pid": 7, "began": 5.0, **changes}
    )


def gone(**changes) -> Holder:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return replace(this_process("train"), pid=process.pid, **changes)


def take_quickly(folder: Path, me: Holder | None = None, **changes) -> Lease:
    """Take a lease without waiting for anything."""

    def refuse_to_sleep(_seconds: float) -> None:
        raise AssertionError("it waits")

    return take(folder, RUN, me or this_process("train"), sleep=refuse_to_sleep, **changes)


def renew(lease: Lease) -> None:
    """Set another time, which need not be later than the last one."""
    (file,) = lease.folder.glob("lease-*.json")
    os.utime(file, (0, file.stat().st_mtime - 1))


def test_a_free_run_is_taken_and_given_back(run):
    folder = run.folder
    run.work.mkdir(parents=True)
    (run.work / "state.json").write_text('{"attempt": 2}')
    with hold(run, "train") as lease:
        (file,) = folder.glob("lease*")
        written = json.loads(file.read_text())
        assert (written["pid"], written["attempt"], written["verb"]) == (os.getpid(), 3, "train")
        holder, _ = holder_of(folder)
        assert holder == lease.holder and holder.is_here and holder.runs
        with hold(run, "evaluate") as same:
            assert same is lease
        lease.check()
    assert list(folder.iterdir()) == [run.work]
    assert holder_of(folder) is None
    with pytest.raises(LeaseLost, match=r"lease-1\.json was removed"):
        lease.check()


def test_a_process_of_this_machine_that_runs_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "8112")
    first = take_quickly(tmp_path)
    told = rf"{RUN} is in use: a training runs since .*, process {os.getpid()} on \S+, Slurm job 8112; wait"
    with pytest.raises(UserError, match=told):
        take_quickly(tmp_path, this_process("evaluate"))
    first.check()


@pytest.mark.parametrize("change", [{}, {"began": 1.0}], ids=["ended", "another process has its number"])
def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path, change):
    dead = replace(this_process("train"), **change) if change else gone()
    lost = take_quickly(tmp_path, dead)
    mine = take_quickly(tmp_path)
    mine.check()
    assert [path.name for path in tmp_path.iterdir()] == ["lease-2.json"]
    with pytest.raises(LeaseLost, match=rf"{mine.holder} has taken over this run"):
        lost.check()
    lost.release()
    lost.renew()
    mine.check()


def test_a_process_of_another_machine_that_renews_is_named(tmp_path):
    other = take_quickly(tmp_path, elsewhere())
    clock = Clock(lambda: renew(other))
    with pytest.raises(UserError, match="process 7 on n017"):
        take(tmp_path, RUN, this_process("train"), clock=clock, sleep=clock.sleep)
    assert clock.now < EXPIRES_S
    other.check()


@pytest.mark.parametrize("stamp", [0, 2**32], ids=["its clock is late", "its clock is early"])
def test_a_lease_without_renewals_expires_whatever_the_clocks_say(tmp_path, capsys, stamp):
    other = take_quickly(tmp_path, elsewhere())
    os.utime(tmp_path / "lease-1.json", (stamp, stamp))
    clock = Clock()
    mine = take(tmp_path, RUN, this_process("train"), clock=clock, sleep=clock.sleep)
    assert EXPIRES_S <= clock.now < EXPIRES_S + 10
    assert "waits for the lease of process 7 on n017, for up to 180 s" in capsys.readouterr().err
    mine.check()
    with pytest.raises(LeaseLost):
        other.check()


def test_a_job_waits_for_a_process_that_runs_and_then_says_who_has_the_lease(tmp_path, capsys):
    holder = take_quickly(tmp_path)
    clock = Clock()
    with pytest.raises(UserError, match=f"{RUN} is in use: a training runs since"):
        take(tmp_path, RUN, this_process("train"), patience=300, clock=clock, sleep=clock.sleep)
    assert 300 <= clock.now < 310
    said = capsys.readouterr().err
    assert f"{RUN}: {WAITS} {holder.holder}, until it has ended or has not renewed the lease for 180 s" in said
    assert said.count(WAITS) == 1 and "for at most 5 min while it runs" in said
    clock = Clock(lambda: holder.release() if clock.now > 60 else None)
    lease = take(tmp_path, RUN, this_process("train"), patience=300, clock=clock, sleep=clock.sleep)
    assert lease.waited == clock.now and 60 < clock.now < 80
    assert f"{RUN}: has the lease after {clock.now:.0f} s" in capsys.readouterr().err


@pytest.mark.parametrize("patience", [0, 300], ids=["by hand", "in a job"])
@pytest.mark.parametrize("why", ["queued again", "ended"])
def test_the_later_attempt_of_a_slurm_job_replaces_a_process_on_a_node_without_contact(tmp_path, why, patience):
    other = take_quickly(tmp_path, elsewhere(slurm_job="12", restarts=1))
    me = replace(this_process("train"), slurm_job="12" if why == "queued again" else "13", restarts=2)
    clock = Clock(lambda: renew(other))
    lost: Callable[[str], bool] = lambda job: why == "ended" and job == "12"  # noqa: E731
    take(tmp_path, RUN, me, patience=patience, is_abandoned=lost, clock=clock, sleep=clock.sleep).check()
    assert EXPIRES_S <= clock.now < EXPIRES_S + 10
    with pytest.raises(LeaseLost):
        other.check()


def test_another_process_of_the_same_attempt_of_a_slurm_job_is_not_replaced(tmp_path):
    other = take_quickly(tmp_path, elsewhere(slurm_job="12", restarts=1))
    clock = Clock(lambda: renew(other))
    with pytest.raises(UserError, match="is in use"):
        take(tmp_path, RUN, replace(other.holder, pid=8, token="2"), clock=clock, sleep=clock.sleep)


def test_a_lease_says_itself_when_it_expires(tmp_path, monkeypatch):
    monkeypatch.setenv(EXPIRES, "600")
    take_quickly(tmp_path, elsewhere(expires_s=this_process("train").expires_s))
    monkeypatch.delenv(EXPIRES)
    clock = Clock()
    take(tmp_path, RUN, this_process("train"), clock=clock, sleep=clock.sleep)
    assert 600 <= clock.now < 610


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "1e9", "3 min"])
def test_an_expiry_that_is_no_number_of_seconds_is_refused(monkeypatch, value):
    monkeypatch.setenv(EXPIRES, value)
    with pytest.raises(UserError, match=f"{EXPIRES}: expected a number of seconds from 1 to 86400, found"):
        this_process("train")


def test_nodes_of_slurm_are_different_machines(monkeypatch):
    here = this_process("train")
    monkeypatch.setenv("SLURMD_NODENAME", "node1")
    first = this_process("train")
    assert first.is_here and not here.is_here
    monkeypatch.setenv("SLURMD_NODENAME", "node2")
    assert not first.is_here and str(first).endswith("on node1")


def test_only_a_slurm_job_that_is_known_to_have_ended_is_replaced_at_once(tmp_path):
    take_quickly(tmp_path, elsewhere(slurm_job="12"))
    asked: list[str] = []
    take_quickly(tmp_path, elsewhere(slurm_job="13"), has_ended=lambda job: not asked.append(job))
    assert asked == ["12"]
    with pytest.raises(AssertionError, match="it waits"):
        take_quickly(tmp_path, has_ended=lambda job: False)


def test_two_that_take_over_at_once_exclude_each_other(tmp_path):
    take_quickly(tmp_path, gone())
    taken: list[Lease] = []
    refused: list[UserError] = []
    together = threading.Barrier(8)

    def run() -> None:
        together.wait()
        try:
            taken.append(take_quickly(tmp_path))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 7)
    taken[0].check()
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_a_late_process_does_not_take_what_was_given_back_and_taken_meanwhile(tmp_path, monkeypatch):
    take_quickly(tmp_path, gone())
    third: list[Lease] = []
    write = leases.write_text

    def write_late(path: Path, text: str) -> None:
        write(path, text)
        if not third:
            monkeypatch.setattr(leases, "write_text", write)
            (tmp_path / "lease-1.json").unlink()
            third.append(take_quickly(tmp_path))
            # Another process of this machine removed the file that would have been linked.
            write(path, text)

    monkeypatch.setattr(leases, "write_text", write_late)
    with pytest.raises(UserError, match="is in use"):
        take_quickly(tmp_path)
    third[0].check()


@pytest.mark.parametrize("code", [1, 95], ids=["EPERM", "ENOTSUP"])
def test_a_file_system_without_hard_links(tmp_path, monkeypatch, code):
    def link(*_paths) -> None:
        raise OSError(code, "no links")

    monkeypatch.setattr(os, "link", link)
    first = take_quickly(tmp_path)
    with pytest.raises(UserError, match="is in use"):
        take_quickly(tmp_path)
    first.check()


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b"\xff\xfe", b'{"pid": 1}', b'{"verb": "other"}', b"[" * 10**5],
    ids=["empty", "null", "list", "binary", "incomplete", "verb", "nested"],
)
def test_a_lease_that_cannot_be_read_expires_too(tmp_path, content):
    (tmp_path / "lease-4.json").write_bytes(content)
    assert holder_of(tmp_path) is None
    clock = Clock()
    take(tmp_path, RUN, this_process("train"), clock=clock, sleep=clock.sleep).check()
    assert clock.now >= EXPIRES_S
    assert [path.name for path in tmp_path.iterdir()] == ["lease-5.json"]


@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**30, True, "7", 1.5], ids=str)
def test_no_process_can_have_such_a_number(tmp_path, pid):
    (tmp_path / "lease-1.json").write_text(json.dumps({**asdict(this_process("train")), "pid": pid}))
    assert holder_of(tmp_path) is None


def test_a_process_that_cannot_be_seen_is_not_taken_for_dead(monkeypatch):
    hidden = replace(this_process("train"), pid=1)
    monkeypatch.setattr(leases, "Path", lambda _name: Path("/nowhere"))
    monkeypatch.setattr(leases.psutil, "Process", lambda _pid: (_ for _ in ()).throw(leases.psutil.AccessDenied(1)))
    assert hidden.runs


@pytest.mark.parametrize("content", ["", "[]", '{"attempt": "x"}', '{"attempt": -1}'])
def test_a_damaged_summary_of_the_state_does_not_matter(run, content):
    run.work.mkdir(parents=True)
    (run.work / "state.json").write_text(content)
    with hold(run, "train") as lease:
        assert lease.holder.attempt == 1


def test_only_the_first_process_of_a_training_holds_the_lease(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with hold(run, "train") as lease:
        assert lease is None
    assert not run.folder.exists()


def test_the_lease_is_renewed_while_it_is_held(run, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWALS", 10**5)
    with hold(run, "train"):
        (file,) = run.folder.iterdir()
        renewed = threading.Event()
        os.utime(file, (1, 1))
        for _ in range(1000):
            if file.stat().st_mtime > 1:
                renewed.set()
                break
            threading.Event().wait(0.001)
        assert renewed.is_set()


def test_a_lease_is_given_back_after_an_error_and_not_by_others(run):
    with pytest.raises(ValueError, match="broken"), hold(run, "train"):
        raise ValueError("broken")
    tmp_path = run.folder
    assert list(tmp_path.iterdir()) == []
    first = take_quickly(tmp_path)
    Lease(tmp_path, RUN, 1, elsewhere()).release()
    first.check()


def test_a_folder_that_cannot_be_written_is_told(run):
    run.folder.write_text("a file")
    with pytest.raises(UserError, match=r"seed0.*not written"), hold(run, "train"):
        pass
