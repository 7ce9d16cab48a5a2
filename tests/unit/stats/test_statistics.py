"""Intervals, paired tests, detectable effects and Holm's correction, against scipy and against simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hafabench.errors import UserError
from hafabench.stats.paired import compare_paired, holm, smallest_detectable, summarize

CANDIDATE = {0: 61.2, 1: 59.8, 2: 63.0, 3: 60.4, 4: 62.9}
BASELINE = {4: 58.1, 3: 57.0, 2: 61.5, 1: 60.3, 0: 57.7}


def test_summary_is_student_t():
    values = list(CANDIDATE.values())
    summary = summarize(values)
    assert (summary.mean, summary.n) == (pytest.approx(np.mean(values)), 5)
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (summary.low, summary.high) == pytest.approx((interval.low, interval.high))
    wide = summarize(values, confidence=0.99)
    assert wide.low < summary.low and wide.high > summary.high


def test_paired_comparison_is_scipys_ttest_rel():
    comparison = compare_paired(CANDIDATE, BASELINE)
    paired = stats.ttest_rel([CANDIDATE[s] for s in range(5)], [BASELINE[s] for s in range(5)])
    interval = paired.confidence_interval(0.95)
    assert comparison.difference == pytest.approx(2.54)
    assert comparison.p == pytest.approx(paired.pvalue)
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high))
    assert comparison.differences == pytest.approx((3.5, -0.5, 1.5, 3.4, 4.8))


def test_only_common_seeds_are_compared():
    comparison = compare_paired(CANDIDATE | {7: 0.0}, BASELINE | {9: 99.0})
    assert comparison == compare_paired(CANDIDATE, BASELINE)
    assert comparison.seeds == (0, 1, 2, 3, 4)
    with pytest.raises(UserError, match=r"common seed: the candidate has 0, 1, the baseline 2"):
        compare_paired({1: 1.0, 0: 2.0}, {2: 3.0})


def test_one_seed_gives_a_value_and_no_claim():
    summary = summarize([90.5])
    assert (summary.mean, summary.sd, summary.n, summary.low, summary.high) == (90.5, None, 1, None, None)
    one = compare_paired({3: 90.5}, {3: 90.0})
    assert (one.difference, one.n) == (0.5, 1)
    assert (one.sd, one.low, one.high, one.p, one.detectable) == (None,) * 5


@pytest.mark.parametrize("step", [0.0, 0.1, 1.0])
def test_differences_that_do_not_vary_give_no_certainty(step):
    # 0.1 and 0.7 have no exact doubles: the differences vary by rounding alone.
    baseline = {seed: 0.7 + 0.1 * seed for seed in range(4)}
    comparison = compare_paired({seed: value + step for seed, value in baseline.items()}, baseline)
    assert comparison.difference == pytest.approx(step)
    assert (comparison.sd, comparison.low, comparison.high, comparison.p, comparison.detectable) == (
        0.0,
        None,
        None,
        None,
        None,
    )
    same = summarize([0.1 + 0.2, 0.3, 0.3])
    assert (same.sd, same.low, same.high) == (0.0, None, None)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(wrong):
    with pytest.raises(UserError, match="finite numbers, found"):
        summarize([1.0, wrong])
    with pytest.raises(UserError, match="finite numbers, found"):
        compare_paired({0: 1.0, 1: wrong}, {0: 1.0, 1: 1.0})
    with pytest.raises(UserError, match="at least one value"):
        summarize([])


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_coverage_of_the_interval_and_power_at_the_detectable_effect(n):
    """20,000 experiments of n pairs each: 95 % of the intervals hold the truth, 80 % of the tests find the effect."""
    rng = np.random.default_rng(n)
    sd, trials = 1.7, 20_000
    effect = smallest_detectable(n, sd)
    differences = rng.normal(effect, sd, (trials, n))
    means, errors = differences.mean(1), differences.std(1, ddof=1) / math.sqrt(n)
    # The library's own interval, on a hundred of them; the critical value that it implies, on all.
    own = [compare_paired(dict(enumerate(row)), dict.fromkeys(range(n), 0.0)) for row in differences[:100]]
    critical = (own[0].high - own[0].difference) / errors[0]
    assert all(c.high - c.low == pytest.approx(2 * critical * e) for c, e in zip(own, errors[:100], strict=True))
    # Three standard errors of a proportion of 20,000 are 0.005 and 0.009.
    assert np.mean(np.abs(means - effect) <= critical * errors) == pytest.approx(0.95, abs=0.005)
    assert np.mean(np.abs(means) > critical * errors) == pytest.approx(0.80, abs=0.009)


def test_p_values_of_no_difference_are_uniform():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 600, 4))
    p = [compare_paired(dict(enumerate(a)), dict(enumerate(b))).p for a, b in zip(*values, strict=True)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_detectable_effect_scales_with_the_spread_and_shrinks_with_pairs():
    assert smallest_detectable(5, 3.0) == pytest.approx(3 * smallest_detectable(5, 1.0))
    effects = [smallest_detectable(n, 1.0) for n in range(2, 30)]
    assert effects == sorted(effects, reverse=True)
    # G*Power 3.1's t test of matched pairs: dz = 0.8 needs 15 pairs for 80 % power at 5 %, two-sided.
    assert smallest_detectable(15, 1.0) < 0.8 < smallest_detectable(14, 1.0)


def test_holm():
    # Holm (1979) by hand: 0.01 * 4, then max(0.04, 0.02 * 3), then max(0.06, 0.03 * 2), then 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.2, None, 0.9]) == [0.4, None, 0.9]
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
