"""The images of a classification recipe: timm's transforms, mixing, and the matching loss.

The published training code follows DeiT (Touvron et al., ICML 2021), whose augmentation timm implements.
"""

from __future__ import annotations

from typing import Any

from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.errors import Problem, UserError


def train_transform(recipe: ClassificationRecipe) -> Any:
    """Build the training transform: random resized crop, flip, colour changes, normalisation and random erasing.

    As in timm, and so in the published code, ``color_jitter`` is ignored if ``auto_augment`` is set.

    Returns:
        A function from an RGB image to a tensor (3, ``image_size``, ``image_size``).

    Raises:
        UserError: If timm does not know the ``auto_augment`` policy.
    """
    # timm accepts None for no colour jitter, which its annotation does not mention.
    color_jitter: Any = recipe.color_jitter or None
    try:
        return create_transform(
            recipe.image_size,
            is_training=True,
            scale=recipe.crop_scale,
            interpolation=recipe.interpolation,
            hflip=recipe.horizontal_flip,
            color_jitter=color_jitter,
            auto_augment=recipe.auto_augment,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, KeyError, ValueError) as error:
        message = f"timm has no policy {recipe.auto_augment!r} ({error}); expected one like 'rand-m9-mstd0.5-inc1'"
        raise UserError(Problem("recipe", "auto_augment", message)) from None


def eval_transform(recipe: ClassificationRecipe) -> Any:
    """Build the evaluation transform: resize the shorter side to ``image_size / eval_crop``, crop, normalise.

    Random interpolation is for training only. Recipes that use it are evaluated with bicubic interpolation.

    Returns:
        A function from an RGB image to a tensor (3, ``image_size``, ``image_size``).
    """
    interpolation = "bicubic" if recipe.interpolation == "random" else recipe.interpolation
    return create_transform(recipe.image_size, interpolation=interpolation, crop_pct=recipe.eval_crop)


def build_mixup(recipe: ClassificationRecipe, num_classes: int, images_per_process: int) -> Mixup | None:
    """Build Mixup and CutMix, which mix a batch with its own reverse; None if the recipe uses neither.

    Raises:
        UserError: If a process gets an odd number of images, whose middle one would be mixed with itself.
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    if images_per_process % 2:
        message = f"mixup and CutMix need an even number of images per process, found {images_per_process}"
        raise UserError(Problem("recipe", "batch_size", message))
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        switch_prob=recipe.mixup_switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


def build_criterion(recipe: ClassificationRecipe, mixup: Mixup | None) -> nn.Module:
    """Build the cross entropy with label smoothing; `Mixup` has already smoothed the soft labels it returns."""
    return SoftTargetCrossEntropy() if mixup else nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
