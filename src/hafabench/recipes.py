"""Training recipes: the keys of each task, and the files that give every value a source.

A recipe file holds ``defaults``, then ``by_family`` and ``by_size`` overrides; each value is written
``{value: ..., source: ...}``. Later layers win: defaults < family < size < experiment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hafabench.catalog import ModelSpec
from hafabench.errors import UserError
from hafabench.yamlfile import YamlFile, describe

Task = Literal["classification", "segmentation", "detection"]
TASKS: tuple[str, ...] = ("classification", "segmentation", "detection")


class Recipe(BaseModel, ABC):
    """Keys shared by all tasks.

    Attributes:
        batch_size: images per optimiser step, over all processes.
        lr: peak learning rate.
        drop_path: stochastic depth rate of the last block.
        clip_grad: gradient norm limit, or None.
        amp: mixed precision where there is a GPU; it is never used on CPU.
        workers: data loading processes per training process.
        checkpoint_every: optimiser steps between checkpoints: what a killed job can lose at most.
        log_every: optimiser steps between progress lines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    warmup_key: ClassVar[str]

    # How a run is operated, not what it computes: these do not enter its fingerprint.
    operational: ClassVar[frozenset[str]] = frozenset({"workers", "checkpoint_every", "log_every", "eval_batch_size"})

    optimizer: Literal["adamw", "sgd"]
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    batch_size: int = Field(gt=0)
    drop_path: float = Field(ge=0, lt=1)
    clip_grad: float | None = Field(None, gt=0)
    amp: bool = True
    workers: int = Field(8, ge=0)
    eval_batch_size: int = Field(gt=0)
    checkpoint_every: int = Field(1000, gt=0)
    log_every: int = Field(50, gt=0)

    @abstractmethod
    def steps(self, images: int) -> int:
        """Optimiser steps of the whole training on ``images`` training images; a last, partial batch is left out."""

    @abstractmethod
    def warmup_steps(self, images: int) -> int:
        """Those of them that warm the learning rate up."""

    def misfits(self, images: int) -> dict[str, str]:
        """Keys whose values do not fit ``images`` training images, each with what was expected."""
        if images < self.batch_size:
            return {"batch_size": f"{self.batch_size} images a step, but only {images} to train on"}
        warmup, total = self.warmup_steps(images), self.steps(images)
        if warmup and warmup >= total:
            return {self.warmup_key: f"{warmup} steps of warm-up, but the training has only {total}"}
        return {}


