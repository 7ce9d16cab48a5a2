"""Images as a classification recipe wants them: transforms, mixing and the loss that goes with it (all timm's).

The published training code follows DeiT (Touvron et al., ICML 2021), whose augmentation timm implements.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.errors import Problem, UserError

Transform = Callable[[Image.Image], torch.Tensor]


def train_transform(recipe: ClassificationRecipe) -> Transform:
    """Random resized crop, flip, colour jitter or automatic augmentation, normalisation, random erasing by noise.

    As in timm, and so in the published code, colour jitter is off wherever ``auto_augment`` is on.

    Returns:
        A function from an RGB image to a tensor (3, ``image_size``, ``image_size``).

    Raises:
        UserError: for an ``auto_augment`` policy that timm does not know.
    """
    try:
        return create_transform(
            recipe.image_size,
            is_training=True,
            scale=recipe.crop_scale,
            interpolation=recipe.interpolation,
            hflip=recipe.horizontal_flip,
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.auto_augment,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, KeyError, ValueError) as error:
        message = f"timm knows no policy {recipe.auto_augment!r} ({error}); expected one like 'rand-m9-mstd0.5-inc1'"
        raise UserError(Problem("recipe", "auto_augment", message)) from None


def eval_transform(recipe: ClassificationRecipe) -> Transform:
    """Resize the shorter side to ``image_size / eval_crop``, crop the centre, normalise.

    Random interpolation is for training only; such recipes are evaluated with bicubic interpolation.
    """
    interpolation = "bicubic" if recipe.interpolation == "random" else recipe.interpolation
    return create_transform(recipe.image_size, interpolation=interpolation, crop_pct=recipe.eval_crop)


def mixing(recipe: ClassificationRecipe, num_classes: int, per_process: int) -> Mixup | None:
    """Mixup and CutMix of a batch with its own reverse, one choice per batch; None where the recipe has neither.

    Raises:
        UserError: where a process gets an odd number of images, whose middle one would be mixed with itself.
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    if per_process % 2:
        message = f"mixup and CutMix need an even number of images per process, found {per_process}"
        raise UserError(Problem("recipe", "batch_size", message))
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        switch_prob=recipe.mixup_switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


def criterion(recipe: ClassificationRecipe, mixup: Mixup | None) -> nn.Module:
    """Cross entropy with label smoothing; with mixing, `Mixup` has already smoothed the soft targets."""
    return SoftTargetCrossEntropy() if mixup else nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
