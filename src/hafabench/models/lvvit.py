"""LV-ViT-S: a vision transformer with a convolutional stem, halved residual branches and a classifier on every token.

Jiang et al., *All Tokens Matter: Token Labeling for Training Better Vision Transformers*, NeurIPS 2021,
https://arxiv.org/abs/2104.10858. Implemented based on timm's `VisionTransformer`.

For each class, the logit is that of the class token plus half the largest logit of the patch tokens. The published
training supervises the patch tokens with labels from another network. Such labels are not used here, and the patch
tokens are trained through the logits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.mlp import Mlp
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.init import trunc_normal_

from hafabench.config.catalog import ModelSpec
from hafabench.errors import UserError
from hafabench.models.precision import at_least_single
from hafabench.models.pyramid import check_input
from hafabench.models.registry import ModelFamily, OwnModels, create
from hafabench.models.scaling import scaled_channels, scaled_depths, scaled_dims

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "lvvit_small": {"embed_dim": 384, "depth": 16, "num_heads": 6, "mlp_ratio": 3.0},
}
PATCH = 16
_STEM_WIDTH = 64
# Avoids a division by zero in masked attention.
_EPS = 1e-6


class Stem(nn.Sequential):
    """Three convolutions with batch norm and ReLU: image (B, 3, H, W) to (B, width, H/2, W/2), rounded up."""

    def __init__(self, in_chans: int, width: int = _STEM_WIDTH):
        layers: list[nn.Module] = []
        for channels, kernel, stride in ((in_chans, 7, 2), (width, 3, 1), (width, 3, 1)):
            layers += [
                nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)
        # timm's `HybridEmbed` reads it.
        self.num_features = width


def embed_patches(
    img_size: int | tuple[int, int], in_chans: int, patch_size: int, stem_width: int = _STEM_WIDTH, **kwargs: Any
) -> HybridEmbed:
    """Build the stem and patches of 8 x 8 of its pixels. Partial patches at the border are padded with zeros.

    Args:
        img_size: Side of the images, or (height, width), in pixels.
        in_chans: Channels of the images.
        patch_size: Side of a patch in pixels of the image, 16.
        stem_width: Channels of the stem.
        **kwargs: Other arguments of timm's `HybridEmbed`.
    """
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    kwargs["dynamic_img_pad"] = True
    return HybridEmbed(
        Stem(in_chans, stem_width),
        img_size=img_size,
        patch_size=patch_size // 2,
        feature_size=((height + 1) // 2, (width + 1) // 2),
        feature_ratio=2,
        in_chans=in_chans,
        **kwargs,
    )


class MaskedAttention(Attention):
    """timm's attention with a differentiable mask of tokens."""

    def forward(  # type: ignore[override]  # the mask is a differentiable one of tokens, not timm's of attention
        self, x: torch.Tensor, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map tokens (B, N, C) to (B, N, C).

        With a mask, the exponentials and their sums are float32, or float64 for float64 tokens.

        Args:
            x: Tokens (B, N, C).
            keep: Mask (B, N): 1 for tokens that all tokens attend to, 0 for tokens that only attend to themselves.
                None keeps all tokens.
        """
        if keep is None:
            return super().forward(x)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        logits = at_least_single((q * self.scale) @ k.transpose(-2, -1))
        itself = torch.eye(x.shape[1], device=x.device, dtype=keep.dtype)
        mask = keep[:, None, None, :]
        mask = mask + (1 - mask) * itself
        weights = (logits - logits.amax(dim=-1, keepdim=True)).exp() * mask
        weights = (weights + _EPS / x.shape[1]) / (weights.sum(dim=-1, keepdim=True) + _EPS)
        attended = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return self.proj(attended)


class Block(nn.Module):
    """Pre-norm transformer block with halved residual branches; `VisionTransformer` of timm passes the arguments.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the feed-forward layer, divided by ``dim``.
        qkv_bias: Whether the projections to queries, keys and values have a bias.
        drop_path: Probability of dropping a branch.
        norm_layer: Class of the norms.
        **_unused: Other arguments that timm passes.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
        norm_layer: type[nn.Module],
        **_unused: Any,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = MaskedAttention(dim, num_heads, qkv_bias=qkv_bias)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Map tokens (B, N, C) to (B, N, C); ``keep`` (B, N) is the mask of the attention."""
        x = x + self.drop_path1(self.attn(self.norm1(x), keep)) / 2
        return x + self.drop_path2(self.mlp(self.norm2(x))) / 2


class LVViT(VisionTransformer):
    """LV-ViT for images of 32 x 32 pixels or more; arguments are those of timm's `VisionTransformer`.

    Args:
        stem_width: Channels of the stem.
        **kwargs: Arguments of timm's `VisionTransformer`.

    Raises:
        UserError: For a pooling other than ``token`` (class token) and ``""`` (none).
    """

    cls_token: nn.Parameter

    def __init__(self, stem_width: int = _STEM_WIDTH, **kwargs: Any):
        _check_pooling(kwargs.get("global_pool", "token"))
        super().__init__(
            patch_size=PATCH,
            qkv_bias=False,
            dynamic_img_size=True,
            embed_layer=partial(embed_patches, stem_width=stem_width),
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            block_fn=Block,
            **kwargs,
        )
        trunc_normal_(self.cls_token, std=0.02)
        self.aux_head = self._token_classifier()

    def _token_classifier(self) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        head = nn.Linear(self.embed_dim, self.num_classes, device=self.cls_token.device)
        trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, in_chans, H, W) to class and patch tokens with their positions (B, 1 + N, C)."""
        check_input(x)
        return self._pos_embed(self.patch_embed(x))

    def forward_features(  # type: ignore[override]  # timm's attention masks are not supported
        self, x: torch.Tensor
    ) -> torch.Tensor:
        """Map images (B, in_chans, H, W) to tokens (B, 1 + N, C) after the last norm, class token first."""
        check_input(x)
        return super().forward_features(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # as for `forward_features`
        """Map images (B, in_chans, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))

    def classify(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map tokens (B, 1 + N, C) to the class token's logits (B, classes) and the patch tokens' (B, N, classes)."""
        return self.head(x[:, 0]), self.aux_head(x[:, 1:])

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map tokens (B, 1 + N, C) to logits (B, classes).

        With ``pre_logits`` or without a classifier, return the class token (B, C), or all tokens without pooling.
        """
        if pre_logits or not self.num_classes:
            return x[:, 0] if self.global_pool else x
        logits, token_logits = self.classify(x)
        return logits + token_logits.amax(dim=1) / 2

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace both classifiers, the class token's and the patch tokens'."""
        _check_pooling(self.global_pool if global_pool is None else global_pool)
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = self._token_classifier()


def _check_pooling(global_pool: str) -> None:
    if global_pool not in ("token", ""):
        raise UserError(f"global_pool={global_pool!r} is not supported by LV-ViT; expected one of 'token', ''")


def _build(spec: ModelSpec, **kwargs: Any) -> LVViT:
    return LVViT(**{**scaled_arguments(ARCHITECTURES[spec.architecture], spec), **kwargs})


def scaled_arguments(full: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments of `LVViT` at a model's width and depth.

    Args:
        full: The arguments in full size; one of `ARCHITECTURES`.
        spec: The model.
    """
    (dim,) = scaled_dims([full["embed_dim"]], [full["num_heads"]], spec.width)
    (depth,) = scaled_depths([full["depth"]], spec.depth)
    stem_width = scaled_channels(_STEM_WIDTH, spec.width)
    return {**full, "embed_dim": dim, "depth": depth, "stem_width": stem_width}


FAMILY = ModelFamily(
    "lvvit", own=OwnModels(_build, first_conv="patch_embed.backbone.0", classifier=("head", "aux_head"))
)
default_cfgs = FAMILY.default_cfgs()


@register_model
def lvvit_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """LV-ViT-S."""
    return create("lvvit_small", pretrained=pretrained, **kwargs)
