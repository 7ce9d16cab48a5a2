"""ViT and DeiT, as timm builds them; any input size works.

Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021, https://arxiv.org/abs/2010.11929. Touvron et al.,
*Training Data-Efficient Image Transformers & Distillation through Attention*, ICML 2021,
https://arxiv.org/abs/2012.12877.
"""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from hafabench.config.catalog import ModelSpec
from hafabench.models.registry import ModelFamily, TimmModels
from hafabench.models.scaling import scaled_depths, scaled_dims


def _build_scaled(spec: ModelSpec, full: Any, **kwargs: Any) -> nn.Module:
    (dim,) = scaled_dims([full.embed_dim], [full.blocks[0].attn.num_heads], spec.width)
    (depth,) = scaled_depths([len(full.blocks)], spec.depth)
    return timm.create_model(spec.architecture, **{"embed_dim": dim, "depth": depth, **kwargs})


FAMILY = ModelFamily("vit", timm=TimmModels(scaled=_build_scaled, options={"dynamic_img_size": True}))
