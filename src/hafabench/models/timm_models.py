"""Models that timm has already (ResNet, ViT/DeiT, HRNet, PVT-v2, Swin), under the interfaces of this project."""

from __future__ import annotations

from functools import partial

import timm
import torch
from timm.layers import PatchEmbed
from torch import nn

from hafabench.config.catalog import ModelSpec
from hafabench.errors import UserError
from hafabench.models.hafa.tokens import Tokens

# Families whose features form a pyramid of strides 4, 8, 16 and 32, and which of timm's feature levels these are.
PYRAMIDS = {"resnet": (1, 2, 3, 4), "pvt_v2": (0, 1, 2, 3), "swin": (0, 1, 2, 3)}


def create_library_model(spec: ModelSpec, **kwargs) -> nn.Module:
    """timm's model for ``spec``; Swin and ViT are built so that any input size works.

    Raises:
        UserError: for stochastic depth in HRNet, which has none.
    """
    if spec.family == "swin":
        kwargs.setdefault("strict_img_size", False)
        kwargs.setdefault("embed_layer", partial(PatchEmbed, dynamic_img_pad=True))
    elif spec.family == "vit":
        kwargs.setdefault("dynamic_img_size", True)
    elif spec.family == "hrnet" and kwargs.pop("drop_path_rate", 0.0):
        raise UserError(f"model {spec.name!r} has no stochastic depth; expected drop_path: 0")
    return timm.create_model(spec.architecture, **kwargs)


class LibraryBackbone(nn.Module):
    """A library model as a dense backbone: maps of strides 4, 8, 16 and 32, given as `Tokens`.

    Args:
        spec: of a pyramid family.
        kwargs: for timm, ``drop_path_rate`` for instance.

    Attributes:
        body: timm's model without its classifier; its parameters carry timm's names.
        channels: of the four maps.

    Raises:
        UserError: for a family without a pyramid of features.
    """

    def __init__(self, spec: ModelSpec, **kwargs):
        super().__init__()
        if spec.family not in PYRAMIDS:
            expected = ", ".join(PYRAMIDS)
            raise UserError(
                f"model {spec.name!r} gives no feature pyramid, which dense tasks need: not of {expected}"
            )
        self.levels = PYRAMIDS[spec.family]
        self.body = create_library_model(spec, **{**kwargs, "num_classes": 0})
        self.body.prune_intermediate_layers(self.levels, prune_norm=True)
        self.channels: tuple[int, ...] = tuple(self.body.feature_info[level]["num_chs"] for level in self.levels)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Image (B, 3, H, W) to four maps (B, C, h, w)."""
        return self.body.forward_intermediates(x, indices=self.levels, intermediates_only=True)

    def forward_tokens(self, x: torch.Tensor) -> list[Tokens]:
        """The maps as grid tokens."""
        return [Tokens.from_map(feature) for feature in self(x)]
