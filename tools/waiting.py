"""Bounded waits: poll until something holds, or fail saying what did not come about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class NeverHappened(AssertionError):
    """What was waited for did not come about in time."""


def wait_until(
    probe: Callable[[], Value],
    what: str | Callable[[], str],
    *,
    timeout: float,
    every: float = 0.2,
    give_up: Callable[[], str | None] = lambda: None,
) -> Value:
    """The first true value of ``probe``.

    Args:
        probe: called at least once, and again after the deadline, so that a slow machine gets its chance.
        what: what is waited for, for the message; a function of it may describe the state of things.
        timeout, every: seconds.
        give_up: says why waiting on makes no sense, or None while it does.

    Raises:
        NeverHappened: after ``timeout``, or as soon as ``give_up`` gives a reason.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline
        value = probe()
        if value:
            return value
        reason = f"not within {timeout:g} s" if late else give_up()
        if reason:
            raise NeverHappened(f"{what() if callable(what) else what}: {reason}")
        time.sleep(every)
