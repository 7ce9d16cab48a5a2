"""How well a median is known, from readings that follow each other in time.

Readings of one machine are neither normal nor independent: there are bursts, and what was slow a moment ago is
likely to be slow still. The interval of the median is therefore taken between order statistics, and how far apart
they lie follows from how much the number of readings below the median varies between blocks of successive readings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.99
MOST_BLOCKS = 16


@dataclass(frozen=True)
class Interval:
    """A median and where it may lie.

    Attributes:
        value: the median of the readings, in their unit.
        low, high: bounds that hold the true median with ``confidence``; infinite where the readings are too few.
        confidence: two-sided.
    """

    value: float
    low: float
    high: float
    confidence: float

    @property
    def is_bounded(self) -> bool:
        """Whether there were enough readings for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        """Half the interval, relative to the median."""
        return (self.high - self.low) / 2 / abs(self.value)

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside the interval."""
        return not self.low <= value <= self.high


def median_interval(readings: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Median of successive readings with its interval.

    Among n independent readings the number below the true median has variance n / 4, which gives the ranks between
    which the median lies. Here that variance is estimated from the sums over up to 16 blocks of successive readings
    and never taken as smaller than n / 4; the quantile is Student's t with as many degrees of freedom as blocks, less
    one.

    Args:
        readings: in the order in which they were taken, at least one.
        confidence: two-sided, below 1.
    """
    values = np.asarray(readings, dtype=float)
    n, median = len(values), float(np.median(values))
    blocks = min(MOST_BLOCKS, n // 2)
    if blocks < 2:
        return Interval(median, -math.inf, math.inf, confidence)
    above = np.sign(values - median) / 2
    sums = np.array([part.sum() for part in np.array_split(above, blocks)])
    variance = max(float((sums**2).sum()) * blocks / (blocks - 1), n / 4)
    reach = float(stats.t.ppf((1 + confidence) / 2, blocks - 1)) * math.sqrt(variance)
    ordered = np.sort(values)
    low, high = math.floor(n / 2 - reach), math.ceil(n / 2 + reach) - 1
    if low < 0 or high >= n:
        return Interval(median, -math.inf, math.inf, confidence)
    return Interval(median, float(ordered[low]), float(ordered[high]), confidence)
