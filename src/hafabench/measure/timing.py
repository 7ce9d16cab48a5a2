"""Timing of several functions side by side, until their ratios to a baseline are known.

The speed of a machine drifts (clock rate, other processes, heat). Every function therefore runs once per round, in an
order that is drawn at random and then mirrored, so that the drift affects all of them alike. The ratio to the
baseline is taken in every round. The functions are renewed after every few rounds, so that the placement of their
data in memory contributes to the spread of the results and not to a bias.

This module imports no torch. docs/measurement.md describes the protocol; `hafabench.measure.latency` times models.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from hafabench.stats.intervals import CONFIDENCE, Interval, median_interval

# Seed of the orders within rounds.
SEED = 0
ROUNDS_PER_COPY = 8
# Number of rounds before which an interval cannot end the measurement.
FEWEST_ROUNDS = 64
# The warm-up ends when the medians of two successive windows agree to 2 %, or within their spread. It also ends after
# ten times the configured number of rounds.
_WINDOW = 5
_STEADY = 0.02
_MOST_WARMUP = 10

Functions = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Protocol:
    """The length of a measurement.

    Attributes:
        warmup: Smallest number of rounds that are discarded at the beginning; 0 discards none.
        repeats: Largest number of rounds that are kept.
        interval: Relative half width of the ratios' intervals at which the measurement ends. With None it ends after
            ``repeats`` rounds.
        confidence: Confidence of the intervals.
    """

    warmup: int
    repeats: int
    interval: float | None = None
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class InterleavedTimes:
    """The times of interleaved rounds.

    Attributes:
        seconds: Times by function. Equal positions belong to the same round.
        baseline: The function to which the ratios refer.
        warmup: Number of rounds that were discarded at the beginning.
        steady: Whether the speed had become steady by then.
        confidence: Confidence of the intervals.
    """

    seconds: dict[str, list[float]]
    baseline: str
    warmup: int
    steady: bool
    confidence: float

    @property
    def rounds(self) -> int:
        """Number of rounds that were kept."""
        return len(self.seconds[self.baseline])

    def median_time(self, name: str) -> Interval:
        """Return the median of the seconds per call."""
        return median_interval(self.seconds[name], self.confidence)

    def ratios(self, name: str) -> list[float]:
        """Return the time of ``name`` divided by that of the baseline, for every round."""
        return [own / base for own, base in zip(self.seconds[name], self.seconds[self.baseline], strict=True)]

    def ratio(self, name: str) -> Interval:
        """Return the median of `ratios`."""
        return median_interval(self.ratios(name), self.confidence)

    @property
    def half_width(self) -> float:
        """Half the width of the widest interval of a ratio; infinite with too few rounds for an interval."""
        intervals = [self.ratio(name) for name in self.seconds if name != self.baseline]
        return max((i.half_width if i.is_bounded else float("inf") for i in intervals), default=0.0)


def _do_not_wait() -> None:
    """Return at once, because on the CPU a call has done its work when it returns."""


def time_against_baseline(
    renew: Callable[[], Functions],
    baseline: str,
    protocol: Protocol,
    *,
    seed: int = SEED,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], None] = _do_not_wait,
    on_round: Callable[[InterleavedTimes], None] = lambda so_far: None,
) -> InterleavedTimes:
    """Time functions in interleaved rounds until their ratios to the baseline are known well enough.

    The intervals of the ratios are tested after each copy. Stopping when an interval is narrow by chance costs some
    coverage, but less than the margin of the intervals (simulated in tests/unit/stats/test_interval.py).

    Args:
        renew: Returns the functions. It is called every `ROUNDS_PER_COPY` rounds and should move their data in
            memory.
        baseline: Name of the function to which the ratios refer.
        protocol: The length of the measurement.
        seed: Seed of the orders within rounds.
        clock: Returns the time in seconds.
        synchronize: Waits until the device is idle. It is called before the clock is read.
        on_round: Receives the times so far after each copy, while nothing is timed.
    """
    draw = random.Random(seed)
    timed = partial(time_interleaved, clock=clock, synchronize=synchronize)
    warmup, steady = _warm_up(renew(), protocol.warmup, draw, timed)
    seconds: dict[str, list[float]] = {}
    so_far = InterleavedTimes(seconds, baseline, warmup, steady, protocol.confidence)
    done = 0
    while done < protocol.repeats:
        functions = renew()
        kept = min(ROUNDS_PER_COPY, protocol.repeats - done)
        # The first call of a copy also fills caches, and is discarded.
        for name, values in timed(functions, min(protocol.warmup, 1), kept, seed=draw.random()).items():
            seconds.setdefault(name, []).extend(values)
        done += kept
        on_round(so_far)
        if protocol.interval and done >= FEWEST_ROUNDS and so_far.half_width <= protocol.interval:
            break
    return so_far


def time_interleaved(
    functions: Functions,
    warmup: int,
    repeats: int,
    *,
    seed: float = SEED,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], None] = _do_not_wait,
) -> dict[str, list[float]]:
    """Call every function once per round, in random orders that are each followed by their mirror image.

    Args:
        functions: The functions by name.
        warmup: Number of rounds that are discarded.
        repeats: Number of rounds that are kept.
        seed: Seed of the orders.
        clock: Returns the time in seconds.
        synchronize: Waits until the device is idle. It is called before the clock is read.

    Returns:
        ``repeats`` times in seconds per function. Equal positions belong to the same round.
    """
    orders = _orders(list(functions), random.Random(seed))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for done in range(warmup + repeats):
        for name in next(orders):
            synchronize()
            start = clock()
            functions[name]()
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


def _warm_up(
    functions: Functions, fewest: int, draw: random.Random, timed: Callable[..., dict[str, list[float]]]
) -> tuple[int, bool]:
    """Run rounds until two windows of them take the same time; return their number, and whether that happened."""
    if not fewest:
        return 0, True
    rounds: list[float] = []
    most = max(_MOST_WARMUP * fewest, 2 * _WINDOW)
    while len(rounds) < most:
        wanted = _WINDOW if rounds else max(fewest, 2 * _WINDOW)
        seconds = timed(functions, 0, min(wanted, most - len(rounds)), seed=draw.random())
        rounds += [sum(one) for one in zip(*seconds.values(), strict=True)]
        if _is_steady(rounds):
            return len(rounds), True
    return len(rounds), False


def _is_steady(rounds: list[float]) -> bool:
    before, after = np.array(rounds[-2 * _WINDOW : -_WINDOW]), np.array(rounds[-_WINDOW:])
    change = abs(float(np.median(after)) / float(np.median(before)) - 1)
    # Half the interquartile range of a window approximates the error of its median.
    spread = max(
        float(np.subtract(*np.quantile(part, (0.75, 0.25)))) / 2 / float(np.median(part)) for part in (before, after)
    )
    return change <= max(_STEADY, spread)
