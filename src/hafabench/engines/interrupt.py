"""Stopping a training so that the same command resumes it: on a signal, or before a time limit.

Clusters end jobs by SIGTERM, users by Ctrl-C, and a lost connection ends them by SIGHUP. After every step a training
checks whether it should stop. It then saves its state and exits with code 75 (``EX_TEMPFAIL``: try again later). A
signal does not always reach a process that was started by another one; the environment variable `STOP_AFTER`
therefore sets a time limit in seconds. In a batch job of Slurm this time counts from the start of the job.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import psutil

from hafabench.errors import Problem, UserError

STOP_AFTER = "HAFABENCH_STOP_AFTER_SECONDS"
EXIT_CODE = os.EX_TEMPFAIL
GRACE = 30
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Context in which signals request that a training stops, instead of ending the process.

    A second Ctrl-C ends the process at once.

    Args:
        clock: Returns the time in seconds, from any beginning.
        spent: How much of the time limit was used before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, spent: float = 0.0):
        self._clock = clock
        self._deadline = clock() + _seconds_allowed() - spent
        self._signal: str | None = None
        self._previous: dict[int, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why the training should stop, as part of a sentence; None while it should continue."""
        if self._signal is None and self._clock() >= self._deadline:
            return f"{STOP_AFTER}={os.environ[STOP_AFTER]}"
        return self._signal

    def __enter__(self) -> StopRequest:
        # Python allows signal handlers in the main thread only; the time limit works in every thread.
        if threading.current_thread() is threading.main_thread():
            # nohup asks a command to continue after the connection is lost.
            numbers = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """Make a data loading worker ignore signals, so that the training decides when to stop.

    A signal to the whole process group would otherwise end the workers first. The training would fail before it could
    finish its step and save its state. After SIGTERM and SIGHUP the workers therefore continue for `GRACE` seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    # By default SIGALRM ends the process.
    signal.alarm(GRACE)


def seconds_in_job() -> float:
    """Return for how many seconds the batch job of Slurm has run that this process is part of; 0 outside of one.

    Slurm 22.05 tells a job its time limit but not its start. The first node of a job has a process that Slurm names
    after the job's batch script, and that begins with the job. On other nodes the result is 0.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return 0.0
    title = f"slurmstepd: [{job}.batch]"
    starts = [
        process.info["create_time"]
        for process in psutil.process_iter(["cmdline", "create_time"])
        if " ".join(process.info["cmdline"] or ()).startswith(title)
    ]
    return max(0.0, time.time() - min(starts)) if starts else 0.0


def _seconds_allowed() -> float:
    text = os.environ.get(STOP_AFTER)
    if text is None:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise UserError(Problem("environment", STOP_AFTER, f"expected a positive number of seconds, found {text!r}"))
    return seconds
