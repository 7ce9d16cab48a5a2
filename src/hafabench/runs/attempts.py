"""Attempts of jobs, as their logs describe them.

If the workflow calls a command, it writes a line when it begins and another one when it has finished. An attempt
without the second line has failed or was killed. The first line contains the fingerprint under which it ran, so that
the log of an earlier configuration is not taken for one of the present configuration.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from hafabench.runs.ends import End, StoredEnd, end_of_log
from hafabench.runs.job_log import BEGINS
from hafabench.runs.jobs import Job

# The workflow sets this environment variable for the commands that it calls.
AS_JOB = "HAFABENCH_AS_JOB"


def is_job() -> bool:
    """Return whether the workflow called the command that this process runs."""
    return bool(os.environ.get(AS_JOB))


_HEAD_BYTES, _TAIL_BYTES = 4096, 16384
_BEGIN = re.compile(
    r"hafabench: begins .*, fingerprint (?P<fingerprint>\w+), process (?P<pid>\d+) on (?P<host>\S+?)"
    r"(, Slurm job (?P<slurm>\d+))?$"
)
_END = re.compile(r"hafabench: finished ")


@contextmanager
def logged_attempt(identifier: str, fingerprint: str | None) -> Iterator[None]:
    """Write the first and the last line of an attempt to standard error.

    Args:
        identifier: The id of the job.
        fingerprint: Its fingerprint; None if it has none.
    """
    slurm = os.environ.get("SLURM_JOB_ID")
    where = f"process {os.getpid()} on {platform.node()}" + (f", Slurm job {slurm}" if slurm else "")
    begins = f"{BEGINS.decode()}{identifier}, fingerprint {fingerprint or 'none'}, {where}"
    print(begins, file=sys.stderr, flush=True)
    yield
    print(f"hafabench: finished {identifier}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Attempt:
    """The last attempt of a job, as its log describes it.

    Attributes:
        log: The file to read about it; None if there is none.
        time: When it last gave a sign, in seconds since 1970, from the time of a file.
        ended: ``finished``; ``error`` (`end` tells the reason); ``stopped`` (a training saved its state and can be
            resumed); or ``unknown``: it runs, it was killed, or its version did not write how it ended.
        line: The reason, or else the last line; may be empty.
        fingerprint: The fingerprint of the job at that time, ``none`` if it has none; None if it is unknown.
        host, pid, slurm_id: Where it ran; None if it is unknown.
        end: How it ended; None if no log explains it.
    """

    log: Path | None
    time: float
    ended: Literal["finished", "error", "stopped", "unknown"]
    line: str
    fingerprint: str | None = None
    host: str | None = None
    pid: int | None = None
    slurm_id: str | None = None
    end: End | None = None

    def is_of(self, job: Job) -> bool:
        """Whether the attempt may have been made under the present fingerprint of the job."""
        return self.fingerprint in (None, job.fingerprint or "none")

    def may_run(self, live: Collection[str] | None) -> bool:
        """Return whether it may still run. If its process ran on this machine, it has to exist.

        Args:
            live: The ids of the Slurm jobs that have not ended; None if they are unknown.
        """
        if self.ended != "unknown":
            return False
        if self.slurm_id is not None and live is not None:
            return self.slurm_id in live
        is_here = self.pid is not None and self.host == platform.node()
        return not is_here or psutil.pid_exists(self.pid or 0)

    def with_stored(self, stored: StoredEnd, slurm_log: Path | None) -> Attempt:
        """Return this attempt, or the one whose end the executor has stored if that was a later one.

        Args:
            stored: The last stored end of the job.
            slurm_log: The output of the last Slurm job that was submitted for the job.
        """
        if stored.slurm_id is None or self.slurm_id is None:
            return self if self.time > stored.time else stored_attempt(stored, slurm_log)
        if int(stored.slurm_id) < int(self.slurm_id) or self.ended == "finished":
            return self
        if stored.slurm_id != self.slurm_id:
            return stored_attempt(stored, slurm_log)
        is_explained = self.end is not None and stored.end.kind in ("unknown", "lost")
        return self if is_explained else _ended(self, stored.end)


def stored_attempt(stored: StoredEnd, slurm_log: Path | None) -> Attempt:
    """Return an attempt about which only the executor knows, because it has no log or none that tells about it.

    Args:
        stored: Its stored end.
        slurm_log: The output of the last Slurm job that was submitted for the job.
    """
    log = slurm_log if slurm_log is not None and slurm_log.stem == stored.slurm_id else None
    found = Attempt(log, stored.time, "error", "", stored.fingerprint, slurm_id=stored.slurm_id)
    return _ended(found, stored.end)


def last_attempt(log: Path, slurm_log: Path | None) -> Attempt | None:
    """Read the last attempt of a job; None if there is no log.

    Args:
        log: The job's own log.
        slurm_log: The output of the last Slurm job that was submitted for the job.
    """
    own = _read(log) if log.is_file() else None
    if slurm_log is None or not slurm_log.is_file():
        return own
    slurm = replace(_read(slurm_log), slurm_id=slurm_log.stem)
    if own is None:
        return slurm
    if own.slurm_id is not None and own.slurm_id != slurm.slurm_id:
        # The last Slurm job ended, or waits, before its command began.
        return slurm if int(slurm_log.stem) > int(own.slurm_id) else own
    if own.slurm_id is None and slurm.time < own.time:
        return own
    if own.slurm_id is None and own.fingerprint is not None:
        # The log is of an attempt outside Slurm, after which the Slurm job was submitted.
        return slurm
    if own.ended == "finished" or slurm.end is None:
        return own
    # The log of Slurm repeats the output of the command. Only Slurm knows why it killed the command.
    end = end_of_log([*lines_of_last_attempt(log), *last_lines(slurm_log)])
    if end is None or end == own.end:
        return own
    return _ended(replace(own, log=slurm_log), end)


def _read(log: Path) -> Attempt:
    head, tail = _ends(log)
    begins = [match for line in (*head, *tail) if (match := _BEGIN.match(line))]
    known = begins[-1].groupdict() if begins else {}
    lines = _last_attempt_of(tail)
    found = Attempt(
        log,
        _modified(log),
        "unknown",
        lines[-1] if lines else "",
        fingerprint=known.get("fingerprint"),
        host=known.get("host"),
        pid=int(known["pid"]) if known else None,
        slurm_id=known.get("slurm"),
    )
    if any(map(_END.match, lines)):
        return replace(found, ended="finished")
    end = end_of_log(lines)
    return found if end is None else _ended(found, end)


def _ended(attempt: Attempt, end: End) -> Attempt:
    ended: Literal["stopped", "error"] = "stopped" if end.kind == "stopped" else "error"
    return replace(attempt, ended=ended, line=end.sentence, end=end)


def last_lines(log: Path) -> list[str]:
    """Return the last lines of a file without empty ones; none if it cannot be read."""
    return _ends(log)[1]


def lines_of_last_attempt(log: Path, slurm_id: str | None = None) -> list[str]:
    """Return what the last attempt wrote into a job's own log, as far as its last lines tell it.

    Args:
        log: The job's own log.
        slurm_id: Slurm's id of the attempt. If the log is of an attempt with another id, the result is empty.
    """
    head, tail = _ends(log)
    begins = [match for line in (*head, *tail) if (match := _BEGIN.match(line))]
    written = begins[-1]["slurm"] if begins else None
    return [] if None not in (slurm_id, written) and slurm_id != written else _last_attempt_of(tail)


def _last_attempt_of(lines: list[str]) -> list[str]:
    begin = max((number for number, line in enumerate(lines) if _BEGIN.match(line)), default=-1)
    return lines[begin + 1 :]


def _ends(path: Path) -> tuple[list[str], list[str]]:
    """Return the first and the last lines of a file, stripped and without empty ones."""
    try:
        with path.open("rb") as handle:
            first = handle.read(_HEAD_BYTES)
            handle.seek(0, os.SEEK_END)
            handle.seek(max(handle.tell() - _TAIL_BYTES, 0))
            last = handle.read()
    except OSError:
        return [], []
    lines = [text.decode(errors="replace").splitlines() for text in (first, last)]
    head, tail = ([line.strip() for line in part if line.strip()] for part in lines)
    return head, tail


def _modified(path: Path) -> float:
    """The time at which a file was modified; 0 for a missing file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
