"""ResNet and ResNeXt, as timm builds them.

He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, https://arxiv.org/abs/1512.03385. Xie et al.,
*Aggregated Residual Transformations for Deep Neural Networks*, CVPR 2017, https://arxiv.org/abs/1611.05431.
"""

from __future__ import annotations

import math
from typing import Any

import timm
from torch import nn

from hafabench.config.catalog import ModelSpec
from hafabench.models.registry import ModelFamily, TimmModels
from hafabench.models.scaling import scaled_channels, scaled_depths


def _build_scaled(spec: ModelSpec, full: Any, **kwargs: Any) -> nn.Module:
    stages = [full.layer1, full.layer2, full.layer3, full.layer4]
    # timm's default, which none of its ResNets and ResNeXts changes.
    channels = [scaled_channels(stage, spec.width) for stage in (64, 128, 256, 512)]
    groups = full.layer1[0].conv2.groups
    if groups > 1:
        base_width = full.layer1[0].conv2.out_channels // groups
        if channels[0] * base_width < 64:
            # A group of the first stage would have no channel. It gets one, and there are fewer groups.
            groups = scaled_channels(groups * base_width, spec.width)
            base_width = math.ceil(64 / channels[0])
        kwargs = {"cardinality": groups, "base_width": base_width, **kwargs}
    # Without a deep stem, timm's stem always has 64 channels. All other parts of the two are equal.
    stem = scaled_channels(full.bn1.num_features, spec.width, multiple=2)
    sizes = {"channels": tuple(channels), "layers": scaled_depths([len(stage) for stage in stages], spec.depth)}
    net: Any = timm.create_model(
        spec.architecture, **{**sizes, "stem_type": "deep", "stem_width": stem // 2, **kwargs}
    )
    net.conv1 = nn.Conv2d(net.in_chans, stem, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    return net


FAMILY = ModelFamily(
    "resnet",
    timm=TimmModels(
        scaled=_build_scaled,
        pyramid_levels=(1, 2, 3, 4),
        # mmdet freezes the stem and the first stage, as in the counts of Table 3. mmseg trains all parameters.
        frozen_in_detection=("conv1", "bn1", "layer1"),
        # As in mmseg's configurations.
        sync_batch_norm=True,
    ),
)
