"""ViT and DeiT, as timm builds them; any input size works.

Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021, https://arxiv.org/abs/2010.11929. Touvron et al.,
*Training Data-Efficient Image Transformers & Distillation through Attention*, ICML 2021,
https://arxiv.org/abs/2012.12877.
"""

from __future__ import annotations

from hafabench.models.registry import ModelFamily, TimmModels

FAMILY = ModelFamily("vit", timm=TimmModels(options={"dynamic_img_size": True}))
