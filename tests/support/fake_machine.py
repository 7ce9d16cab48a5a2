"""A simulated clock that advances only with the simulated work, for tests of timing code."""

from __future__ import annotations

import random
from collections.abc import Callable


class FakeMachine:
    """A clock and a queue like a GPU's: calls enqueue work, and `synchronize` performs it."""

    def __init__(self, speed: Callable[[int], float] = lambda call: 1.0):
        self.now = 0.0
        self.pending = 0.0
        self.calls: list[str] = []
        self._speed = speed

    def clock(self) -> float:
        return self.now

    def subject(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.pending += seconds * self._speed(len(self.calls))
            self.calls.append(name)

        return call

    def subjects(self, work: dict[str, float]) -> dict[str, Callable[[], None]]:
        return {name: self.subject(name, seconds) for name, seconds in work.items()}

    def synchronize(self) -> None:
        self.now += self.pending
        self.pending = 0.0


class NoisyNeighbours:
    """Slowdown of each call by other processes: 4 % jitter, a drift of one half, and bursts of 1.2 to 3 times."""

    def __init__(self, seed: int, bursts: bool = True, drift: float = 0.5):
        self._draw, self._bursts, self._drift = random.Random(seed), bursts, drift
        self._busy = False

    def __call__(self, call: int) -> float:
        draw = self._draw
        # A burst lasts three calls on average and starts at one call in twenty.
        self._busy = draw.random() < (0.7 if self._busy else 0.05) if self._bursts else False
        burst = draw.uniform(1.2, 3) if self._busy else 1.0
        return draw.gauss(1, 0.04) * burst * (1 + self._drift * min(call / 500, 1))
