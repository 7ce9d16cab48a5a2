"""HRNet, as timm builds it; it has no stochastic depth, and the paper uses it for classification only.

Wang et al., *Deep High-Resolution Representation Learning for Visual Recognition*, TPAMI 2020,
https://arxiv.org/abs/1908.07919.
"""

from __future__ import annotations

from hafabench.models.registry import ModelFamily, TimmModels

FAMILY = ModelFamily("hrnet", timm=TimmModels(drop_path=False))
