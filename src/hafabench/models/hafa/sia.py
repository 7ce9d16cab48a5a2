"""Semantic information aggregation (SIA): tokens clustered by similarity and merged by importance. HAFA section 3.3.

One class implements all versions. They differ in the source of the keys and values of the stage's first block:

- ``separate``: grid tokens from a strided depthwise path (the published code; paper, Figure 2);
- ``self``: the cluster tokens themselves (``qkv`` of Table 5);
- ``tokens``: all tokens before merging (TCFormer, Zeng et al., CVPR 2022; the SIA-SIA rows of Table 4);
- ``paper``: all tokens before merging, at full resolution, with one convolutional position encoding each for keys and
  values (the text around equation 6). The paper does not define the encoding. This implementation uses CvT's
  convolutional projection: a 3x3 depthwise convolution without bias and a BatchNorm, between the block's norm and the
  linear projection. The strided map is not added.

The model's fidelity ``paper`` selects the last source and changes nothing else: distances are divided by sqrt(C) with
both fidelities (see `hafabench.models.hafa.clustering`).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from hafabench.models.hafa.clustering import dpc_knn
from hafabench.models.hafa.tokens import EPS, Aggregation, ClusterTable, Context, Tokens
from hafabench.models.precision import (
    SingleConv2d,
    SingleLayerNorm,
    SingleLinear,
    at_least_single,
    without_autocast,
)

KeyValueSource = Literal["separate", "self", "tokens", "paper"]
RATIO = 0.25
NEIGHBOURS = 5


class PositionEncoding(nn.Sequential):
    """3x3 depthwise convolution without bias, then BatchNorm: CvT's (Wu et al., ICCV 2021) implicit positions."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)


