"""HRNet, as timm builds it; it has no stochastic depth, and the paper uses it for classification only.

Wang et al., *Deep High-Resolution Representation Learning for Visual Recognition*, TPAMI 2020,
https://arxiv.org/abs/1908.07919.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import timm
from timm.models.hrnet import Bottleneck
from torch import nn

from hafabench.config.catalog import ModelSpec
from hafabench.models.registry import ModelFamily, TimmModels
from hafabench.models.scaling import scaled_channels, scaled_depths


def _build_scaled(spec: ModelSpec, full: Any, num_classes: int = 1000, **kwargs: Any) -> nn.Module:
    def scaled(channels: int) -> int:
        return scaled_channels(channels, spec.width)

    stages = {}
    for name in ("stage1", "stage2", "stage3", "stage4"):
        stage = getattr(full, f"{name}_cfg")
        channels = tuple(map(scaled, stage["num_channels"]))
        stages[name] = {
            **stage,
            "num_channels": channels,
            "num_blocks": scaled_depths(stage["num_blocks"], spec.depth),
        }
    stem = scaled(full.conv1.out_channels)
    net: Any = timm.create_model(spec.architecture, **{**stages, "stem_width": stem, **kwargs})
    # The channels of the second convolution and of the classification head are constants in timm.
    second = scaled(full.conv2.out_channels)
    net.conv2, net.bn2 = _convolution(stem, second, 3, stride=2, bias=False)
    (planes,), (blocks,) = stages["stage1"]["num_channels"], stages["stage1"]["num_blocks"]
    net.layer1 = net._make_layer(Bottleneck, second, planes, blocks)
    head = [scaled(channels) for channels in full.head_channels]
    outputs = [channels * Bottleneck.expansion for channels in head]
    net.head_channels, net.num_features = head, scaled(full.num_features)
    net.incre_modules = nn.ModuleList(
        net._make_layer(Bottleneck, before, planes, 1)
        for before, planes in zip(stages["stage4"]["num_channels"], head, strict=True)
    )
    net.downsamp_modules = nn.ModuleList(
        nn.Sequential(*_convolution(before, after, 3, stride=2), nn.ReLU(inplace=True))
        for before, after in pairwise(outputs)
    )
    net.final_layer = nn.Sequential(*_convolution(outputs[-1], net.num_features, 1), nn.ReLU(inplace=True))
    net.feature_info = [
        {**info, "num_chs": channels} for info, channels in zip(net.feature_info, [second, *outputs], strict=True)
    ]
    net.init_weights()
    net.reset_classifier(num_classes)
    return net


def _convolution(
    before: int, after: int, kernel: int, stride: int = 1, bias: bool = True
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Build a convolution and a batch norm.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        kernel: Side of the window.
        stride: Distance of the windows.
        bias: Whether the convolution has a bias.
    """
    convolution = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=bias)
    return convolution, nn.BatchNorm2d(after, momentum=0.1)


FAMILY = ModelFamily("hrnet", timm=TimmModels(scaled=_build_scaled, drop_path=False))
