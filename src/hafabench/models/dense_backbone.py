"""The interface of backbones for dense tasks, and its implementation by timm's models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from hafabench.models.hafa.tokens import Tokens

STRIDES = (4, 8, 16, 32)


@runtime_checkable
class DenseBackbone(Protocol):
    """A module with four stages, from the finest to the coarsest.

    ``hafabench.models.create(model, dense=True)`` returns one for every family with a feature pyramid.
    """

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels C_i of each stage."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the stages, in pixels of the image."""

    def forward_tokens(self, x: torch.Tensor) -> list[Tokens]:
        """Map images (B, 3, H, W) to the tokens (B, N_i, C_i) of each stage, which may be clusters."""

    def forward_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map images (B, 3, H, W) to a map (B, C_i, H / stride_i, W / stride_i) of each stage.

        Sides that the stride does not divide are rounded up, or down if a backbone leaves out partial windows.
        """


class TimmDenseBackbone(nn.Module):
    """A model of timm as a `DenseBackbone`.

    Args:
        body: timm's model. Modules that only classification needs are removed; parameters keep timm's names.
        levels: timm's feature levels of strides 4, 8, 16 and 32.

    Attributes:
        channels: Channels of the four maps.
        strides: Strides of the four maps, in pixels.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    # timm's interface to feature maps is not part of any type.
    def __init__(self, body: Any, levels: Sequence[int]):
        super().__init__()
        self.body = body
        self.levels = list(levels)
        self.body.prune_intermediate_layers(self.levels, prune_norm=True)
        info = [self.body.feature_info[level] for level in self.levels]
        self.channels = tuple(level["num_chs"] for level in info)
        self.strides = tuple(level["reduction"] for level in info)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map images (B, 3, H, W) to four maps (B, C_i, h_i, w_i)."""
        return self.body.forward_intermediates(x, indices=self.levels, intermediates_only=True)

    def forward_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map images (B, 3, H, W) to four maps (B, C_i, h_i, w_i)."""
        return self(x)

    def forward_tokens(self, x: torch.Tensor) -> list[Tokens]:
        """Return the four maps as grid tokens (B, N_i, C_i)."""
        return [Tokens.from_map(feature) for feature in self(x)]
