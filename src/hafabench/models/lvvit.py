"""LV-ViT-S: a vision transformer with a convolutional stem, halved residuals and a classifier on every token.

Jiang et al., *All Tokens Matter: Token Labeling for Training Better Vision Transformers*, NeurIPS 2021,
https://arxiv.org/abs/2104.10858. On timm's `VisionTransformer`.

Logits are those of the class token plus half the largest of the patch tokens' per class. The published training
supervises the patch tokens by the labels of another network; without these, here they are trained through the logits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import Attention, DropPath, HybridEmbed, Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.init import trunc_normal_

from hafabench.models.pyramid import check_input

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "lvvit_small": {"embed_dim": 384, "depth": 16, "num_heads": 6, "mlp_ratio": 3.0},
}
PATCH = 16
_STEM_WIDTH = 64
# Keeps the denominator of masked attention away from zero.
_EPS = 1e-6


class Stem(nn.Sequential):
    """Three convolutions with batch norm and ReLU: image (B, 3, H, W) to (B, 64, H/2, W/2), rounding up."""

    num_features = _STEM_WIDTH

    def __init__(self, in_chans: int):
        layers: list[nn.Module] = []
        for channels, kernel, stride in ((in_chans, 7, 2), (_STEM_WIDTH, 3, 1), (_STEM_WIDTH, 3, 1)):
            layers += [
                nn.Conv2d(channels, _STEM_WIDTH, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(_STEM_WIDTH),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


def embed_patches(img_size: int | tuple[int, int], in_chans: int, patch_size: int, **kwargs: Any) -> HybridEmbed:
    """The stem and patches of 8 x 8 of its pixels; a last, partial patch is completed with zeros."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    kwargs["dynamic_img_pad"] = True
    return HybridEmbed(
        Stem(in_chans),
        img_size=img_size,
        patch_size=patch_size // 2,
        feature_size=((height + 1) // 2, (width + 1) // 2),
        feature_ratio=2,
        in_chans=in_chans,
        **kwargs,
    )


class MaskedAttention(Attention):
    """timm's attention, which can leave tokens out by a mask and pass gradients to it."""

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens (B, N, C) to (B, N, C).

        Args:
            keep: (B, N), 1 for tokens that others attend to; 0 leaves a token to itself. None keeps all.
        """
        if keep is None:
            return super().forward(x)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        logits = ((q * self.scale) @ k.transpose(-2, -1)).float()
        itself = torch.eye(x.shape[1], device=x.device, dtype=keep.dtype)
        seen = keep[:, None, None, :]
        seen = seen + (1 - seen) * itself
        weights = (logits - logits.amax(dim=-1, keepdim=True)).exp() * seen
        weights = (weights + _EPS / x.shape[1]) / (weights.sum(dim=-1, keepdim=True) + _EPS)
        attended = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return self.proj(attended)


class Block(nn.Module):
    """Pre-norm transformer block whose branches count half; arguments as timm's `VisionTransformer` passes them."""

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
        """Tokens (B, N, C) to (B, N, C); ``keep`` as for the attention."""
        x = x + self.drop_path1(self.attn(self.norm1(x), keep)) / 2
        return x + self.drop_path2(self.mlp(self.norm2(x))) / 2


class LVViT(VisionTransformer):
    """LV-ViT; keyword arguments are those of timm's `VisionTransformer`. Any image size from 32 pixels on."""

    def __init__(self, **kwargs: Any):
        super().__init__(
            patch_size=PATCH,
            qkv_bias=False,
            dynamic_img_size=True,
            embed_layer=embed_patches,
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
        """Image (B, in_chans, H, W) to the class token and the patch tokens with their positions (B, 1 + N, C)."""
        check_input(x)
        return self._pos_embed(self.patch_embed(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to tokens (B, 1 + N, C) after the last norm, the class token first."""
        check_input(x)
        return super().forward_features(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))

    def classify(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, 1 + N, C) to the class token's logits (B, classes) and the patch tokens' (B, N, classes)."""
        return self.head(x[:, 0]), self.aux_head(x[:, 1:])

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Tokens (B, 1 + N, C) to logits (B, classes); ``pre_logits``: to the class token (B, C)."""
        if pre_logits or not self.num_classes:
            return x[:, 0]
        logits, token_logits = self.classify(x)
        return logits + token_logits.amax(dim=1) / 2

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace both classifiers, on the class token and on the patch tokens."""
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = self._token_classifier()
