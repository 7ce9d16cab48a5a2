"""Means over seeds, and paired comparisons of two models with intervals, p values and detectable differences.

All tests and intervals are two-sided and use Student's t on the values of the seeds or on their differences. A seed
is one training. The spread is therefore that between repeated trainings, not between samples of the data. Values that
do not vary have neither an interval nor a p value, because a width of zero would suggest a certainty that a t test
does not give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from hafabench.errors import UserError

CONFIDENCE = 0.95
POWER = 0.80
_ROUNDING = 1e-12
"""A spread below this share of the largest value is the rounding error of a double."""


@dataclass(frozen=True)
class Summary:
    """The summary of the values of several seeds, in their unit.

    Attributes:
        mean: The arithmetic mean.
        sd: The sample standard deviation (n - 1); None for one value.
        n: The number of values.
        low, high: The confidence interval of the mean; None for one value, or if the values do not vary.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairedComparison:
    """Candidate minus baseline over the seeds that both have, in the values' unit.

    ``low``, ``high``, ``p`` and ``detectable`` are None for one pair, or if the differences do not vary.

    Attributes:
        seeds: The common seeds in ascending order.
        differences: Candidate minus baseline for each seed.
        difference: The mean of the differences.
        sd: Their sample standard deviation; None for one pair.
        low, high: The confidence interval of ``difference``.
        p: The two-sided p value of a paired t test for no difference, without correction for multiple tests.
        detectable: The smallest true difference that ``n`` pairs with this spread find with 80 % power. The spread is
            estimated from the same pairs, so this value adds no information about the difference itself.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    difference: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    detectable: float | None = None

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.seeds)


def summarize(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """Return the mean, spread and confidence interval of the values of several seeds.

    Raises:
        UserError: If there are no values, or one is not finite.
    """
    numbers = _finite(values, "a summary")
    n, mean = len(numbers), float(numbers.mean())
    if n < 2:
        return Summary(mean, None, n, None, None)
    sd = float(numbers.std(ddof=1))
    if _is_constant(numbers, sd):
        return Summary(mean, 0.0, n, None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(mean, sd, n, mean - half, mean + half)


def compare_paired(
    candidate: Mapping[int, float],
    baseline: Mapping[int, float],
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> PairedComparison:
    """Compare two models on the seeds that both have.

    Args:
        candidate: The candidate's values by seed.
        baseline: The baseline's values by seed.
        confidence: The confidence of the interval. ``1 - confidence`` is the level of the test behind ``detectable``.
        power: The probability of finding the difference ``detectable``.

    Raises:
        UserError: If there is no common seed, or a value is not finite.
    """
    seeds = tuple(sorted(candidate.keys() & baseline.keys()))
    if not seeds:
        raise UserError(
            f"a paired comparison needs a common seed: the candidate has {_listed(candidate)}, "
            f"the baseline {_listed(baseline)}"
        )
    candidate_values = _finite([candidate[seed] for seed in seeds], "a comparison")
    baseline_values = _finite([baseline[seed] for seed in seeds], "a comparison")
    differences = candidate_values - baseline_values
    n, difference = len(seeds), float(differences.mean())
    found = PairedComparison(seeds, tuple(differences.tolist()), difference)
    if n < 2:
        return found
    sd = float(differences.std(ddof=1))
    if _is_constant(np.concatenate([candidate_values, baseline_values]), sd):
        return replace(found, sd=0.0)
    error = sd / math.sqrt(n)
    half_width = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return replace(
        found,
        sd=sd,
        low=difference - half_width,
        high=difference + half_width,
        p=float(2 * stats.t.sf(abs(difference) / error, n - 1)),
        detectable=smallest_detectable(n, sd, 1 - confidence, power),
    )


def smallest_detectable(n: int, sd: float, level: float = 1 - CONFIDENCE, power: float = POWER) -> float:
    """Return the true mean difference that a two-sided paired t test of ``n`` pairs finds with a given probability.

    The result is exact. It uses the noncentral F distribution, which is that of the square of a noncentral t.

    Args:
        n: The number of pairs, at least 2.
        sd: The standard deviation of the differences, in their unit.
        level: The level of the test.
        power: The probability, above ``level``.
    """
    critical = float(stats.t.ppf(1 - level / 2, n - 1))

    def missing_power(shift: float) -> float:
        # The square of a noncentral t is a noncentral F, which covers both tails. scipy's nct is NaN in its far tail.
        return float(stats.ncf.sf(critical**2, 1, n - 1, shift**2)) - power

    # A shift of 0 is found with the probability of the level; the upper bound suffices for one degree of freedom.
    return float(optimize.brentq(missing_power, 0.0, 4 * critical + 10)) * sd / math.sqrt(n)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for a family of tests (Holm 1979), in the given order; None stays None.

    The correction bounds the probability of any false finding, also for tests that depend on each other.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[index] = largest
    return corrected


def _finite(values: Sequence[float], what: str) -> np.ndarray:
    numbers = np.asarray(list(values), dtype=float)
    if not numbers.size:
        raise UserError(f"{what} needs at least one value")
    wrong = numbers[~np.isfinite(numbers)]
    if wrong.size:
        raise UserError(f"{what} needs finite numbers, found {wrong[0]}")
    return numbers


def _is_constant(values: np.ndarray, sd: float) -> bool:
    return sd <= _ROUNDING * float(np.abs(values).max())


def _listed(values: Mapping[int, float]) -> str:
    return ", ".join(map(str, sorted(values))) or "none"
