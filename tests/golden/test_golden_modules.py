"""DPC-KNN, LAA, SIA and the conversions between tokens and maps equal the published modules."""

from __future__ import annotations

import pytest
import torch

from hafabench.models.hafa import (
    ClusterTable,
    LocalAdaptiveAggregation,
    SemanticInformationAggregation,
    Tokens,
    dpc_knn,
)
from hafabench.models.hafa import clustering as clustering_module
from hafabench.models.hafa import sia as sia_module
from tests.support.golden_arrays import TOLERANCE, load, relative_error


def clusters_of(arrays: dict[str, torch.Tensor], k: int | None = None) -> torch.Tensor:
    return dpc_knn(arrays["x"], int(arrays["clusters"]), int(arrays["k"]) if k is None else k)


def semantic_aggregation() -> tuple[dict[str, torch.Tensor], SemanticInformationAggregation, Tokens]:
    arrays = load("sia")
    module = SemanticInformationAggregation(8, 16)
    names = module.state_dict().keys()
    module.load_state_dict({name: arrays[name] for name in names})
    return arrays, module.eval(), Tokens(arrays["x"], tuple(arrays["in_hw"].tolist()))


@pytest.mark.parametrize("name", ["dpc_knn", "dpc_knn_7x7"])
class TestClustering:
    def test_assignment(self, name):
        arrays = load(name)
        assert torch.equal(clusters_of(arrays), arrays["assignment"])

    def test_row_blocks_give_the_same(self, name, monkeypatch):
        arrays = load(name)
        monkeypatch.setattr(clustering_module, "MAX_WHOLE_TOKENS", 8)
        monkeypatch.setattr(clustering_module, "MAX_BLOCK", 49 * 7)
        assert torch.equal(clusters_of(arrays), arrays["assignment"])

    def test_another_number_of_neighbours_is_detected(self, name):
        arrays = load(name)
        assert not torch.equal(clusters_of(arrays, k=4), arrays["assignment"])

    @pytest.mark.parametrize(
        "density",
        [
            lambda nearest, channels: torch.ones_like(nearest[..., 0]),
            lambda nearest, channels: (-nearest.sum(-1) / channels).exp(),
            lambda nearest, channels: (-nearest.sort().values[..., 1:].mean(-1)).exp(),
        ],
        ids=["constant", "sum instead of mean", "without itself, unscaled"],
    )
    def test_another_density_is_detected(self, name, density, monkeypatch):
        arrays = load(name)
        monkeypatch.setattr(clustering_module, "_density", density)
        assert not torch.equal(clusters_of(arrays), arrays["assignment"])


def test_laa():
    arrays = load("laa")
    module = LocalAdaptiveAggregation(8, 16).eval()
    state = module.state_dict()
    state.update({name: arrays[name] for name in state if name in arrays})
    module.load_state_dict(state)
    assert {name for name in state if name not in arrays} == {"norm.num_batches_tracked"}
    tokens = module(Tokens.from_map(arrays["x"])).tokens
    assert tokens.grid == tuple(arrays["out_hw"].tolist())
    assert relative_error(tokens.x, arrays["y"]) < TOLERANCE


class TestSia:
    @torch.no_grad()
    def test_tokens_and_keys(self):
        arrays, module, tokens = semantic_aggregation()
        aggregation = module(tokens)
        assert aggregation.tokens.grid == aggregation.context.tokens.grid == tuple(arrays["out_hw"].tolist())
        assert torch.equal(aggregation.tokens.assignment, arrays["assignment"])
        assert relative_error(aggregation.tokens.x, arrays["q"]) < TOLERANCE
        assert relative_error(aggregation.context.tokens.x, arrays["kv"]) < TOLERANCE
        assert aggregation.context.scores is None

    @torch.no_grad()
    @pytest.mark.parametrize("ratio", [0.2, 0.26])
    def test_another_ratio_is_detected(self, ratio, monkeypatch):
        arrays, module, tokens = semantic_aggregation()
        monkeypatch.setattr(sia_module, "RATIO", ratio)
        # With 48 tokens these ratios give 10 or 13 clusters instead of 12.
        assert module(tokens).tokens.x.shape != arrays["q"].shape

    @torch.no_grad()
    def test_another_number_of_neighbours_is_detected(self, monkeypatch):
        arrays, module, tokens = semantic_aggregation()
        monkeypatch.setattr(sia_module, "NEIGHBOURS", 2)
        assert not torch.equal(module(tokens).tokens.assignment, arrays["assignment"])


def clustered(arrays: dict[str, torch.Tensor], grid: tuple[int, int]) -> Tokens:
    x = arrays["tokens"]
    table = ClusterTable(arrays["assignment"], tuple(arrays["init_hw"].tolist()), x.shape[1])
    return Tokens(x, grid, table)


class TestTokensAndMaps:
    def test_half_resolution(self):
        arrays = load("tokens_to_map")
        tokens = clustered(arrays, tuple(arrays["map_hw"].tolist()))
        features = tokens.to_map()
        assert relative_error(features, arrays["feature_map"]) < TOLERANCE
        assert relative_error(tokens.gather_map(arrays["feature_map"]), arrays["tokens_from_map"]) < TOLERANCE

    def test_other_ratios(self):
        arrays = load("tokens_to_map_ratios")
        tokens = clustered(arrays, (7, 7))
        assert relative_error(tokens.to_map(), arrays["map_7x7"]) < TOLERANCE
        assert relative_error(tokens.to_map((14, 7)), arrays["map_14x7"]) < TOLERANCE
        assert relative_error(tokens.gather_map(arrays["map_7x7"]), arrays["tokens_from_map_7x7"]) < TOLERANCE
