"""Polling with a time limit and a descriptive error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class NeverHappened(AssertionError):
    """A condition was not met in time."""


def wait_until(
    probe: Callable[[], Value],
    what: str | Callable[[], str],
    *,
    timeout: float,
    every: float = 0.2,
    give_up: Callable[[], str | None] = lambda: None,
) -> Value:
    """Call ``probe`` until it returns a true value, and return this value.

    Args:
        probe: Called at least once, and once more after the deadline.
        what: Description of the condition for the error message, or a function that returns it.
        timeout: Time limit in seconds.
        every: Seconds between calls.
        give_up: Returns a reason to stop waiting, or None.

    Raises:
        NeverHappened: After ``timeout``, or when ``give_up`` returns a reason.
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
