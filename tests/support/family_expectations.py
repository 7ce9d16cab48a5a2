"""What holds for the models of one family only. A family without an entry is checked for what all families share."""

from __future__ import annotations

import math

import torch

from hafabench.models.dense_backbone import STRIDES
from hafabench.models.hafa.laa import DeformableConv

# Whether stages pad partial windows or leave them out. A family without an entry may do either.
PADS_PARTIAL_WINDOWS = {"pvt": False, "pvt_v2": True, "swin": True, "resnet": True, "hrnet": True}

# Eps of the norms in blocks, at the end of stages and in front of the classifier.
NORM_EPS = {"pvt": 1e-6, "pvt_v2": 1e-6, "swin": 1e-5, "lvvit": 1e-5, "dynamicvit": 1e-5, "dynamic_swin": 1e-5}

# Families whose initial weights `initial_spread` describes.
INITIALISED = tuple(NORM_EPS)

# Families whose logits are more than the classifier applied to the pooled features.
CLASSIFY_EVERY_TOKEN = frozenset({"lvvit", "dynamicvit"})


def allowed_grids(family: str, height: int, width: int) -> list[list[tuple[int, int]]]:
    """Return the grids (h, w) that the four stages may have for an image of ``height`` x ``width`` pixels."""
    choices = [PADS_PARTIAL_WINDOWS[family]] if family in PADS_PARTIAL_WINDOWS else [False, True]
    return [[_grid(height, width, stride, pads) for stride in STRIDES] for pads in choices]


def _grid(height: int, width: int, stride: int, pads: bool) -> tuple[int, int]:
    return (-(-height // stride), -(-width // stride)) if pads else (height // stride, width // stride)


def initial_spread(family: str, module: torch.nn.Module) -> float | None:
    """Return the standard deviation of a module's initial weight; None if it is not specified for its class."""
    if isinstance(module, torch.nn.Linear):
        return 0.02
    if isinstance(module, DeformableConv) or (isinstance(module, torch.nn.Conv2d) and family != "pvt_v2"):
        # Kaiming-uniform with a = sqrt(5) is uniform within 1 / sqrt(fan in).
        return 1 / math.sqrt(3 * module.weight[0].numel())
    if isinstance(module, torch.nn.Conv2d):
        return math.sqrt(2 * module.groups / (math.prod(module.kernel_size) * module.out_channels))
    return None
