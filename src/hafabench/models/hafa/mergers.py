"""The mergers of PVT, PVT-v2 and Swin, behind one interface.

A merger converts the `Tokens` of one stage to an `Aggregation`: fewer `Tokens` with more channels and, for SIA, the
context that the next stage's first block attends to. `MergerStyle` describes the differences between backbones.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hafabench.models.hafa.laa import LocalAdaptiveAggregation
from hafabench.models.hafa.sia import KeyValueSource, SemanticInformationAggregation
from hafabench.models.hafa.tokens import Aggregation, Tokens


class GridMerger(nn.Module):
    """Patch embedding and baseline merger: strided convolution, then LayerNorm (eps 1e-5).

    Args:
        in_dim: Channels of the input.
        out_dim: Channels of the output.
        kernel: Kernel size of the convolution.
        stride: Stride of the convolution.
        padding: Padding of the convolution.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int, padding: int = 0):
        super().__init__()
        self.proj = nn.Conv2d(in_dim, out_dim, kernel, stride, padding)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, tokens: Tokens) -> Aggregation:
        """Map grid tokens (B, H*W, C) to grid tokens (B, Ho*Wo, C')."""
        merged = Tokens.from_map(self.proj(tokens.to_map()))
        return Aggregation(merged.with_x(self.norm(merged.x)))


@dataclass(frozen=True)
class MergerStyle:
    """Properties of a backbone's mergers.

    Attributes:
        kernel: Kernel size of the grid merger; its stride is 2.
        padding: Padding of the grid merger.
        laa_kernel: Side of LAA's window.
        laa_padding: Padding of LAA's window.
        laa_pad_odd: Whether LAA pads odd grids, so that its output is as large as that of the grid merger.
        score_in_attention: Whether SIA's importance scores are added to the attention logits.
    """

    kernel: int
    padding: int
    laa_kernel: int
    laa_padding: int
    laa_pad_odd: bool = False
    score_in_attention: bool = False


def key_value_source(mergers: tuple[str, ...], query_mode: str, fidelity: str) -> KeyValueSource:
    """Return the source of the keys and values after SIA.

    A model with several SIA mergers follows TCFormer, which has no separate path for keys and values, so that the
    query mode has no effect. A model with one SIA merger follows HAFA. With query mode ``qkv``, cluster tokens attend
    to each other; with ``q``, the source depends on ``fidelity``.
    """
    if mergers.count("sia") > 1:
        return "tokens"
    if query_mode == "qkv":
        return "self"
    return "paper" if fidelity == "paper" else "separate"


def build_merger(kind: str, in_dim: int, out_dim: int, style: MergerStyle, key_values: KeyValueSource) -> nn.Module:
    """Build one merger.

    Args:
        kind: One of `hafabench.config.catalog.MERGERS`.
        in_dim: Channels of the input.
        out_dim: Channels of the output.
        style: Properties of the backbone's mergers.
        key_values: Source of the keys and values after SIA.
    """
    match kind:
        case "grid":
            return GridMerger(in_dim, out_dim, style.kernel, 2, style.padding)
        case "conv":
            # The plain convolution of section 4.4. It is PVT-v2's own merger, and in PVT-v2 it equals `grid`.
            return GridMerger(in_dim, out_dim, 3, 2, 1)
        case "laa":
            return LocalAdaptiveAggregation(in_dim, out_dim, style.laa_kernel, style.laa_padding, style.laa_pad_odd)
        case "sia":
            return SemanticInformationAggregation(in_dim, out_dim, key_values, style.score_in_attention)
    raise ValueError(f"unknown merger {kind!r}")
