"""Means over seeds, and one model against another on the same seeds: intervals, p values, what could have been seen.

All of it is Student's t on the seeds' values or on their differences, two-sided. A seed is one training: the spread
is that of repeating the training, not of drawing other data. Values that do not vary at all (one seed twice, or a
metric with few steps) get neither interval nor p value: a width of zero would claim a certainty that no t test gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from hafabench.errors import UserError

CONFIDENCE = 0.95
POWER = 0.80
# Below this part of the largest value a spread is rounding in the last bits of a double.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Summary:
    """Values of several seeds, in their unit.

    Attributes:
        mean: arithmetic mean.
        sd: sample standard deviation (n - 1); None for one value.
        n: number of values.
        low, high: confidence interval of the mean; None for one value or where the values do not vary.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairedComparison:
    """Candidate minus baseline over the seeds that both have, in the values' unit.

    Attributes:
        difference: mean of the differences per seed.
        sd: their sample standard deviation; None for one pair.
        low, high: confidence interval of ``difference``.
        p: two-sided p value of a paired t test of no difference; not corrected for other tests.
        n: number of pairs.
        detectable: the smallest true difference that ``n`` pairs of this spread find with 80 % power. The spread is
            estimated from the same pairs: it says what the runs could show, and nothing more about the difference.
        seeds: the common seeds, ascending.
        differences: candidate minus baseline, one per seed.

    ``low``, ``high``, ``p`` and ``detectable`` are None for one pair or where the differences do not vary.
    """

    difference: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    detectable: float | None
    seeds: tuple[int, ...]
    differences: tuple[float, ...]


def summarize(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """Mean, spread and confidence interval of the values of several seeds.

    Raises:
        UserError: for no values, or one that is not a finite number.
    """
    numbers = _finite(values, "a summary")
    n, mean = len(numbers), float(numbers.mean())
    if n < 2:
        return Summary(mean, None, n, None, None)
    sd = float(numbers.std(ddof=1))
    if _constant(numbers, sd):
        return Summary(mean, 0.0, n, None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(mean, sd, n, mean - half, mean + half)


def compare_paired(
    candidate: Mapping[int, float],
    baseline: Mapping[int, float],
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> PairedComparison:
    """Compare two models on the seeds that both have; seeds of one alone are left out.

    Args:
        candidate, baseline: seed -> value.
        confidence: of the interval; ``1 - confidence`` is the level at which ``detectable`` counts as found.
        power: probability of finding ``detectable``.

    Raises:
        UserError: without a common seed, or for a value that is not a finite number.
    """
    seeds = tuple(sorted(candidate.keys() & baseline.keys()))
    if not seeds:
        raise UserError(
            f"a paired comparison needs a common seed: the candidate has {_listed(candidate)}, "
            f"the baseline {_listed(baseline)}"
        )
    ours = _finite([candidate[seed] for seed in seeds], "a comparison")
    theirs = _finite([baseline[seed] for seed in seeds], "a comparison")
    differences = ours - theirs
    n, difference = len(seeds), float(differences.mean())
    pairs = {"n": n, "seeds": seeds, "differences": tuple(differences.tolist())}
    if n < 2:
        return PairedComparison(difference, None, None, None, None, detectable=None, **pairs)
    sd = float(differences.std(ddof=1))
    if _constant(np.concatenate([ours, theirs]), sd):
        return PairedComparison(difference, 0.0, None, None, None, detectable=None, **pairs)
    error = sd / math.sqrt(n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return PairedComparison(
        difference=difference,
        sd=sd,
        low=difference - half,
        high=difference + half,
        p=float(2 * stats.t.sf(abs(difference) / error, n - 1)),
        detectable=smallest_detectable(n, sd, 1 - confidence, power),
        **pairs,
    )


def smallest_detectable(n: int, sd: float, level: float = 1 - CONFIDENCE, power: float = POWER) -> float:
    """The true mean difference that a two-sided paired t test of ``n`` pairs finds with probability ``power``.

    Exact: solved on the noncentral t distribution by its square, the noncentral F.

    Args:
        n: number of pairs, at least 2.
        sd: standard deviation of the differences, in their unit.
        level: of the test.
        power: wanted, above ``level``.
    """
    critical = float(stats.t.ppf(1 - level / 2, n - 1))

    def missing(shift: float) -> float:
        # Both tails at once: the square of a noncentral t is a noncentral F. scipy's nct gives NaN in its far tail.
        return float(stats.ncf.sf(critical**2, 1, n - 1, shift**2)) - power

    # Sought between no shift (found as often as the level says) and one that even a single degree of freedom finds.
    return float(optimize.brentq(missing, 0.0, 4 * critical + 10)) * sd / math.sqrt(n)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for being a family of tests (Holm 1979), in the given order; None where there was no test.

    Controls the probability of one false finding or more, whatever the dependence between the tests.
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


def _constant(values: np.ndarray, sd: float) -> bool:
    return sd <= _ROUNDING * float(np.abs(values).max())


def _listed(values: Mapping[int, float]) -> str:
    return ", ".join(map(str, sorted(values))) or "none"
