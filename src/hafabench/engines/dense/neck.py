"""The feature pyramid whose top-down path follows clusters, as in the published code; the paper does not mention it.

The neck of the published code has TCFormer's name (MTA) but computes an FPN (Lin et al., CVPR 2017) with one
difference. From a clustered stage to the previous one, every position receives the feature of the token it was merged
into, whereas an FPN uses the nearest position of the coarse map. `TokenFPN` is mmdet's and mmseg's FPN with that
difference; without a clustered stage they are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hafabench.models.hafa.tokens import Tokens


class TokenFPN(nn.Module):
    """Feature pyramid over stages whose features may be cluster tokens.

    Laterals are 1x1 and outputs 3x3 convolutions with bias and no norm, initialised as mmdet's FPN (Xavier uniform,
    bias 0).

    Args:
        in_channels: Channels of each stage.
        out_channels: Channels of every level.
        num_outs: Number of levels. Levels beyond the stages are stride-2 max-pools of the previous one (P6 in
            detection).
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_outs: int):
        super().__init__()
        self.num_outs = num_outs
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

    def forward(self, stages: Sequence[Tokens]) -> tuple[Tensor, ...]:
        """Return maps (B, ``out_channels``, h, w), one per level.

        Args:
            stages: One `Tokens` (B, N, C) per stage, finest first.
        """
        laterals = [_lateral(conv, tokens) for conv, tokens in zip(self.lateral_convs, stages, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            finer = laterals[level - 1]
            laterals[level - 1] = finer.with_x(finer.x + _upsample(laterals[level], finer))
        levels = [conv(tokens.to_map()) for conv, tokens in zip(self.fpn_convs, laterals, strict=True)]
        while len(levels) < self.num_outs:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return tuple(levels)


def _lateral(convolution: Any, tokens: Tokens) -> Tokens:
    """Apply a 1x1 convolution to tokens, which have no grid of their own if they are clusters."""
    if tokens.table is None:
        return Tokens.from_map(convolution(tokens.to_map()))
    return tokens.with_x(F.linear(tokens.x, convolution.weight.flatten(1), convolution.bias))


def _upsample(coarse: Tokens, fine: Tokens) -> Tensor:
    """Return the feature (B, N, C) of ``coarse`` that each token of ``fine`` receives."""
    if coarse.table is None:
        return F.interpolate(coarse.to_map(), size=fine.grid, mode="nearest").flatten(2).transpose(1, 2)
    return fine.gather_map(coarse.per_position())
