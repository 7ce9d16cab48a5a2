"""The one interface through which PVT, PVT-v2 and Swin get their merger, stage by stage.

A merger takes the `Tokens` of one stage and gives an `Aggregation`: fewer, wider `Tokens` of the next and, from SIA,
the context that the stage's first block attends to. What differs between backbones is a `MergerStyle`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hafabench.models.hafa.laa import LocalAdaptiveAggregation
from hafabench.models.hafa.sia import KeyValueSource, SemanticInformationAggregation
from hafabench.models.hafa.tokens import Aggregation, Tokens


class GridMerger(nn.Module):
    """Fixed window: strided convolution, then LayerNorm (eps 1e-5). Patch embedding and baseline merger.

    Args:
        in_dim, out_dim: channels before and after.
        kernel, stride, padding: of the convolution.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int, padding: int = 0):
        super().__init__()
        self.proj = nn.Conv2d(in_dim, out_dim, kernel, stride, padding)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, tokens: Tokens) -> Aggregation:
        """Grid tokens (B, H*W, C) to grid tokens (B, Ho*Wo, C')."""
        merged = Tokens.from_map(self.proj(tokens.to_map()))
        return Aggregation(merged.with_x(self.norm(merged.x)))


@dataclass(frozen=True)
class MergerStyle:
    """How a backbone's mergers look.

    Attributes:
        kernel, padding: of the grid merger (stride is 2).
        laa_kernel, laa_padding: of LAA's window.
        laa_pad_odd: whether LAA keeps the last row and column of odd grids, as the grid merger of the backbone does.
        score_in_attention: whether SIA's importance scores enter the attention logits.
    """

    kernel: int
    padding: int
    laa_kernel: int
    laa_padding: int
    laa_pad_odd: bool = False
    score_in_attention: bool = False


def key_value_source(mergers: tuple[str, ...], query_mode: str, fidelity: str) -> KeyValueSource:
    """Where SIA's first block takes K and V from.

    Several stages of SIA are TCFormer's construction, for every query mode: its merger has no separate K/V path. A
    sole SIA is HAFA's: query mode ``qkv`` attends among the cluster tokens, ``q`` as ``fidelity`` says.
    """
    if mergers.count("sia") > 1:
        return "tokens"
    if query_mode == "qkv":
        return "self"
    return "paper" if fidelity == "paper" else "separate"


def build_merger(kind: str, in_dim: int, out_dim: int, style: MergerStyle, key_values: KeyValueSource) -> nn.Module:
    """The merger ``kind``, one of `hafabench.config.catalog.MERGERS`, from ``in_dim`` to ``out_dim`` channels."""
    match kind:
        case "grid":
            return GridMerger(in_dim, out_dim, style.kernel, 2, style.padding)
        case "conv":
            # The plain convolution of section 4.4; PVT-v2's own merger, so that there it equals `grid`.
            return GridMerger(in_dim, out_dim, 3, 2, 1)
        case "laa":
            return LocalAdaptiveAggregation(in_dim, out_dim, style.laa_kernel, style.laa_padding, style.laa_pad_odd)
        case "sia":
            return SemanticInformationAggregation(in_dim, out_dim, key_values, style.score_in_attention)
    raise ValueError(f"unknown merger {kind!r}")
