"""Effects and their errors: equal to scipy where it has them, and right about how often they err."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hafabench.regression import effects
from hafabench.results.predictions import Areas
from hafabench.results.record import Metric
from tests.support.gate_records import changed, hits


def ratio(value: float, half: float, confidence: float = 0.99) -> Metric:
    interval = (value * np.exp(-half), value * np.exp(half))
    return Metric(
        task="classification",
        model="m",
        name="latency_ratio",
        value=value,
        unit="1",
        repeats=64,
        interval=interval,
        confidence=confidence,
    )


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 3), (9, 1), (12, 1), (30, 10), (0, 9)])
def test_mcnemars_interval_excludes_nothing_exactly_when_its_test_rejects(lost, won):
    before, after = np.zeros(500, bool), np.zeros(500, bool)
    before[:lost] = True
    after[100 : 100 + won] = True
    found = effects.mcnemar(before, after, 0.01)
    assert found.change == pytest.approx(100 * (won - lost) / 500)
    assert found.low <= found.change <= found.high
    p = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert (found.low > 0 or found.high < 0) == (p < 0.01)


def test_mcnemar_finds_what_it_says_it_could_have_seen():
    rng = np.random.default_rng(0)
    images, noise = 5000, 0.04
    before = hits(rng, images, 0.7)
    visible = effects.mcnemar(before.top1, changed(before, rng, noise / 2, noise / 2).top1, 0.01).detectable
    assert 0.5 < visible < 1.5
    found = 0
    for _ in range(200):
        right = before.top1.copy()
        flipped = rng.random(images) < noise
        # Of the images that differ, as many more are lost as it takes.
        lost = rng.random(images) < 0.5 + visible / 100 / noise / 2
        right[flipped] = ~lost[flipped]
        start = before.top1.copy()
        start[flipped] = lost[flipped]
        found += effects.mcnemar(start, right, 0.01).high < 0
    assert 0.7 * 200 < found < 0.9 * 200


def test_no_difference_is_certain_but_says_what_it_would_take():
    right = np.arange(512) % 2 == 0
    found = effects.mcnemar(right, right, 0.01)
    assert (found.change, found.low, found.high) == (0, 0, 0)
    # Eight images more on one side, and none on the other, would be the first to count.
    assert found.detectable == pytest.approx(100 * 8 / 512)
    lost = right.copy()
    lost[np.flatnonzero(right)[:8]] = False
    assert effects.mcnemar(right, lost, 0.01).high < 0
    lost[np.flatnonzero(right)[0]] = True
    assert effects.mcnemar(right, lost, 0.01).high > 0


def scenes(rng: np.random.Generator, images: int) -> np.ndarray:
    """Pixels per image and class: half of the classes do not occur in an image."""
    return rng.integers(1, 900, (images, 5)) * (rng.random((images, 5)) < 0.5)


def segmented(rng: np.random.Generator, truth: np.ndarray, quality: float) -> Areas:
    """A segmentation that finds about ``quality`` of the pixels, more of them in some images than in others."""
    share = np.clip(rng.normal(quality, 0.15, truth.shape), 0, 1)
    wrong = (truth * 0.2 * rng.random(truth.shape)).astype(np.int64)
    names = np.array([str(index) for index in range(len(truth))])
    return Areas(names, (truth * share).astype(np.int64), truth + wrong, truth)


def test_the_bootstrap_errs_as_rarely_as_its_level_says_and_sees_what_is_there():
    rng = np.random.default_rng(1)
    alarms = seen = 0
    for _ in range(120):
        truth = scenes(rng, 48)
        one, other, worse = (segmented(rng, truth, quality) for quality in (0.7, 0.7, 0.6))
        found = effects.over_images("miou", [one], [other], 0.02, 200)
        alarms += found.low > 0 or found.high < 0
        seen += effects.over_images("miou", [one], [worse], 0.02, 200).high < 0
    assert alarms <= 8
    assert seen > 100


def test_the_bootstrap_averages_seeds_on_the_same_images():
    rng = np.random.default_rng(2)
    truth = scenes(rng, 30)
    one, other = segmented(rng, truth, 0.7), segmented(rng, truth, 0.7)
    found = effects.over_images("miou", [one, other], [other, one], 0.01, 100)
    assert found.change == pytest.approx(0)
    assert found.low == pytest.approx(0)


def test_ratios_are_compared_by_their_logarithms_and_errors():
    found = effects.of_ratios(ratio(1.10, 0.02), ratio(1.21, 0.02), 0.01)
    assert found.change == pytest.approx(0.11)
    # At the records' own confidence the two half widths add as errors do.
    reach = 0.02 * np.sqrt(2)
    assert found.low == pytest.approx(1.10 * (1.1 * np.exp(-reach) - 1))
    assert found.high == pytest.approx(1.10 * (1.1 * np.exp(reach) - 1))
    seen = reach * (stats.norm.ppf(0.995) + stats.norm.ppf(0.8)) / stats.norm.ppf(0.995)
    assert found.detectable == pytest.approx(1.10 * np.expm1(seen))


def test_ratios_without_an_interval_have_none():
    bare = ratio(1.1, 0.02).model_copy(update={"interval": None})
    found = effects.of_ratios(bare, ratio(1.3, 0.02), 0.01)
    assert (found.low, found.high, found.detectable) == (None, None, None)


def test_counts_are_compared_to_the_last_one():
    assert effects.exact(14_649_000, 14_649_001).change == 1
    assert effects.exact(1.8931, 1.8931 * (1 + 1e-15)).change == 0
