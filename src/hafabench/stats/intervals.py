"""The confidence interval of a median of times that were measured one after the other.

Such times are neither normally distributed nor independent: slow phases come in bursts. The bounds of the interval
are therefore order statistics. Their distance follows from the variation of the number of times below the median
between blocks of successive times.
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
    """A median and its confidence interval.

    Attributes:
        value: The median, in the unit of the values.
        low, high: The bounds; infinite if there are too few values.
        confidence: The two-sided confidence.
    """

    value: float
    low: float
    high: float
    confidence: float

    @property
    def is_bounded(self) -> bool:
        """Whether there were enough values for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        """Half the interval, relative to the median."""
        return (self.high - self.low) / 2 / abs(self.value)

    def excludes(self, value: float) -> bool:
        """Return whether a value is outside the interval."""
        return not self.low <= value <= self.high


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median of successive values with its confidence interval.

    For n independent values, the number of those below the true median has variance n / 4, which gives the ranks of
    the bounds. Here the variance is estimated from the sums over up to 16 blocks of successive values, and n / 4 is
    its lower limit. The quantile is that of Student's t with one degree of freedom less than there are blocks.

    Args:
        values: The values in the order of their measurement, at least one.
        confidence: The two-sided confidence, below 1.
    """
    numbers = np.asarray(values, dtype=float)
    n, median = len(numbers), float(np.median(numbers))
    blocks = min(MOST_BLOCKS, n // 2)
    if blocks < 2:
        return Interval(median, -math.inf, math.inf, confidence)
    above = np.sign(numbers - median) / 2
    sums = np.array([part.sum() for part in np.array_split(above, blocks)])
    variance = max(float((sums**2).sum()) * blocks / (blocks - 1), n / 4)
    half_width = float(stats.t.ppf((1 + confidence) / 2, blocks - 1)) * math.sqrt(variance)
    ordered = np.sort(numbers)
    low, high = math.floor(n / 2 - half_width), math.ceil(n / 2 + half_width) - 1
    if low < 0 or high >= n:
        return Interval(median, -math.inf, math.inf, confidence)
    return Interval(median, float(ordered[low]), float(ordered[high]), confidence)
