"""Stopping a training so that the same command resumes it: on a signal, or before a time limit.

Clusters end jobs by SIGTERM, people by Ctrl-C. A training asks at every step boundary whether it should stop, saves
its state, and leaves with exit code 75 (``EX_TEMPFAIL``: try again later). `STOP_AFTER` lets whoever knows the time
limit stop it a margin earlier, because a signal does not always reach a process that others started.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from types import FrameType, TracebackType

from hafabench.errors import Problem, UserError

STOP_AFTER = "HAFABENCH_STOP_AFTER_SECONDS"
EXIT_CODE = os.EX_TEMPFAIL
GRACE = 30
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Context in which signals ask a training to stop, instead of ending the process.

    A second Ctrl-C ends the process at once.

    Attributes:
        reason: why the training should stop, as part of a sentence; None while it should go on.
    """

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._deadline = clock() + _seconds_allowed()
        self._signal: str | None = None
        self._previous: dict[int, object] = {}

    @property
    def reason(self) -> str | None:
        if self._signal is None and self._clock() >= self._deadline:
            return f"{STOP_AFTER}={os.environ[STOP_AFTER]}"
        return self._signal

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread handle signals; elsewhere the deadline still counts.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._requested) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _requested(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """For data loading workers: let the training decide when to stop.

    A signal to the whole process group would otherwise end them first, and the training by their death, before it
    can finish its step and save its state. After SIGTERM they therefore go on for `GRACE` seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The alarm's own default ends the process.
    signal.alarm(GRACE)


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
