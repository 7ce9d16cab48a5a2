"""Transformer blocks of PVT and PVT-v2, for grid tokens and cluster tokens.

They are pre-norm blocks with spatial-reduction attention (PVT, Wang et al., ICCV 2021). There are three kinds of
feed-forward layers: PVT's, PVT-v2's with a depthwise convolution (Wang et al., CVMJ 2022), and TCFormer's, which
converts tokens to a map for that convolution and back (Zeng et al., CVPR 2022).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import nn

from hafabench.models.hafa.tokens import Context, Tokens
from hafabench.models.precision import at_least_single, without_autocast

MlpKind = Literal["plain", "depthwise", "token"]


class Attention(nn.Module):
    """Multi-head attention with spatial reduction of keys and values, which may come from another source.

    Args:
        dim: Channels.
        num_heads: Number of heads, which are contiguous groups of channels.
        sr_ratio: Kernel size and stride of the convolution that reduces keys and values; 1 for no reduction.
    """

    def __init__(self, dim: int, num_heads: int, sr_ratio: int = 1):
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, sr_ratio)
            self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tokens, context: Context | None = None) -> torch.Tensor:
        """Attend to ``context``, or to the tokens themselves if it is None.

        Args:
            tokens: Normalised tokens (B, N, C).
            context: Source of keys and values.

        Returns:
            Features (B, N, C).
        """
        source = tokens if context is None else context.tokens
        scores = None if context is None else context.scores
        keys = values = source.x
        if self.sr_ratio > 1:
            # The reduction runs on a map of the queries' size, also if the source has another grid.
            keys = values = self.norm(Tokens.from_map(self.sr(source.to_map(tokens.grid))).x)
            if scores is not None:
                score_map = source.with_x(scores).to_map(tokens.grid)
                scores = Tokens.from_map(F.avg_pool2d(score_map, self.sr_ratio)).x
        elif context is not None and context.encoders is not None:
            features = source.to_map()
            keys, values = (Tokens.from_map(encode(features)).x for encode in context.encoders)
        bias = None if scores is None else scores.transpose(1, 2).unsqueeze(1)
        return self.proj(self._attend(tokens.x, keys, values, bias))

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        batch, count, dim = queries.shape
        q = self._heads(self.q(queries))
        if keys is values:
            k, v = (self._heads(part) for part in self.kv(keys).chunk(2, dim=-1))
        else:
            weights, biases = self.kv.weight.chunk(2), self.kv.bias.chunk(2)
            k, v = (self._heads(F.linear(x, weights[i], biases[i])) for i, x in enumerate((keys, values)))
        x = F.scaled_dot_product_attention(q, k, v) if bias is None else _attend_with_bias(q, k, v, bias)
        return x.transpose(1, 2).reshape(batch, count, dim)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _attend_with_bias(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute attention with scores that are added to the logits, in at least single precision.

    Rounding a score of 10 to bfloat16 would change a token's weight by up to 3 %.

    Args:
        q: Queries (B, heads, N, C).
        k: Keys (B, heads, M, C).
        v: Values (B, heads, M, C).
        bias: Scores (B, 1, 1, M).

    Returns:
        Features (B, heads, N, C) in the dtype of the queries.
    """
    with without_autocast(q):
        query, key, value = (at_least_single(x) for x in (q, k, v))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype)).to(q.dtype)


class DepthwiseMap(nn.Module):
    """PVT-v2's 3x3 depthwise convolution between the linear layers, on grid tokens."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, tokens: Tokens) -> torch.Tensor:
        """Map tokens (B, N, C) to features (B, N, C)."""
        return Tokens.from_map(self.dwconv(tokens.to_map())).x


class ScaledSkip(nn.Module):
    """A weight (C, 1, 1) per channel, initialised like a depthwise convolution of kernel size 1: U(-1, 1)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, 1, 1).uniform_(-1, 1))

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Return ``branch`` plus weighted ``x``, both (B, N, C)."""
        return torch.addcmul(branch, x, self.weight.flatten())


class DepthwiseTokens(nn.Conv2d):
    """TCFormer's counterpart on tokens: a 3x3 depthwise convolution of their map, plus a scaled skip connection."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 3, padding=1, groups=dim)
        self.skip = ScaledSkip(dim)

    def forward(self, tokens: Tokens) -> torch.Tensor:  # type: ignore[override]  # a convolution for its names only
        """Map tokens (B, N, C) to features (B, N, C)."""
        return self.skip(tokens.x, tokens.gather_map(super().forward(tokens.to_map())))


class Mlp(nn.Module):
    """Feed-forward layer: linear, depthwise convolution unless ``plain``, GELU, linear.

    Args:
        dim: Channels of input and output.
        hidden_dim: Channels between the linear layers.
        kind: ``plain`` (PVT), ``depthwise`` (PVT-v2, grid tokens) or ``token`` (TCFormer, any tokens).
    """

    def __init__(self, dim: int, hidden_dim: int, kind: MlpKind):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        if kind != "plain":
            self.dwconv = DepthwiseMap(hidden_dim) if kind == "depthwise" else DepthwiseTokens(hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.kind = kind

    def forward(self, tokens: Tokens) -> torch.Tensor:
        """Map tokens (B, N, C) to features (B, N, C)."""
        x = self.fc1(tokens.x)
        if self.kind != "plain":
            x = self.dwconv(tokens.with_x(x))
        return self.fc2(F.gelu(x))


class Block(nn.Module):
    """Pre-norm transformer block: LayerNorm with eps 1e-6, stochastic depth per sample on both branches.

    Args:
        dim: Channels.
        num_heads: Heads of the attention.
        sr_ratio: Spatial reduction of the attention.
        mlp_ratio: Hidden channels of the feed-forward layer, divided by ``dim``.
        mlp: Kind of the feed-forward layer.
        drop_path: Probability of dropping a branch.
    """

    def __init__(
        self, dim: int, num_heads: int, sr_ratio: int, mlp_ratio: float, mlp: MlpKind, drop_path: float = 0.0
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, sr_ratio)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), mlp)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, tokens: Tokens, context: Context | None = None) -> Tokens:
        """Transform tokens. The first norm also applies to ``context``; the residual is the unnormalised query."""
        if context is not None:
            source = context.tokens.with_x(self.norm1(context.tokens.x))
            context = Context(source, context.scores, context.encoders)
        attended = self.attn(tokens.with_x(self.norm1(tokens.x)), context)
        tokens = tokens.with_x(tokens.x + self.drop_path(attended))
        return tokens.with_x(tokens.x + self.drop_path(self.mlp(tokens.with_x(self.norm2(tokens.x)))))