class ClassificationRecipe(Recipe):
    """ImageNet-style training (paper, section 4.1).

    Attributes:
        lr_batch_size: ``lr`` is meant at this batch size and scaled linearly to ``batch_size``.
        epochs, warmup_epochs: length; warm-up is part of ``epochs``.
        warmup_lr, min_lr: ends of the cosine schedule with warm-up, at ``lr_batch_size``.
        image_size: side of the square input, pixels.
        eval_crop: share of the shorter side that the evaluation's centre crop keeps (0.875: 256 -> 224).
        repeated_augmentation: copies of an image per epoch under different augmentations; 1 is none.
    """

    image_size: int = Field(gt=0)
    eval_crop: float = Field(gt=0, le=1)
    epochs: int = Field(gt=0)
    warmup_epochs: int = Field(ge=0)
    lr_batch_size: int = Field(gt=0)
    warmup_lr: float = Field(ge=0)
    min_lr: float = Field(ge=0)
    interpolation: Literal["bicubic", "bilinear", "random"]
    crop_scale: tuple[float, float]
    horizontal_flip: float = Field(ge=0, le=1)
    color_jitter: float = Field(ge=0)
    auto_augment: str | None
    mixup: float = Field(ge=0)
    cutmix: float = Field(ge=0)
    mixup_switch_prob: float = Field(ge=0, le=1)
    label_smoothing: float = Field(ge=0, lt=1)
    random_erasing: float = Field(ge=0, le=1)
    repeated_augmentation: int = Field(ge=1)

    warmup_key: ClassVar[str] = "warmup_epochs"

    def steps(self, images: int) -> int:
        return self.epochs * (images // self.batch_size)

    def warmup_steps(self, images: int) -> int:
        return self.warmup_epochs * (images // self.batch_size)


class DenseRecipe(Recipe):
    """Keys shared by segmentation and detection.

    Attributes:
        resize: (long side, short side) limits of the training and evaluation image, pixels, aspect kept.
        flip: probability of a horizontal flip.
        warmup_iterations, warmup_factor: linear warm-up from ``warmup_factor * lr``.
        neck: ``fpn``, or ``token_fpn``, whose top step gathers cluster tokens; ``auto`` takes ``token_fpn``
            exactly for models whose last stage is SIA.
    """

    resize: tuple[int, int]
    flip: float = Field(ge=0, le=1)
    warmup_iterations: int = Field(ge=0)
    warmup_factor: float = Field(gt=0, le=1)
    neck: Literal["auto", "fpn", "token_fpn"] = "auto"

    warmup_key: ClassVar[str] = "warmup_iterations"

    def warmup_steps(self, images: int) -> int:
        return self.warmup_iterations


class SegmentationRecipe(DenseRecipe):
    """Semantic FPN (paper, section 4.2)."""

    iterations: int = Field(gt=0)
    poly_power: float = Field(gt=0)
    min_lr: float = Field(ge=0)
    ratio_range: tuple[float, float]
    crop_size: int = Field(gt=0)
    photometric_distortion: bool

    def steps(self, images: int) -> int:
        return self.iterations


class DetectionRecipe(DenseRecipe):
    """Mask R-CNN, 1x schedule (paper, section 4.3).

    Attributes:
        milestones: epochs after which the learning rate is multiplied by ``lr_gamma``.
        train_proposals, test_proposals: region proposals kept per image.
        roi_samples: regions sampled per image for the box and mask heads.
        max_detections: boxes, and so masks, kept per image in evaluation.
        anchor_scale: side of the anchors in units of the level's stride.
    """

    epochs: int = Field(gt=0)
    milestones: tuple[int, ...]
    lr_gamma: float = Field(gt=0, le=1)
    train_proposals: int = Field(gt=0)
    test_proposals: int = Field(gt=0)
    roi_samples: int = Field(gt=0)
    max_detections: int = Field(100, gt=0)
    anchor_scale: int = Field(8, gt=0)

    def steps(self, images: int) -> int:
        return self.epochs * (images // self.batch_size)


RECIPE_TYPES: dict[str, type[Recipe]] = {
    "classification": ClassificationRecipe,
    "segmentation": SegmentationRecipe,
    "detection": DetectionRecipe,
}


class Sourced(BaseModel):
    """A recipe value and where it is written down."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Any
    source: str = Field(min_length=3)


class RecipeFile(BaseModel):
    """One task's recipe as written: values with sources, in layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task
    defaults: dict[str, Sourced]
    by_family: dict[str, dict[str, Sourced]] = {}
    by_size: dict[str, dict[str, Sourced]] = {}

    def layers(self, model: ModelSpec) -> dict[str, Sourced]:
        """Values that apply to ``model``, later layers winning."""
        family = self.by_family.get(model.family, {})
        # A family's own recipe (SGD for ResNets) is not a size of the transformers' one.
        size = {} if family else self.by_size.get(model.size, {})
        return {**self.defaults, **family, **size}


def load_recipe(path: Path, task: str) -> RecipeFile:
    """Read and check one recipe file: known keys, values of the right type, every key given.

    Raises:
        UserError: with every problem of the file.
    """
    source = YamlFile(path)
    recipe = source.validate(RecipeFile)
    if recipe.task != task:
        raise UserError(source.problem(("task",), f"expected {task!r}, found {recipe.task!r}"))
    kind = RECIPE_TYPES[task]
    problems = []
    layers = {("defaults",): recipe.defaults}
    layers |= {("by_family", name): layer for name, layer in recipe.by_family.items()}
    layers |= {("by_size", name): layer for name, layer in recipe.by_size.items()}
    for at, layer in layers.items():
        merged = {key: item.value for key, item in {**recipe.defaults, **layer}.items()}
        try:
            kind.model_validate(merged)
        except ValidationError as error:
            for item in error.errors():
                key = str(item["loc"][0])
                if at == ("defaults",) or key in layer:
                    problems.append(source.problem((*at, key), describe(item)))
    if problems:
        raise UserError(problems)
    return recipe
