"""Timing of several callables side by side, until their ratios to a baseline are known.

The machine's speed drifts (clock, neighbours, heat). Rounds in which everything runs once, in an order drawn afresh
and then mirrored, let the drift fall on all alike, and the ratio to the baseline is taken round by round. What is
timed is renewed every few rounds, so that where its data happen to lie in memory is part of the spread and not of the
result. No torch here: docs/measurement.md has the protocol, `hafabench.measure.latency` puts models in.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hafabench.stats.intervals import CONFIDENCE, Interval, median_interval

# The order within rounds follows from this seed.
SEED = 0
ROUNDS_PER_COPY = 8
# Rounds before which an interval is not trusted to end the measurement.
FEWEST_ROUNDS = 64
# Warm-up ends when the medians of two successive windows agree to 2 %, or as well as their spread lets them; it is
# given up after ten times what was asked for.
_WINDOW = 5
_STEADY = 0.02
_MOST_WARMUP = 10

Subjects = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Protocol:
    """How much is measured.

    Attributes:
        warmup: fewest rounds discarded before the first kept one; 0 for none at all.
        repeats: most rounds kept.
        interval: wanted half width of every ratio's interval, relative; the measurement ends when it is reached. None
            keeps ``repeats`` rounds in any case.
        confidence: of the intervals.
    """

    warmup: int
    repeats: int
    interval: float | None = None
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Comparison:
    """Times of interleaved rounds.

    Attributes:
        seconds: per subject; equal positions come from the same round.
        baseline: the subject that the others are compared with.
        warmup: rounds that were discarded before the first kept one.
        steady: whether the speed had settled by then.
        confidence: of the intervals.
    """

    seconds: dict[str, list[float]]
    baseline: str
    warmup: int
    steady: bool
    confidence: float

    @property
    def rounds(self) -> int:
        """Rounds that were kept."""
        return len(self.seconds[self.baseline])

    def time(self, name: str) -> Interval:
        """Median seconds per call."""
        return median_interval(self.seconds[name], self.confidence)

    def ratios(self, name: str) -> list[float]:
        """Time of ``name`` over the baseline's, round by round."""
        return [own / base for own, base in zip(self.seconds[name], self.seconds[self.baseline], strict=True)]

    def ratio(self, name: str) -> Interval:
        """Median of `ratios`."""
        return median_interval(self.ratios(name), self.confidence)

    @property
    def half_width(self) -> float:
        """The widest of the ratios' intervals, halved; infinite where there are too few rounds for one."""
        intervals = [self.ratio(name) for name in self.seconds if name != self.baseline]
        return max((i.half_width if i.is_bounded else float("inf") for i in intervals), default=0.0)


def _nothing_to_wait_for() -> None:
    """The CPU has done its work when a call returns."""


def compare(
    renew: Callable[[], Subjects],
    baseline: str,
    protocol: Protocol,
    *,
    seed: int = SEED,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], None] = _nothing_to_wait_for,
    on_round: Callable[[Comparison], None] = lambda so_far: None,
) -> Comparison:
    """Time subjects in interleaved rounds until their ratios to the baseline are known well enough.

    A ratio's interval is tested after each copy; that this stops at lucky spreads costs less coverage than the
    interval has to spare (simulated in tests/unit/stats/test_interval.py).

    Args:
        renew: gives the subjects; called every `ROUNDS_PER_COPY` rounds, to give them with their data elsewhere.
        baseline: name of the subject that the others are compared with.
        protocol: how much is measured.
        seed: of the orders within rounds.
        clock, synchronize: as in `time_interleaved`.
        on_round: told what is known after each copy, outside of what is timed.
    """
    draw = random.Random(seed)
    timing = {"clock": clock, "synchronize": synchronize}
    warmup, steady = _warm_up(renew(), protocol.warmup, draw, timing)
    seconds: dict[str, list[float]] = {}
    so_far = Comparison(seconds, baseline, warmup, steady, protocol.confidence)
    done = 0
    while done < protocol.repeats:
        subjects = renew()
        kept = min(ROUNDS_PER_COPY, protocol.repeats - done)
        # The first call of a copy pays for its caches.
        for name, values in time_interleaved(
            subjects, min(protocol.warmup, 1), kept, seed=draw.random(), **timing
        ).items():
            seconds.setdefault(name, []).extend(values)
        done += kept
        on_round(so_far)
        if protocol.interval and done >= FEWEST_ROUNDS and so_far.half_width <= protocol.interval:
            break
    return so_far


def time_interleaved(
    subjects: Subjects,
    warmup: int,
    repeats: int,
    *,
    seed: float = SEED,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], None] = _nothing_to_wait_for,
) -> dict[str, list[float]]:
    """Call every subject once a round, in orders drawn afresh, each followed by its mirror image.

    Args:
        subjects: what is timed, by name.
        warmup, repeats: rounds discarded and rounds kept.
        seed: of the orders.
        clock: gives seconds.
        synchronize: waits until the device is idle; called before each reading of the clock.

    Returns:
        ``repeats`` seconds per subject; equal positions come from the same round.
    """
    orders = _orders(list(subjects), random.Random(seed))
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for done in range(warmup + repeats):
        for name in next(orders):
            synchronize()
            start = clock()
            subjects[name]()
            synchronize()
            elapsed = clock() - start
            if done >= warmup:
                seconds[name].append(elapsed)
    return seconds


def _orders(names: list[str], draw: random.Random) -> Iterator[list[str]]:
    while True:
        draw.shuffle(names)
        yield list(names)
        yield names[::-1]


def _warm_up(subjects: Subjects, fewest: int, draw: random.Random, timing: dict) -> tuple[int, bool]:
    """Run rounds until two windows of them take the same time; returns how many, and whether they ever did."""
    if not fewest:
        return 0, True
    rounds: list[float] = []
    most = max(_MOST_WARMUP * fewest, 2 * _WINDOW)
    while len(rounds) < most:
        wanted = _WINDOW if rounds else max(fewest, 2 * _WINDOW)
        seconds = time_interleaved(subjects, 0, min(wanted, most - len(rounds)), seed=draw.random(), **timing)
        rounds += [sum(one) for one in zip(*seconds.values(), strict=True)]
        if _is_steady(rounds):
            return len(rounds), True
    return len(rounds), False


def _is_steady(rounds: list[float]) -> bool:
    before, after = np.array(rounds[-2 * _WINDOW : -_WINDOW]), np.array(rounds[-_WINDOW:])
    change = abs(float(np.median(after)) / float(np.median(before)) - 1)
    # Half the range of a window's quartiles is about what its median may be off by chance.
    spread = max(
        float(np.subtract(*np.quantile(part, (0.75, 0.25)))) / 2 / float(np.median(part)) for part in (before, after)
    )
    return change <= max(_STEADY, spread)
