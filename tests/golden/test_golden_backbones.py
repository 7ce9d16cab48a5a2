"""Narrow backbones load the published weights strictly and compute the same outputs."""

from __future__ import annotations

import pytest
import torch

from hafabench.models.hafa import clustering, sia
from hafabench.models.pvt import PyramidVisionTransformer
from hafabench.models.pvt_v2 import PyramidVisionTransformerV2
from tests.support.golden_arrays import TOLERANCE, dimensions, load, relative_error, weights

HAFA = ("grid", "laa", "laa", "sia")
GRID = ("grid", "grid", "grid", "grid")
TCFORMER = ("grid", "sia", "sia", "sia")


def pvt(arrays, mergers) -> PyramidVisionTransformer:
    model = PyramidVisionTransformer(dimensions(arrays), mergers, num_classes=int(arrays["num_classes"]))
    state = weights(arrays)
    # The arrays do not contain BatchNorm's batch counters.
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict(state | counters, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def tcformer_arrays():
    return load("tcformer_narrow")


def tcformer(arrays) -> PyramidVisionTransformerV2:
    model = PyramidVisionTransformerV2(dimensions(arrays), TCFORMER, num_classes=0)
    model.load_state_dict(weights(arrays), strict=True)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize(("name", "mergers"), [("pvt_narrow", GRID), ("pvt_hafa_narrow", HAFA)])
def test_pvt(name, mergers):
    arrays = load(name)
    model = pvt(arrays, mergers)
    assert sum(p.numel() for p in model.parameters()) == int(arrays["live_params"])
    assert relative_error(model(arrays["input"]), arrays["logits"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (sia, "RATIO", 0.3),
        (sia, "RATIO", 0.2),
        (sia, "NEIGHBOURS", 4),
        (clustering, "_density", lambda nearest, channels: torch.ones_like(nearest[..., 0])),
    ],
    ids=["more clusters", "fewer clusters", "fewer neighbours", "no density"],
)
def test_another_clustering_of_pvt_hafa_is_detected(module, name, value, monkeypatch):
    arrays = load("pvt_hafa_narrow")
    monkeypatch.setattr(module, name, value)
    assert relative_error(pvt(arrays, HAFA)(arrays["input"]), arrays["logits"]) > 10 * TOLERANCE


@torch.no_grad()
def test_tcformer(tcformer_arrays):
    arrays = tcformer_arrays
    model = tcformer(arrays)
    assert sum(p.numel() for p in model.parameters()) == int(arrays["live_params"])
    stages = model.forward_tokens(arrays["input"])
    for number, tokens in enumerate(stages, start=1):
        assert relative_error(tokens.to_map(), arrays[f"map{number}"]) < TOLERANCE
    for number, tokens in enumerate(stages[1:], start=2):
        assert torch.equal(tokens.assignment, arrays[f"assignment{number}"])
    assert stages[0].assignment is None
    assert relative_error(stages[-1].x, arrays["tokens4"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("ratio", [0.24, 0.26])
def test_another_ratio_of_tcformer_is_detected(ratio, tcformer_arrays, monkeypatch):
    monkeypatch.setattr(sia, "RATIO", ratio)
    tokens = tcformer(tcformer_arrays).forward_tokens(tcformer_arrays["input"])[1]
    assert not torch.equal(tokens.assignment, tcformer_arrays["assignment2"])
