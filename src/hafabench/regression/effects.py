"""The effect of a change (candidate minus baseline) and its error, from counts, seeds, images or timed rounds.

Each function returns the change, its two-sided interval at the given level, and the smallest true change that it
would have found with 80 % power, all in the metric's unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hafabench.results.predictions import Hits, Predictions
from hafabench.results.record import Metric
from hafabench.stats.bootstrap import bootstrap_error
from hafabench.stats.mcnemar import exact_mcnemar
from hafabench.stats.paired import POWER, compare_paired


@dataclass(frozen=True)
class Effect:
    """Candidate minus baseline.

    Attributes:
        change: The difference in the metric's unit.
        low, high: Its interval; None if there is none.
        detectable: The smallest change that would have been found; None if it is unknown.
        method: How the change was found, as a clause.
    """

    change: float
    low: float | None
    high: float | None
    detectable: float | None
    method: str


def exact_effect(baseline: float, candidate: float) -> Effect:
    """Return the effect on a count: every difference beyond rounding is real."""
    change = candidate - baseline
    if abs(change) <= 1e-12 * abs(baseline):
        change = 0.0
    return Effect(change, change, change, 0.0, "exact count")


def effect_over_seeds(baseline: Mapping[int, float], candidate: Mapping[int, float], level: float) -> Effect:
    """Return the effect on trainings that were repeated with the same seeds, by a paired t test."""
    found = compare_paired(candidate, baseline, confidence=1 - level)
    return Effect(found.difference, found.low, found.high, found.detectable, f"{found.n} seeds, paired t")


def effect_over_steady_seeds(
    baseline: Mapping[int, float], candidate: Mapping[int, float], level: float
) -> Effect | None:
    """Return the effect on repeated trainings under the assumption that the candidate's vary like the baseline's.

    The spread is that of the baseline alone. If the candidate is as steady as the baseline, the difference of the two
    means divided by its error therefore has Student's t distribution with one degree of freedom less than there are
    seeds. The effect is None if only the baseline does not vary: with few images, equal accuracies are a coincidence.
    """
    before, after = (np.array([values[seed] for seed in sorted(baseline)]) for values in (baseline, candidate))
    if np.ptp(before) == 0 < np.ptp(after):
        return None
    change = float(after.mean() - before.mean())
    error = float(before.std(ddof=1)) * math.sqrt(2 / len(before))
    quantile, power = (float(stats.t.ppf(p, len(before) - 1)) for p in (1 - level / 2, POWER))
    half_width = quantile * error
    method = f"{len(before)} seeds, spread of the baseline"
    return Effect(change, change - half_width, change + half_width, (quantile + power) * error, method)


def effect_over_images(
    metric: str, baseline: Sequence[Predictions], candidate: Sequence[Predictions], level: float, resamples: int
) -> Effect:
    """Return the effect on predictions for the same images.

    Top-1 and top-5 of one run are compared by the exact McNemar test, everything else by a bootstrap over images.

    Args:
        metric: A metric that the predictions give.
        baseline: The predictions of each seed, with the images in the same order throughout.
        candidate: The same for the candidate.
        level: The two-sided level of the interval.
        resamples: The number of resamples of the bootstrap. Each draws the same images for all predictions.
    """
    images = len(baseline[0].images)
    if len(baseline) == 1 and isinstance(baseline[0], Hits):
        found = exact_mcnemar(getattr(baseline[0], metric), getattr(candidate[0], metric), level)
        change, low, high, detectable = (
            100 * share for share in (found.difference, found.low, found.high, found.detectable)
        )
        method = f"{images} images, exact McNemar: {found.lost} lost, {found.won} won"
        return Effect(change, low, high, detectable, method)

    def difference(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        pairs = zip(baseline, candidate, strict=True)
        return np.mean(
            [after.resampled(metric, counts) - before.resampled(metric, counts) for before, after in pairs], 0
        )

    change = float(difference(np.ones((1, images), dtype=np.int64))[0])
    error = bootstrap_error(difference, images, resamples)
    # Student's t has one degree of freedom less than there are images.
    quantile, power = (float(stats.t.ppf(p, images - 1)) for p in (1 - level / 2, POWER))
    half_width = quantile * error
    method = f"{images} images, bootstrap of {resamples}"
    return Effect(change, change - half_width, change + half_width, (quantile + power) * error, method)


def effect_on_ratio(baseline: Metric, candidate: Metric, level: float) -> Effect:
    """Return the effect on a ratio that each side measured round by round, by the difference of the logarithms.

    The intervals of the two records give the errors of the logarithms. They are independent, because each side was
    measured in a separate process.
    """
    rounds = f"{baseline.repeats} and {candidate.repeats} interleaved rounds"
    errors = [_error_of_logarithm(metric) for metric in (baseline, candidate)]
    if errors[0] is None or errors[1] is None:
        return Effect(candidate.value - baseline.value, None, None, None, f"{rounds}, too few for an interval")
    return _effect_of_logarithm(baseline, candidate, math.hypot(errors[0], errors[1]), level, rounds)


def effect_on_steady_ratio(baseline: Metric, candidate: Metric, level: float) -> Effect | None:
    """Return the effect on a ratio under the assumption that the candidate's error is that of the baseline.

    It is None if the baseline has no interval.
    """
    error = _error_of_logarithm(baseline)
    if error is None:
        return None
    method = f"{baseline.repeats} interleaved rounds, interval of the baseline"
    return _effect_of_logarithm(baseline, candidate, math.hypot(error, error), level, method)


def _effect_of_logarithm(baseline: Metric, candidate: Metric, error: float, level: float, method: str) -> Effect:
    """Return the effect on a ratio.

    Args:
        baseline: The baseline's ratio.
        candidate: The candidate's ratio.
        error: The standard error of the difference of their logarithms.
        level: The two-sided level of the interval.
        method: How the change was found, as a clause.
    """
    shift = math.log(candidate.value / baseline.value)
    quantile, power = (float(stats.norm.ppf(p)) for p in (1 - level / 2, POWER))
    # The exponential of a larger number is not a float.
    change, low, high, detectable = (
        baseline.value * math.expm1(min(step, 700.0))
        for step in (shift, shift - quantile * error, shift + quantile * error, (quantile + power) * error)
    )
    return Effect(change, low, high, detectable, method)


def has_interval(metric: Metric) -> bool:
    """Return whether the interval of a metric and its confidence are known."""
    return metric.interval is not None and metric.confidence is not None


def _error_of_logarithm(metric: Metric) -> float | None:
    """Return the standard error of a metric's logarithm; None if the metric has no interval."""
    if metric.interval is None or metric.confidence is None:
        return None
    low, high = metric.interval
    return math.log(high / low) / 2 / float(stats.norm.ppf((1 + metric.confidence) / 2))
