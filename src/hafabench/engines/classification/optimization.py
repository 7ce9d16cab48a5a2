"""The optimiser and the learning rate of classification trainings (timm's)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.errors import Problem, UserError

# timm's "sgd" is Nesterov's; ResNets were trained with the classical momentum.
_TIMM_NAMES = {"adamw": "adamw", "sgd": "momentum"}


def scaled_lr(recipe: ClassificationRecipe) -> float:
    """Peak learning rate at the recipe's batch size: linear scaling from ``lr_batch_size``."""
    return recipe.lr * recipe.batch_size / recipe.lr_batch_size


def build_optimizer(
    model: nn.Module, recipe: ClassificationRecipe, slow: Collection[nn.Parameter] = (), slow_share: float = 1.0
) -> torch.optim.Optimizer:
    """The recipe's optimiser with two parameter groups, the first without weight decay.

    No decay on 1-D weights, biases, class tokens, and what the model's own ``no_weight_decay()`` names. Where some
    parameters are ``slow``, two more groups hold them, whose learning rate is ``slow_share`` of the others'.
    """
    exempt = {"*cls_token"}
    if hasattr(model, "no_weight_decay"):
        exempt |= set(model.no_weight_decay())
    groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=exempt)
    if slow:
        groups = [*_among(groups, slow, False, 1.0), *_among(groups, slow, True, slow_share)]
    return create_optimizer_v2(
        groups,
        opt=_TIMM_NAMES[recipe.optimizer],
        lr=scaled_lr(recipe),
        # The groups carry their own decay; this is what timm passes beside them.
        weight_decay=0.0,
        momentum=recipe.momentum,
        # One kernel for all parameters, on CPU and GPU alike: a third of the time.
        fused=True,
    )


def _among(
    groups: list[dict[str, Any]], slow: Collection[nn.Parameter], wanted: bool, share: float
) -> Iterator[dict[str, Any]]:
    """The groups' parameters that are slow, or that are not; timm's schedules multiply by ``lr_scale``."""
    identities = {id(parameter) for parameter in slow}
    for group in groups:
        members = [parameter for parameter in group["params"] if (id(parameter) in identities) == wanted]
        yield {**group, "params": members, "lr_scale": share}


def build_schedule(
    optimizer: torch.optim.Optimizer, recipe: ClassificationRecipe, steps_per_epoch: int
) -> CosineLRScheduler:
    """Linear warm-up, then cosine; ``step_update(step)`` sets the rate of the 0-based ``step``.

    The cosine runs over the whole length and the warm-up replaces its beginning, as in the published code: the peak
    is what the cosine has come down to by then. All three rates scale with the batch size.

    Raises:
        UserError: where the warm-up is not shorter than the training.
    """
    if recipe.warmup_epochs >= recipe.epochs:
        message = f"expected fewer than the {recipe.epochs} epochs of the training, found {recipe.warmup_epochs}"
        raise UserError(Problem("recipe", "warmup_epochs", message))
    scale = recipe.batch_size / recipe.lr_batch_size
    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps_per_epoch,
        lr_min=recipe.min_lr * scale,
        warmup_t=recipe.warmup_epochs * steps_per_epoch,
        warmup_lr_init=recipe.warmup_lr * scale,
        t_in_epochs=False,
    )
