"""The exact McNemar test: whether two models answer the same questions equally well."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hafabench.stats.paired import POWER


@dataclass(frozen=True)
class McNemar:
    """The difference between two shares of right answers to the same questions.

    Attributes:
        difference: The candidate's share minus the baseline's.
        low, high: Its interval.
        detectable: The smallest true difference that the test finds with 80 % power.
        lost, won: The numbers of answers that only the baseline, and only the candidate, has right.
    """

    difference: float
    low: float
    high: float
    detectable: float
    lost: int
    won: int


def exact_mcnemar(baseline: NDArray[np.bool_], candidate: NDArray[np.bool_], level: float) -> McNemar:
    """Compare right and wrong answers of two models.

    The interval is conditional on the number of answers that only one model has right. It follows from the interval
    of Clopper and Pearson for the share of these answers that the baseline has right. It excludes 0 if and only if
    the test rejects equality.

    Args:
        baseline: (n,) whether each answer is right.
        candidate: (n,) the same for the candidate.
        level: The two-sided level of the test.
    """
    n = len(baseline)
    lost, won = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum())
    differing = lost + won
    fewest = math.ceil(math.log2(2 / level))
    usual = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER)) * math.sqrt(differing)
    detectable = max(fewest, usual) / n
    if not differing:
        return McNemar(0.0, 0.0, 0.0, detectable, lost, won)
    share = stats.binomtest(lost, differing).proportion_ci(1 - level, method="exact")
    low, high = (differing / n * (1 - 2 * float(bound)) for bound in (share.high, share.low))
    return McNemar((won - lost) / n, low, high, detectable, lost, won)
