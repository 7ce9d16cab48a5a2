"""The optimiser and the learning rate schedule of classification trainings (timm's)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.errors import Problem, UserError

# timm's "sgd" uses Nesterov momentum; ResNets were trained with classical momentum.
_TIMM_NAMES = {"adamw": "adamw", "sgd": "momentum"}


def scaled_lr(recipe: ClassificationRecipe) -> float:
    """Return the peak learning rate at the recipe's batch size, scaled linearly from ``lr_batch_size``."""
    return recipe.lr * recipe.batch_size / recipe.lr_batch_size


def build_optimizer(
    model: nn.Module, recipe: ClassificationRecipe, slow: Collection[nn.Parameter] = (), slow_share: float = 1.0
) -> torch.optim.Optimizer:
    """Build the recipe's optimiser with two parameter groups, the first one without weight decay.

    Weight decay does not apply to 1-D weights, biases, class tokens, and the parameters that the model's own
    ``no_weight_decay()`` names.

    Args:
        model: The model whose parameters are optimised.
        recipe: Gives the optimiser, learning rate, momentum and weight decay.
        slow: Parameters that form two separate groups with a smaller learning rate.
        slow_share: The learning rate of the ``slow`` parameters as a share of the others'.
    """
    exempt = {"*cls_token"}
    no_weight_decay: Any = getattr(model, "no_weight_decay", None)
    if no_weight_decay is not None:
        exempt |= set(no_weight_decay())
    groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=exempt)
    if slow:
        groups = [*_restrict(groups, slow, False, 1.0), *_restrict(groups, slow, True, slow_share)]
    return create_optimizer_v2(
        groups,
        opt=_TIMM_NAMES[recipe.optimizer],
        lr=scaled_lr(recipe),
        # The groups carry the weight decay. timm would apply a value given here in addition.
        weight_decay=0.0,
        momentum=recipe.momentum,
        # A single kernel updates all parameters, which takes a third of the time on CPU and GPU alike.
        fused=True,
    )


def _restrict(
    groups: list[dict[str, Any]], slow: Collection[nn.Parameter], is_slow: bool, lr_scale: float
) -> Iterator[dict[str, Any]]:
    """Restrict groups to their slow, or to their other, parameters; timm's schedules multiply by ``lr_scale``."""
    identities = {id(parameter) for parameter in slow}
    for group in groups:
        members = [parameter for parameter in group["params"] if (id(parameter) in identities) == is_slow]
        yield {**group, "params": members, "lr_scale": lr_scale}


def build_schedule(
    optimizer: torch.optim.Optimizer, recipe: ClassificationRecipe, steps_per_epoch: int
) -> CosineLRScheduler:
    """Build a linear warm-up followed by a cosine; ``step_update(step)`` sets the rate of ``step``, counted from 0.

    As in the published code, the cosine extends over the whole training and the warm-up replaces its beginning. The
    peak is the value of the cosine at the end of the warm-up. All three learning rates scale with the batch size.

    Raises:
        UserError: If the warm-up is not shorter than the training.
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
