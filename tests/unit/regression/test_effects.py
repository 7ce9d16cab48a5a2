"""Effects and their intervals: equal to scipy's, with the stated error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hafabench.regression.effects import effect_on_ratio, effect_over_images, exact_effect
from hafabench.results.predictions import Areas
from hafabench.results.record import Metric


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


def scenes(rng: np.random.Generator, images: int) -> np.ndarray:
    """Pixels per image and class: half of the classes do not occur in an image."""
    return rng.integers(1, 900, (images, 5)) * (rng.random((images, 5)) < 0.5)


def segmented(rng: np.random.Generator, truth: np.ndarray, quality: float) -> Areas:
    """A segmentation that finds about ``quality`` of the pixels, more of them in some images than in others."""
    share = np.clip(rng.normal(quality, 0.15, truth.shape), 0, 1)
    wrong = (truth * 0.2 * rng.random(truth.shape)).astype(np.int64)
    names = np.array([str(index) for index in range(len(truth))])
    return Areas(names, (truth * share).astype(np.int64), truth + wrong, truth)


def test_error_rate_and_power_of_the_bootstrap():
    rng = np.random.default_rng(1)
    alarms = seen = 0
    for _ in range(120):
        truth = scenes(rng, 48)
        one, other, worse = (segmented(rng, truth, quality) for quality in (0.7, 0.7, 0.6))
        found = effect_over_images("miou", [one], [other], 0.02, 200)
        alarms += found.low > 0 or found.high < 0
        seen += effect_over_images("miou", [one], [worse], 0.02, 200).high < 0
    assert alarms <= 8
    assert seen > 100


def test_the_bootstrap_averages_seeds_on_the_same_images():
    rng = np.random.default_rng(2)
    truth = scenes(rng, 30)
    one, other = segmented(rng, truth, 0.7), segmented(rng, truth, 0.7)
    found = effect_over_images("miou", [one, other], [other, one], 0.01, 100)
    assert found.change == pytest.approx(0)
    assert found.low == pytest.approx(0)


def test_ratios_are_compared_by_their_logarithms_and_errors():
    found = effect_on_ratio(ratio(1.10, 0.02), ratio(1.21, 0.02), 0.01)
    assert found.change == pytest.approx(0.11)
    # At the records' own confidence the two half widths add as errors do.
    reach = 0.02 * np.sqrt(2)
    assert found.low == pytest.approx(1.10 * (1.1 * np.exp(-reach) - 1))
    assert found.high == pytest.approx(1.10 * (1.1 * np.exp(reach) - 1))
    seen = reach * (stats.norm.ppf(0.995) + stats.norm.ppf(0.8)) / stats.norm.ppf(0.995)
    assert found.detectable == pytest.approx(1.10 * np.expm1(seen))


def test_ratios_without_an_interval_have_none():
    bare = ratio(1.1, 0.02).model_copy(update={"interval": None})
    found = effect_on_ratio(bare, ratio(1.3, 0.02), 0.01)
    assert (found.low, found.high, found.detectable) == (None, None, None)


def test_counts_are_compared_to_the_last_one():
    assert exact_effect(14_649_000, 14_649_001).change == 1
    assert exact_effect(1.8931, 1.8931 * (1 + 1e-15)).change == 0
