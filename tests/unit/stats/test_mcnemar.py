"""The exact McNemar test: equal to scipy's binomial test, and right about what it can detect."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hafabench.stats.mcnemar import exact_mcnemar
from tests.support.gate_records import changed, hits


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 3), (9, 1), (12, 1), (30, 10), (0, 9)])
def test_mcnemars_interval_excludes_nothing_exactly_when_its_test_rejects(lost, won):
    before, after = np.zeros(500, bool), np.zeros(500, bool)
    before[:lost] = True
    after[100 : 100 + won] = True
    found = exact_mcnemar(before, after, 0.01)
    assert found.difference == pytest.approx((won - lost) / 500)
    assert found.low <= found.difference <= found.high
    p = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert (found.low > 0 or found.high < 0) == (p < 0.01)


def test_mcnemar_has_the_stated_power_at_its_detectable_difference():
    rng = np.random.default_rng(0)
    images, noise = 5000, 0.04
    before = hits(rng, images, 0.7)
    visible = exact_mcnemar(before.top1, changed(before, rng, noise / 2, noise / 2).top1, 0.01).detectable
    assert 0.005 < visible < 0.015
    found = 0
    for _ in range(200):
        right = before.top1.copy()
        flipped = rng.random(images) < noise
        # Of the images that differ, as many more are lost as it takes.
        lost = rng.random(images) < 0.5 + visible / noise / 2
        right[flipped] = ~lost[flipped]
        start = before.top1.copy()
        start[flipped] = lost[flipped]
        found += exact_mcnemar(start, right, 0.01).high < 0
    assert 0.7 * 200 < found < 0.9 * 200


def test_no_difference_still_has_a_detectable_difference():
    right = np.arange(512) % 2 == 0
    found = exact_mcnemar(right, right, 0.01)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    # Eight images more on one side, and none on the other, would be the first to count.
    assert found.detectable == pytest.approx(8 / 512)
    lost = right.copy()
    lost[np.flatnonzero(right)[:8]] = False
    assert exact_mcnemar(right, lost, 0.01).high < 0
    lost[np.flatnonzero(right)[0]] = True
    assert exact_mcnemar(right, lost, 0.01).high > 0
