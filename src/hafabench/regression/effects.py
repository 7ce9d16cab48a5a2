"""Effects with their errors: candidate minus baseline, by counts, seeds, images or rounds.

Each function gives the change, a two-sided interval at the given level, and the smallest true change that it would
have found with 80 % power, all in the metric's unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from hafabench.results.predictions import Hits, Predictions
from hafabench.results.record import Metric
from hafabench.stats.paired import POWER, compare_paired

_SEED = 0
_RESAMPLES_AT_ONCE = 100


@dataclass(frozen=True)
class Effect:
    """Candidate minus baseline.

    Attributes:
        change: in the metric's unit.
        low, high: its interval; None where there is none.
        detectable: the smallest change that could have been seen; None where nothing is known about it.
        by: how it was found, a clause.
    """

    change: float
    low: float | None
    high: float | None
    detectable: float | None
    by: str


def exact(baseline: float, candidate: float) -> Effect:
    """Of numbers that are counted, not measured: every difference beyond rounding is one."""
    change = candidate - baseline
    if abs(change) <= 1e-12 * abs(baseline):
        change = 0.0
    return Effect(change, change, change, 0.0, "exact count")


def over_seeds(baseline: Mapping[int, float], candidate: Mapping[int, float], level: float) -> Effect:
    """Of trainings repeated with the same seeds: paired t."""
    found = compare_paired(candidate, baseline, confidence=1 - level)
    return Effect(found.difference, found.low, found.high, found.detectable, f"{found.n} seeds, paired t")


def over_images(
    metric: str, baseline: Sequence[Predictions], candidate: Sequence[Predictions], level: float, resamples: int
) -> Effect:
    """Of predictions for the same images: exact McNemar for hits of one run, else bootstrap over images.

    Args:
        metric: one that the predictions give.
        baseline, candidate: one per seed, images in the same order throughout.
        level: two-sided.
        resamples: of the bootstrap; each draws the same images for all seeds and both sides.
    """
    if len(baseline) == 1 and isinstance(baseline[0], Hits):
        return mcnemar(getattr(baseline[0], metric), getattr(candidate[0], metric), level)
    return _bootstrap(metric, baseline, candidate, level, resamples)


def mcnemar(baseline: np.ndarray, candidate: np.ndarray, level: float) -> Effect:
    """Of right and wrong answers, (images,) bool: exact McNemar, in points of per cent.

    The interval is conditional on the number of images that only one side has right: Clopper and Pearson's for the
    share that the baseline has, so that it excludes 0 exactly when the test rejects.
    """
    lost, won, n = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum()), len(baseline)
    differing = lost + won
    point = 100 / n
    needed = math.ceil(math.log2(2 / level))
    usual = (stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER)) * math.sqrt(differing)
    by = f"{n} images, exact McNemar: {lost} lost, {won} won"
    detectable = point * max(needed, usual)
    if not differing:
        return Effect(0.0, 0.0, 0.0, detectable, by)
    share = stats.binomtest(lost, differing).proportion_ci(1 - level, method="exact")
    low, high = (point * differing * (1 - 2 * bound) for bound in (share.high, share.low))
    return Effect(point * (won - lost), low, high, detectable, by)


def _bootstrap(
    metric: str, baseline: Sequence[Predictions], candidate: Sequence[Predictions], level: float, resamples: int
) -> Effect:
    """Standard error by resampling images; Student's t with one degree of freedom per image but one."""
    n = len(baseline[0].images)

    def difference(counts: np.ndarray) -> np.ndarray:
        return np.mean(
            [
                c.resampled(metric, counts) - b.resampled(metric, counts)
                for b, c in zip(baseline, candidate, strict=True)
            ],
            axis=0,
        )

    draw = np.random.default_rng(_SEED)
    found: list[float] = []
    while len(found) < resamples:
        number = min(_RESAMPLES_AT_ONCE, resamples - len(found))
        found += difference(draw.multinomial(n, np.full(n, 1 / n), number)).tolist()
    change, error = float(difference(np.ones((1, n)))[0]), float(np.nanstd(found, ddof=1))
    reach = float(stats.t.ppf(1 - level / 2, n - 1))
    detectable = (reach + float(stats.t.ppf(POWER, n - 1))) * error
    return Effect(
        change, change - reach * error, change + reach * error, detectable, f"{n} images, bootstrap of {resamples}"
    )


def of_ratios(baseline: Metric, candidate: Metric, level: float) -> Effect:
    """Of two ratios measured round by round, each in a process of its own: difference of their logarithms.

    Each record's interval gives its error on the logarithm; the two are independent.
    """
    rounds = f"{baseline.repeats} and {candidate.repeats} interleaved rounds"
    if baseline.interval is None or candidate.interval is None:
        return Effect(candidate.value - baseline.value, None, None, None, f"{rounds}, too few for an interval")
    error = math.hypot(_log_error(baseline), _log_error(candidate))
    shift = math.log(candidate.value / baseline.value)
    reach = float(stats.norm.ppf(1 - level / 2))
    seen = (reach + float(stats.norm.ppf(POWER))) * error
    change, low, high, detectable = (
        baseline.value * math.expm1(step) for step in (shift, shift - reach * error, shift + reach * error, seen)
    )
    return Effect(change, low, high, detectable, rounds)


def _log_error(metric: Metric) -> float:
    low, high = metric.interval
    return math.log(high / low) / 2 / float(stats.norm.ppf((1 + metric.confidence) / 2))
