"""The training objective of models that drop tokens (DynamicViT's).

Rao et al., *DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification*, NeurIPS 2021, section 3.3.
A trained classifier gives the starting weights of the parts that it shares with the model. It is also the teacher,
whose outputs on the same images the model imitates. The models are in `hafabench.models`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hafabench.engines.classification.model import classification_recipe
from hafabench.engines.classification.objective import Objective
from hafabench.errors import Problem, UserError
from hafabench.models.precision import at_least_single
from hafabench.models.token_pruning import Masked
from hafabench.runs.run import Run

Outputs = tuple[torch.Tensor, torch.Tensor]


class PruningObjective(Objective):
    """The weighted sum of classification loss, keep-rate loss, and the distillation from the teacher.

    The loss is the criterion on the logits, plus ``ratio_weight`` times `ratio_loss`, plus ``distillation_weight``
    times the divergence of the class probabilities from the teacher's, plus ``token_weight`` times the difference of
    the tokens from the teacher's. The last one is `kept_divergence` of LV-ViT's token classifier, or the mean square
    difference of Swin's features.

    Args:
        run: A run of a model with keep rates, whose recipe has a part ``token_pruning``.
        model: The model that is trained; it receives the teacher's weights.
        criterion: Computes the loss from logits (B, classes) and labels.
        teacher: The trained classifier, on the model's device.

    Raises:
        UserError: If the teacher is of another architecture.
    """

    def __init__(self, run: Run, model: nn.Module, criterion: nn.Module, teacher: nn.Module):
        super().__init__(model, criterion)
        recipe = classification_recipe(run).token_pruning
        if recipe is None:
            raise TypeError(f"{run.id}: expected a recipe with a part token_pruning")
        self.recipe = recipe
        # The methods of the token-dropping families, which `nn.Module` does not declare.
        student: Any = model
        _start_from(teacher, student, run, recipe.teacher)
        family = _FAMILIES[run.model.family]
        # A partial function is not a submodule, so the teacher is not trained, distributed or saved.
        self._teach = partial(family.teach, teacher.eval().requires_grad_(False))
        self._token_loss = family.token_loss
        self._forward_masked: Callable[[torch.Tensor], Masked] = student.forward_masked
        self._keep_rates: Sequence[float] = student.keep
        new = {id(parameter) for module in student.new_modules() for parameter in module.parameters()}
        self.backbone = tuple(parameter for parameter in model.parameters() if id(parameter) not in new)
        self.backbone_lr_share = recipe.backbone_lr_share
        self._batch_norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._frozen = False
        # A list keeps the average out of the submodules.
        self._averages = [] if recipe.ema_decay is None else [ModelEmaV3(model, decay=recipe.ema_decay)]

    @property
    def average(self) -> nn.Module | None:
        """The model with the moving average of the weights, if the recipe keeps one."""
        return self._averages[0].module if self._averages else None

    def begin_step(self, epoch: int) -> None:
        """Freeze the backbone in the first epochs, including its batch statistics, which no gradient changes."""
        self._frozen = epoch < self.recipe.frozen_epochs
        for norm in self._batch_norms:
            norm.train(not self._frozen)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss of images (B, 3, H, W) and labels, either (B,) or soft labels (B, classes)."""
        masked = self._forward_masked(images)
        with torch.no_grad():
            logits, tokens = self._teach(images)
        recipe = self.recipe
        loss = self.criterion(masked.logits, labels)
        loss = loss + recipe.ratio_weight * ratio_loss(masked.decisions, self._keep_rates)
        loss = loss + recipe.distillation_weight * divergence(masked.logits, logits).mean()
        return loss + recipe.token_weight * self._token_loss(masked, tokens)

    def before_update(self) -> None:
        """Drop the gradients of frozen parameters, so that neither weight decay nor momentum changes them."""
        # requires_grad is not used, because DistributedDataParallel reads it before the first step.
        if self._frozen:
            for parameter in self.backbone:
                parameter.grad = None

    def after_update(self) -> None:
        """Update the moving average of the weights."""
        for average in self._averages:
            average.update(self.model)


def ratio_loss(decisions: Sequence[torch.Tensor], rates: Sequence[float]) -> torch.Tensor:
    """Return the squared difference between actual and wanted keep rates, averaged over predictors and images.

    Args:
        decisions: For each predictor a tensor (B, N) that is 1 for tokens kept and 0 for dropped ones.
        rates: For each predictor the wanted share of the N tokens.
    """
    errors = [(kept.mean(dim=1) - rate).square().mean() for kept, rate in zip(decisions, rates, strict=True)]
    return torch.stack(errors).mean()


def divergence(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of probabilities (..., classes) from the teacher's, of shape (...).

    The temperature is 1. It is computed in at least single precision.
    """
    own, theirs = (at_least_single(values).log_softmax(dim=-1) for values in (logits, teacher))
    return F.kl_div(own, theirs, reduction="none", log_target=True).sum(dim=-1)


def kept_divergence(masked: Masked, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean `divergence` of the token logits (B, N, classes) of the tokens that the last decision keeps."""
    kept = masked.decisions[-1].detach()
    # A product instead of a selection: even if no token is kept, every weight has a gradient, which is zero.
    return (divergence(masked.tokens, teacher) * kept).sum() / kept.sum().clamp(min=1)


def feature_error(masked: Masked, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean square difference between the features (B, H, W, C), in at least single precision."""
    return F.mse_loss(at_least_single(masked.tokens), at_least_single(teacher))


@dataclass(frozen=True)
class _Family:
    """The parts of the objective that depend on the model family.

    Attributes:
        teach: Computes the teacher's logits and tokens from images.
        token_loss: Compares the tokens.
    """

    teach: Callable[[Any, torch.Tensor], Outputs]
    token_loss: Callable[[Masked, torch.Tensor], torch.Tensor]


def _lvvit_outputs(teacher: Any, images: torch.Tensor) -> Outputs:
    return teacher.classify(teacher.forward_features(images))


def _swin_outputs(teacher: Any, images: torch.Tensor) -> Outputs:
    features = teacher.forward_features(images)
    return teacher.forward_head(features), features


_FAMILIES = {
    "dynamicvit": _Family(_lvvit_outputs, kept_divergence),
    "dynamic_swin": _Family(_swin_outputs, feature_error),
}


def _start_from(teacher: nn.Module, model: Any, run: Run, name: str) -> None:
    """Copy the teacher's weights into ``model``, whose new modules the teacher does not have."""
    weights, own = teacher.state_dict(), model.state_dict()
    new = {name for name, module in model.named_modules() if any(module is part for part in model.new_modules())}
    expected = {name for name in own if not any(name.startswith(f"{part}.") for part in new)}
    if weights.keys() != expected or any(weights[name].shape != own[name].shape for name in expected):
        message = f"{name!r} is not a classifier that {run.model.name!r} can start from"
        raise UserError(Problem(run.id, "token_pruning.teacher", message))
    model.load_state_dict(weights, strict=False)
