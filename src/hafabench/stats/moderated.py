"""Intervals of means over few runs, whose spread is partly known beforehand.

The standard deviation of two or three values is hardly known. Student's interval of their mean is therefore so wide
that a second run would weaken a conclusion. Here the variance is a weighted mean of the values' own variance and of
an assumed one, which counts as ten further degrees of freedom (a moderated variance: Smyth, "Linear models and
empirical Bayes methods", 2004). One value has an interval too, and more values have narrower ones. With many values
the assumption loses its weight.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy import stats

CONFIDENCE = 0.99
ASSUMED_DEGREES_OF_FREEDOM = 10


def moderated_interval(
    values: Sequence[float], assumed_sd: float, *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the confidence interval of the mean of at least one value.

    Args:
        values: The values of independent runs, or the differences of pairs of runs.
        assumed_sd: The assumed standard deviation of one value, in the values' unit.
        confidence: The two-sided confidence, below 1.
    """
    n = len(values)
    half_width = _half_width(values, assumed_sd, confidence) / math.sqrt(n)
    mean = statistics.fmean(values)
    return mean - half_width, mean + half_width


def moderated_difference(
    candidate: Sequence[float], baseline: Sequence[float], assumed_sd: float, *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the confidence interval of the difference of two means whose values cannot be paired.

    Args:
        candidate: At least one value of the candidate.
        baseline: At least one value of the baseline.
        assumed_sd: The assumed standard deviation of one value of either, in the values' unit.
        confidence: The two-sided confidence, below 1.
    """
    means = [statistics.fmean(values) for values in (candidate, baseline)]
    residuals = [value - mean for values, mean in zip((candidate, baseline), means, strict=True) for value in values]
    # Both means were estimated, so that the residuals have one degree of freedom less than those of one sample.
    half_width = _half_width(residuals, assumed_sd, confidence, estimated=2)
    half_width *= math.sqrt(1 / len(candidate) + 1 / len(baseline))
    difference = means[0] - means[1]
    return difference - half_width, difference + half_width


def _half_width(values: Sequence[float], assumed_sd: float, confidence: float, *, estimated: int = 1) -> float:
    """Return half the width of the interval of one value; ``estimated`` is the number of means taken off."""
    mean, own = statistics.fmean(values), len(values) - estimated
    squares = sum((value - mean) ** 2 for value in values)
    degrees = ASSUMED_DEGREES_OF_FREEDOM + own
    variance = (ASSUMED_DEGREES_OF_FREEDOM * assumed_sd**2 + squares) / degrees
    return float(stats.t.ppf((1 + confidence) / 2, degrees)) * math.sqrt(variance)
