"""LAA against torchvision's deformable convolution, SIA's ways to keys and values, the plugin's choices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import deform_conv2d

from hafabench.models.hafa import (
    GridMerger,
    LocalAdaptiveAggregation,
    MergerStyle,
    SemanticInformationAggregation,
    Tokens,
    build_merger,
    key_value_source,
)
from hafabench.models.hafa.laa import DeformableConv
from hafabench.models.hafa.sia import merge_tokens

WINDOWS = [(2, 0), (3, 1)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestDeformableConvolution:
    @pytest.mark.parametrize(("kernel", "padding"), WINDOWS)
    @pytest.mark.parametrize("size", [(8, 12), (9, 7), (3, 2)])
    @pytest.mark.parametrize("reach", [0.0, 0.7, 30.0], ids=["none", "near", "outside"])
    def test_equals_torchvision(self, kernel, padding, size, reach):
        module = DeformableConv(5, 6, kernel, 2, padding).double()
        x = torch.randn(2, 5, *size, dtype=torch.double, requires_grad=True)
        rows, columns = ((side + 2 * padding - kernel) // 2 + 1 for side in size)
        offset = reach * torch.randn(2, 2 * kernel**2, rows, columns, dtype=torch.double)
        offset.requires_grad_()
        found = module(x, offset)
        expected = deform_conv2d(x, offset, module.weight, module.bias, stride=2, padding=padding)
        torch.testing.assert_close(found, expected)
        if reach:  # At whole pixels the derivative has two sides.
            weight = torch.randn_like(found)
            inputs = (x, offset, module.weight)
            for ours, theirs in zip(
                torch.autograd.grad(found, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True
            ):
                torch.testing.assert_close(ours, theirs)

    def test_map_of_one_row(self):
        module = DeformableConv(2, 2, 3, 2, 1)
        x, offset = torch.randn(1, 2, 1, 1), torch.full((1, 18, 1, 1), 0.25)
        expected = deform_conv2d(x, offset, module.weight, module.bias, stride=2, padding=1)
        torch.testing.assert_close(module(x, offset), expected)


class TestLaa:
    def test_starts_as_the_ordinary_convolution(self):
        module = LocalAdaptiveAggregation(4, 6, 3, 1)
        x = torch.randn(2, 4, 8, 8)
        expected = F.conv2d(x, module.conv.weight, module.conv.bias, stride=2, padding=1)
        torch.testing.assert_close(module.conv(x, module.offset(x)), expected)

    def test_no_initialiser_of_convolutions_reaches_it(self):
        module = LocalAdaptiveAggregation(4, 6)
        before = {name: value.clone() for name, value in module.state_dict().items()}

        def disturb(part: nn.Module) -> None:
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.normal_(part.weight)

        module.apply(disturb)
        assert not module.offset.weight.any()
        assert not module.offset.bias.any()
        assert torch.equal(module.conv.weight, before["conv.weight"])

    @pytest.mark.parametrize(
        ("style", "expected"),
        [
            (MergerStyle(2, 0, 2, 0), (4, 3)),
            (MergerStyle(3, 1, 3, 1), (5, 4)),
            (MergerStyle(3, 1, 2, 0, laa_pad_odd=True), (5, 4)),
        ],
        ids=["PVT", "PVT-v2", "PVT-v2 with 2x2"],
    )
    def test_odd_sizes_come_out_as_from_the_grid_merger(self, style, expected):
        tokens = Tokens.from_map(torch.randn(2, 4, 9, 7))
        for kind in ("laa", "grid"):
            merged = build_merger(kind, 4, 6, style, "separate")(tokens).tokens
            assert merged.grid == expected
            assert merged.x.shape == (2, expected[0] * expected[1], 6)

    def test_completing_odd_sizes_changes_nothing_inside(self):
        plain, completed = LocalAdaptiveAggregation(4, 6), LocalAdaptiveAggregation(4, 6, pad_odd=True)
        completed.load_state_dict(plain.state_dict())
        nn.init.normal_(plain.offset.bias, std=0.3)
        completed.offset.load_state_dict(plain.offset.state_dict())
        x = Tokens.from_map(torch.randn(1, 4, 9, 7))
        inner = completed.eval()(x).tokens.to_map()[:, :, :4, :3]
        torch.testing.assert_close(inner, plain.eval()(x).tokens.to_map())


class TestSia:
    @pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 3), (1, 1)])
    @pytest.mark.parametrize("key_values", ["separate", "self", "tokens", "paper"])
    def test_shapes_on_any_grid(self, size, key_values):
        module = SemanticInformationAggregation(4, 8, key_values, score_in_attention=True)
        aggregation = module(Tokens.from_map(torch.randn(2, 4, *size)))
        count = size[0] * size[1]
        assert aggregation.tokens.x.shape == (2, -(-count // 4), 8)
        assert aggregation.tokens.grid == (-(-size[0] // 2), -(-size[1] // 2))
        assert aggregation.tokens.initial_grid == size
        assert aggregation.tokens.to_map().shape[-2:] == aggregation.tokens.grid
        context = aggregation.context
        if key_values == "self":
            assert context is None
            return
        rows = aggregation.tokens.grid if key_values == "separate" else size
        assert context.tokens.x.shape == (2, rows[0] * rows[1], 8)
        assert context.scores.shape == (2, rows[0] * rows[1], 1)
        assert (context.encoders is not None) == (key_values == "paper")

    def test_scores_of_odd_grids_are_averages_of_their_real_positions(self):
        module = SemanticInformationAggregation(4, 8, score_in_attention=True)
        tokens = Tokens.from_map(torch.randn(1, 4, 3, 3))
        raw = SemanticInformationAggregation(4, 8, "tokens", score_in_attention=True)
        raw.load_state_dict({name: value for name, value in module.state_dict().items() if "kv" not in name})
        scores = raw(tokens).context.scores[0].view(3, 3)
        pooled = module(tokens).context.scores[0].view(2, 2)
        expected = [[scores[:2, :2].mean(), scores[:2, 2].mean()], [scores[2, :2].mean(), scores[2, 2]]]
        torch.testing.assert_close(pooled, torch.tensor(expected))

    def test_weights_of_the_published_shape_load(self):
        module = SemanticInformationAggregation(4, 8)
        state = module.state_dict()
        published = {
            k: v.unsqueeze(-1) if k in ("token_proj.weight", "kv_proj.weight") else v for k, v in state.items()
        }
        other = SemanticInformationAggregation(4, 8)
        other.load_state_dict(published)
        assert all(torch.equal(other.state_dict()[name], value) for name, value in state.items())

    def test_the_assignment_has_no_gradient_but_everything_else_has(self):
        module = SemanticInformationAggregation(4, 8)
        aggregation = module(Tokens.from_map(torch.randn(2, 4, 6, 6)))
        assert not aggregation.tokens.assignment.requires_grad
        (aggregation.tokens.x.square().sum() + aggregation.context.tokens.x.square().sum()).backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_merge_is_the_weighted_mean():
    x, weight = torch.randn(2, 7, 3), torch.rand(2, 7, 1) + 0.1
    assignment = torch.tensor([[0, 1, 2, 0, 1, 2, 2], [2, 2, 2, 1, 0, 0, 0]])
    merged = merge_tokens(x, weight, assignment, 3)
    for sample in range(2):
        for cluster in range(3):
            chosen = assignment[sample] == cluster
            mean = (x[sample, chosen] * weight[sample, chosen]).sum(0) / weight[sample, chosen].sum()
            torch.testing.assert_close(merged[sample, cluster], mean, rtol=1e-4, atol=1e-5)


class TestPlugin:
    @pytest.mark.parametrize(
        ("mergers", "variant", "fidelity", "expected"),
        [
            (("grid", "laa", "laa", "sia"), "q", "published_code", "separate"),
            (("grid", "laa", "laa", "sia"), "q", "paper", "paper"),
            (("grid", "laa", "laa", "sia"), "qkv", "paper", "self"),
            (("grid", "conv", "conv", "sia"), "q", "published_code", "separate"),
            (("grid", "laa", "sia", "sia"), "q", "published_code", "tokens"),
        ],
    )
    def test_key_value_source(self, mergers, variant, fidelity, expected):
        assert key_value_source(mergers, variant, fidelity) == expected

    def test_plain_convolution_is_the_grid_merger_of_pvt_v2(self):
        conv, grid = (build_merger(kind, 4, 6, MergerStyle(3, 1, 3, 1), "separate") for kind in ("conv", "grid"))
        assert isinstance(conv, GridMerger)
        grid.load_state_dict(conv.state_dict())
        tokens = Tokens.from_map(torch.randn(1, 4, 5, 6))
        assert torch.equal(conv(tokens).tokens.x, grid(tokens).tokens.x)
