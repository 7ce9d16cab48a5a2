"""The interval of a median has its stated coverage, also for measurements that are correlated in time."""

from __future__ import annotations

import numpy as np
import pytest

from hafabench.stats.intervals import median_interval


def independent(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n)


def heavy_tails(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_t(1.5, size=n)


def one_sided_bursts(rng: np.random.Generator, n: int) -> np.ndarray:
    """Skewed: exponential, less its median."""
    return rng.exponential(size=n) - np.log(2)


def autocorrelated(rng: np.random.Generator, n: int) -> np.ndarray:
    values = rng.normal(size=n)
    for index in range(1, n):
        values[index] += 0.5 * values[index - 1]
    return values


NOISES = [independent, heavy_tails, one_sided_bursts, autocorrelated]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
@pytest.mark.parametrize("n", [20, 64, 200])
def test_the_interval_covers_the_true_median(noise, n):
    rng = np.random.default_rng(0)
    held = sum(not median_interval(10 + noise(rng, n)).excludes(10) for _ in range(400))
    # The nominal level is 99 %. An autocorrelation of 0.5, far more than real readings have, may lower it to 95 %.
    assert held >= 0.95 * 400


def test_it_is_no_wider_than_independent_readings_deserve():
    rng = np.random.default_rng(0)
    widths = [median_interval(10 + rng.normal(size=200)).half_width for _ in range(200)]
    # The median's own standard error is 1.2533 / sqrt(n), relative to 10; Student's t on 15 is at 2.95 of them.
    assert np.median(widths) == pytest.approx(2.95 * 1.2533 / np.sqrt(200) / 10, rel=0.25)


def test_neighbouring_readings_that_agree_count_as_fewer():
    rng = np.random.default_rng(0)
    apart = 10 + rng.normal(size=128)
    together = np.sort(apart)[rng.permutation(8).repeat(16) * 16 + np.tile(np.arange(16), 8)]
    assert sorted(together) == sorted(apart)
    one, other = median_interval(apart), median_interval(together)
    assert one.is_bounded
    assert not other.is_bounded or other.half_width > 2 * one.half_width


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_too_few_readings_give_no_interval(n):
    interval = median_interval(list(range(1, n + 1)))
    assert interval.value == (n + 1) / 2
    assert not interval.is_bounded
    assert not interval.excludes(1000)


def test_the_interval_contains_the_median():
    readings = [float(value) for value in np.random.default_rng(1).permutation(101)]
    interval = median_interval(readings)
    assert interval.value == 50
    assert 20 < interval.low < 50 < interval.high < 80
    assert {interval.low, interval.high} <= set(readings)
