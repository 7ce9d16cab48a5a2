"""Training recipes: the keys of each task, and the files that give every value a source.

A recipe file holds ``defaults``, then ``by_family`` and ``by_size`` overrides; each value is written
``{value: ..., source: ...}``. Later layers win: defaults < family < size < experiment. A key of a part of a recipe
has a dot: ``token_pruning.teacher``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from hafabench.config.catalog import ModelSpec
from hafabench.config.yaml_file import YamlFile, describe
from hafabench.errors import UserError

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
    # Keys added since the first records: where they are None, a run is the one that it was without them.
    later: ClassVar[frozenset[str]] = frozenset()
    # Keys whose values have keys of their own, written with a dot.
    parts: ClassVar[dict[str, type[BaseModel]]] = {}

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

    def identity(self) -> dict[str, Any]:
        """The values that can change a run's numbers: the part that enters its fingerprint."""
        values = self.model_dump(mode="json", exclude=set(self.operational))
        return {key: value for key, value in values.items() if key not in self.later or value is not None}

    @abstractmethod
    def steps(self, images: int) -> int:
        """Optimiser steps of the whole training on ``images`` training images; a last, partial batch is left out."""

    @abstractmethod
    def warmup_steps(self, images: int) -> int:
        """Those of them that warm the learning rate up."""

    def problems(self, images: int) -> dict[str, str]:
        """Keys whose values do not fit ``images`` training images, each with what was expected."""
        if images < self.batch_size:
            return {"batch_size": f"{self.batch_size} images a step, but only {images} to train on"}
        warmup, total = self.warmup_steps(images), self.steps(images)
        if warmup and warmup >= total:
            return {self.warmup_key: f"{warmup} steps of warm-up, but the training has only {total}"}
        return {}


class TokenPruningRecipe(BaseModel):
    """How a trained classifier learns to drop tokens (DynamicViT's objective).

    The objective is `hafabench.engines.classification.token_pruning`.

    Attributes:
        teacher: model whose run of the same seed gives the starting weights, and whose outputs are imitated.
        ratio_weight: of the squared difference between the shares of tokens kept and wanted.
        distillation_weight: of the divergence from the teacher's class probabilities.
        token_weight: of the difference to the teacher in the tokens.
        backbone_lr_share: learning rate of what the teacher has too, over that of the new parts.
        frozen_epochs: epochs at the beginning in which only the new parts learn.
        ema_decay: of the moving average of the weights that is kept and evaluated beside them, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str
    ratio_weight: float = Field(ge=0)
    distillation_weight: float = Field(ge=0)
    token_weight: float = Field(ge=0)
    backbone_lr_share: float = Field(gt=0, le=1)
    frozen_epochs: int = Field(ge=0)
    ema_decay: float | None = Field(gt=0, lt=1)


class ClassificationRecipe(Recipe):
    """ImageNet-style training (paper, section 4.1).

    Attributes:
        lr_batch_size: ``lr`` is meant at this batch size and scaled linearly to ``batch_size``.
        epochs, warmup_epochs: length; warm-up is part of ``epochs``.
        warmup_lr, min_lr: ends of the cosine schedule with warm-up, at ``lr_batch_size``.
        image_size: side of the square input, pixels.
        eval_crop: share of the shorter side that the evaluation's centre crop keeps (0.875: 256 -> 224).
        repeated_augmentation: copies of an image per epoch under different augmentations; 1 is none.
        token_pruning: for models that drop tokens, and for them alone.
    """

    later: ClassVar[frozenset[str]] = frozenset({"token_pruning"})
    parts: ClassVar[dict[str, type[BaseModel]]] = {"token_pruning": TokenPruningRecipe}

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
    token_pruning: TokenPruningRecipe | None = None

    warmup_key: ClassVar[str] = "warmup_epochs"

    def problems(self, images: int) -> dict[str, str]:
        found = super().problems(images)
        pruning = self.token_pruning
        if pruning is not None and pruning.frozen_epochs >= self.epochs:
            message = f"{pruning.frozen_epochs} epochs frozen, but the training has only {self.epochs}"
            found["token_pruning.frozen_epochs"] = message
        return found

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


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values whose keys may have a dot, as a recipe takes them: ``{"a.b": 1}`` -> ``{"a": {"b": 1}}``."""
    found: dict[str, Any] = {key: value for key, value in values.items() if "." not in key}
    for key, value in values.items():
        part, dot, name = key.partition(".")
        if not dot:
            continue
        if part in values:
            # No part of a recipe, then; the key stays what it is, unknown.
            found[key] = value
        else:
            found.setdefault(part, {})[name] = value
    return found


def key_of(location: tuple[str | int, ...], values: dict[str, Any]) -> str:
    """The key, as in ``values``, that a validation error's location is about."""
    return str(location[0]) if location[0] in values else ".".join(map(str, location[:2]))


def field_of(kind: type[Recipe], key: str) -> FieldInfo | None:
    """What a recipe says about ``key``, which may have a dot; None for a key that it does not have."""
    part, dot, name = key.partition(".")
    owner = kind.parts.get(part) if dot else kind
    return owner.model_fields.get(name if dot else part) if owner is not None and key not in kind.parts else None


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
            kind.model_validate(nested(merged))
        except ValidationError as error:
            for item in error.errors():
                key = key_of(item["loc"], merged)
                part = key.partition(".")[0] + "."
                if at == ("defaults",) or key in layer or any(name.startswith(part) for name in layer):
                    problems.append(source.problem((*at, key), describe(item)))
    if problems:
        raise UserError(problems)
    return recipe