class SemanticInformationAggregation(nn.Module):
    """SIA: N tokens to ceil(N / 4) cluster tokens.

    Args:
        in_dim: Channels of the input.
        out_dim: Channels of the output.
        key_values: Source of the first block's keys and values; see the module's documentation.
        score_in_attention: Whether that block adds the tokens' importance scores to its attention logits.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        key_values: KeyValueSource = "separate",
        score_in_attention: bool = False,
    ):
        super().__init__()
        self.key_values = key_values
        self.score_in_attention = score_in_attention
        self.map_conv = SingleConv2d(in_dim, out_dim, 3, stride=2, padding=1)
        self.token_proj = SingleLinear(in_dim, out_dim, bias=False)
        self.token_norm = SingleLayerNorm(out_dim)
        self.score = SingleLinear(out_dim, 1)
        if key_values == "separate":
            self.kv_proj = nn.Linear(in_dim, out_dim, bias=False)
            self.kv_depthwise = nn.Conv2d(out_dim, out_dim, 5, stride=2, padding=2, groups=out_dim)
            self.kv_pointwise = nn.Conv2d(out_dim, out_dim, 1)
            self.kv_norm = nn.LayerNorm(out_dim)
        elif key_values == "paper":
            self.key_encoding = PositionEncoding(out_dim)
            self.value_encoding = PositionEncoding(out_dim)
        self.register_load_state_dict_pre_hook(_accept_pointwise_convolutions)

    def forward(self, tokens: Tokens) -> Aggregation:
        """Map tokens (B, N, C) to cluster tokens (B, ceil(N/4), C'); the sides of the grid are halved, rounded up.

        The tokens that are clustered, their scores and the weighted means are computed in at least single precision
        (see `hafabench.models.precision`). Cluster tokens have the dtype of the input, scores remain unrounded.
        """
        coarse = convolve_windows(self.map_conv, tokens.to_map())
        x = self.token_norm(self.token_proj(tokens.x) + tokens.gather_map(coarse))
        scores = self.score(x)
        grid = (coarse.shape[-2], coarse.shape[-1])
        num_clusters = max(math.ceil(x.shape[1] * RATIO), 1)
        assignment = dpc_knn(x.detach(), num_clusters, NEIGHBOURS)
        merged = merge_tokens(x, scores.exp(), assignment, num_clusters).to(tokens.x.dtype)
        if tokens.table is None:
            table = ClusterTable(assignment, tokens.grid, num_clusters)
        else:
            table = tokens.table.merge(assignment, num_clusters)
        context = self._context(tokens, coarse, tokens.with_x(x.to(tokens.x.dtype)), scores)
        return Aggregation(Tokens(merged, grid, table), context)

    def _context(
        self, before: Tokens, coarse: torch.Tensor, unmerged: Tokens, scores: torch.Tensor
    ) -> Context | None:
        added_scores = scores if self.score_in_attention else None
        match self.key_values:
            case "separate":
                source = Tokens.from_map(self.kv_depthwise(before.with_x(self.kv_proj(before.x)).to_map()))
                pointwise = F.linear(source.x, self.kv_pointwise.weight.flatten(1), self.kv_pointwise.bias)
                source = source.with_x(pointwise + Tokens.from_map(coarse).x.to(pointwise.dtype))
                if added_scores is not None:
                    # Partial windows at the border of odd grids are averaged over the positions that exist.
                    score_map = before.with_x(added_scores).to_map()
                    added_scores = Tokens.from_map(F.avg_pool2d(score_map, 2, ceil_mode=True)).x
                return Context(source.with_x(self.kv_norm(source.x)), added_scores)
            case "tokens":
                return Context(unmerged, added_scores)
            case "paper":
                return Context(unmerged, added_scores, (self.key_encoding, self.value_encoding))
        return None


def convolve_windows(conv: SingleConv2d, x: torch.Tensor) -> torch.Tensor:
    """Convolve a channels-last map (B, C, H, W); on a CPU, by one matrix product over its windows.

    The result is float32, or float64 for a float64 map, also under autocast or in a half model.

    If there are more weights than map values, as in SIA (1.5 million and 63 thousand), a CPU's convolution spends
    half of its time on reordering the weights. The matrix product uses weights in channels-last order as they are.
    """
    if x.is_cuda:
        return conv(x)
    (kernel_y, kernel_x), (stride_y, stride_x) = conv.kernel_size, conv.stride
    pad_y, pad_x = (int(side) for side in conv.padding)
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, pad_x, pad_x, pad_y, pad_y))
    windows = rows.unfold(1, kernel_y, stride_y).unfold(2, kernel_x, stride_x).permute(0, 1, 2, 4, 5, 3)
    weight = at_least_single(conv.weight).permute(0, 2, 3, 1).flatten(1)
    bias = None if conv.bias is None else at_least_single(conv.bias)
    with without_autocast(x):
        return F.linear(at_least_single(windows.flatten(3)), weight, bias).permute(0, 3, 1, 2)


def merge_tokens(x: torch.Tensor, weight: torch.Tensor, assignment: torch.Tensor, num_clusters: int) -> torch.Tensor:
    """Return the weighted mean of each cluster's tokens.

    Args:
        x: Tokens (B, N, C).
        weight: Positive weights (B, N, 1).
        assignment: Cluster (B, N) of each token.
        num_clusters: Clusters of each sample.

    Returns:
        Cluster tokens (B, num_clusters, C) in the dtype of ``x``, computed in at least single precision. The
        denominator is the sum of weights + 1e-6.
    """
    batch, _, channels = x.shape
    dtype, x, weight = x.dtype, at_least_single(x), at_least_single(weight)
    cluster = assignment + torch.arange(batch, device=x.device).unsqueeze(1) * num_clusters
    cluster = cluster.flatten()
    total = weight.new_zeros(batch * num_clusters, 1).index_add_(0, cluster, weight.flatten(0, 1))
    share = weight.flatten(0, 1) / (total[cluster] + EPS)
    weighted = x.flatten(0, 1) * share.to(x.dtype)
    merged = x.new_zeros(batch * num_clusters, channels).index_add_(0, cluster, weighted)
    return merged.view(batch, num_clusters, channels).to(dtype)


def _accept_pointwise_convolutions(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """Accept `token_proj` and `kv_proj` as convolutions of kernel size 1, (out, in, 1), as in the published code."""
    for name in ("token_proj.weight", "kv_proj.weight"):
        weight = state_dict.get(prefix + name)
        if weight is not None and weight.ndim == 3:
            state_dict[prefix + name] = weight.squeeze(-1)
