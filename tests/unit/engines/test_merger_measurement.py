"""What mergers do: agreement with fixed windows against known values, and shifts of sampling points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import comb

from hafabench.config.catalog import CATALOG, derive
from hafabench.engines.merger_measurement import agreement, fixed_windows, merger_facts
from hafabench.models import create
from hafabench.models.hafa import LocalAdaptiveAggregation
from hafabench.results.record import MergerFacts, MergerMeasurement

# The examples in scikit-learn's documentation of `adjusted_rand_score`.
DOCUMENTED = [
    ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),
    ([0, 0, 1, 1], [1, 1, 0, 0], 1.0),
    ([0, 0, 1, 2], [0, 0, 1, 1], 0.571428571),
    ([0, 0, 1, 1], [0, 0, 1, 2], 0.571428571),
    ([0, 0, 0, 0], [0, 1, 2, 3], 0.0),
    ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),
]


@pytest.mark.parametrize(("clusters", "windows", "expected"), DOCUMENTED)
def test_the_adjusted_rand_index_has_the_documented_values(clusters, windows, expected):
    assert agreement(np.array(clusters), np.array(windows))[0] == pytest.approx(expected)


def test_the_agreement_counts_pairs_and_ignores_the_numbers_of_clusters():
    random = np.random.default_rng(0)
    clusters, windows = random.integers(0, 7, 60), np.arange(60) // 4
    same = [(clusters[i] == clusters[j], windows[i] == windows[j]) for i in range(60) for j in range(i + 1, 60)]
    both, one, two = (sum(found) for found in zip(*[(a and b, a, b) for a, b in same], strict=True))
    chance = one * two / comb(60, 2)
    expected = ((both - chance) / ((one + two) / 2 - chance), both / two)
    assert agreement(clusters, windows) == pytest.approx(expected)
    assert agreement(random.permutation(7)[clusters], windows) == pytest.approx(expected)


def test_independent_divisions_agree_by_chance_only():
    random = np.random.default_rng(1)
    indices = [agreement(random.integers(0, 16, 256), np.arange(256) // 16)[0] for _ in range(200)]
    assert np.mean(indices) == pytest.approx(0, abs=0.003)


@pytest.mark.parametrize("size", [(16, 16), (18, 18), (9, 7), (43, 22), (1, 5)])
def test_windows_are_those_of_repeated_halving(size):
    grids = [size]
    for _ in range(3):
        grids.append(tuple(-(-side // 2) for side in grids[-1]))
    for halvings, grid in enumerate(grids):
        # Every position of the last grid covers two rows and columns of the one before it.
        windows = np.arange(grid[0] * grid[1]).reshape(grid)
        for height, width in reversed(grids[:halvings]):
            windows = windows.repeat(2, 0).repeat(2, 1)[:height, :width]
        assert fixed_windows(size, halvings).tolist() == windows.ravel().tolist()


def build(mergers, base="pvt_v2_b1"):
    return create(derive(CATALOG[base], "small", mergers=mergers, width=0.125), num_classes=3).eval()


def measured(model, mergers, side):
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return merger_facts(model, mergers, lambda model, index: model(images[index : index + 1]), len(images))


@pytest.mark.parametrize("side", [64, 72])
@pytest.mark.parametrize("kinds", [("sia", "sia", "sia"), ("laa", "sia", "sia"), ("laa", "laa", "sia")])
def test_every_stage_with_laa_or_sia_is_measured(kinds, side):
    torch.manual_seed(0)
    mergers = ("grid", *kinds)
    model = build(mergers)
    facts = measured(model, mergers, side)
    assert [(one.stage, one.merger) for one in facts] == list(zip((2, 3, 4), kinds, strict=True))
    for one in facts:
        if one.merger == "sia":
            # Random weights already form most of the few large windows of a late stage.
            assert -1 <= one.adjusted_rand_index <= 1
            assert 0 < one.window_pairs <= 1
        else:
            assert one.mean_shift == 0, "the offsets begin at zero"


@pytest.mark.parametrize("base", ["pvt_tiny", "swin_tiny"])
def test_other_backbones_are_measured_in_the_same_way(base):
    mergers = ("grid", "laa", "laa", "sia")
    facts = measured(build(mergers, base), mergers, 72)
    assert [(one.stage, one.merger) for one in facts] == [(2, "laa"), (3, "laa"), (4, "sia")]


def test_models_without_laa_and_sia_have_no_measurement():
    assert measured(build(("grid",) * 4), ("grid",) * 4, 64) == []


def test_clusters_that_are_the_windows_agree_completely(monkeypatch):
    def windows(x, clusters, _k):
        side = int(x.shape[1] ** 0.5)
        rows, columns = torch.meshgrid(torch.arange(side) // 2, torch.arange(side) // 2, indexing="ij")
        return (rows * (side // 2) + columns).flatten().expand(len(x), -1).contiguous()

    monkeypatch.setattr("hafabench.models.hafa.sia.dpc_knn", windows)
    mergers = ("grid", "sia", "sia", "sia")
    model = build(mergers)
    for one in measured(model, mergers, 64):
        assert (one.adjusted_rand_index, one.window_pairs) == (1, 1)


def test_the_shift_is_the_length_of_the_offsets():
    mergers = ("grid", "laa", "laa", "sia")
    model = build(mergers)
    laa = [module for module in model.modules() if isinstance(module, LocalAdaptiveAggregation)]
    with torch.no_grad():
        laa[0].offset.bias.copy_(torch.tensor([3.0, 4.0]).repeat(len(laa[0].offset.bias) // 2))
    shifts = [one.mean_shift for one in measured(model, mergers, 64) if one.merger == "laa"]
    assert shifts == pytest.approx([5, 0])


@pytest.mark.parametrize(
    "values",
    [{"merger": "sia", "mean_shift": 1.0}, {"merger": "laa"}, {"merger": "sia", "adjusted_rand_index": 0.5},
     {"merger": "sia", "adjusted_rand_index": 1.5, "window_pairs": 0.5}],
)  # fmt: skip
def test_a_record_contains_the_measurements_of_its_kind_of_merger(values):
    with pytest.raises(ValidationError):
        MergerFacts(stage=4, **values)


SHIFT = {"stage": 2, "merger": "laa", "mean_shift": 1.0}
CLUSTERS = {"stage": 4, "merger": "sia", "adjusted_rand_index": 0.5, "window_pairs": 0.75}


def test_lines_say_what_is_unknown():
    known = MergerMeasurement(images=2, before=[SHIFT, CLUSTERS], after=[SHIFT, CLUSTERS])
    assert [line.count("before") for line in known.lines] == [1, 2]
    unknown = MergerMeasurement(images=2, after=[SHIFT, CLUSTERS], no_before="the file does not exist")
    assert list(unknown.lines) == [
        "stage 2, LAA: mean shift 1.000 positions (before training unknown)",
        "stage 4, SIA: adjusted Rand index with the fixed windows 0.500 (before training unknown), "
        "75.0% of window pairs in one cluster (before unknown)",
        "mergers were not measured before the training: the file does not exist",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"before": [SHIFT], "after": [SHIFT, CLUSTERS]},
        {"before": [CLUSTERS], "after": [{**SHIFT, "stage": 4}]},
        {"before": [CLUSTERS, SHIFT], "after": [CLUSTERS, SHIFT]},
        {"before": [SHIFT, SHIFT], "after": [SHIFT, SHIFT]},
        {"before": [], "after": []},
        {"after": [SHIFT]},
        {"before": [SHIFT], "after": [SHIFT], "no_before": "the file does not exist"},
    ],
)
def test_a_record_measures_the_same_mergers_before_and_after_or_says_why_not(values):
    with pytest.raises(ValidationError):
        MergerMeasurement(images=2, **values)
