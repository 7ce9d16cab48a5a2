"""What a classification training minimises, and what it does around each update of the weights."""

from __future__ import annotations

import torch
from torch import nn


class Objective(nn.Module):
    """The criterion on a model's logits. Its forward pass is what several processes share.

    Args:
        model: the classifier that learns.
        criterion: of logits (B, classes) and labels.

    Attributes:
        backbone: parameters that learn at ``backbone_lr_share`` of the learning rate.
        average: a model with the moving average of the weights, where one is kept; not to be trained itself.
    """

    backbone: tuple[nn.Parameter, ...] = ()
    backbone_lr_share: float = 1.0

    def __init__(self, model: nn.Module, criterion: nn.Module):
        super().__init__()
        self.model, self.criterion = model, criterion

    @property
    def average(self) -> nn.Module | None:
        return None

    def begin_step(self, epoch: int) -> None:
        """Before the forward pass of a step in the 0-based ``epoch``."""

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of images (B, 3, H, W) and labels, (B,) or soft ones (B, classes)."""
        return self.criterion(self.model(images), labels)

    def before_update(self) -> None:
        """With the gradients there, before they are clipped."""

    def after_update(self) -> None:
        """With the weights updated."""
