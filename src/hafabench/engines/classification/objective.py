"""The objective of a classification training: its loss, and actions before and after each update of the weights."""

from __future__ import annotations

import torch
from torch import nn


class Objective(nn.Module):
    """The criterion applied to a model's logits. With several processes, its forward pass is distributed.

    Args:
        model: The classifier that is trained.
        criterion: Computes the loss from logits (B, classes) and labels.

    Attributes:
        backbone: Parameters that are trained at ``backbone_lr_share`` of the learning rate.
    """

    backbone: tuple[nn.Parameter, ...] = ()
    backbone_lr_share: float = 1.0

    def __init__(self, model: nn.Module, criterion: nn.Module):
        super().__init__()
        self.model, self.criterion = model, criterion

    @property
    def average(self) -> nn.Module | None:
        """A model with the moving average of the weights, if one is kept; it is not trained itself."""
        return None

    def begin_step(self, epoch: int) -> None:
        """Prepare the forward pass of a step in ``epoch``, counted from 0."""

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss of images (B, 3, H, W) and labels, either (B,) or soft labels (B, classes)."""
        return self.criterion(self.model(images), labels)

    def before_update(self) -> None:
        """Change the gradients before they are clipped."""

    def after_update(self) -> None:
        """Act on the updated weights."""
