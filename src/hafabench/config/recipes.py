"""Training recipes: the keys of each task, and the files in which every value has a source.

A recipe file contains ``defaults`` and the layers ``by_family`` and ``by_size``. Each value is written as
``{value: ..., source: ...}``. Later layers win: defaults < family < size < overrides of the experiment. The key of a
nested section is written with a dot: ``token_pruning.teacher``.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from hafabench.config.base import StrictModel, shown
from hafabench.config.bounds import (
    MAX_EPOCHS,
    MAX_SIDE,
    MAX_SINGLE,
    MAX_STEPS,
    MAX_WORKERS,
    Batch,
    Epochs,
    LargerFirst,
    Rising,
    SharesSmallerFirst,
    Side,
    SmallerFirst,
    Steps,
    batch_problem,
)
from hafabench.config.catalog import CATALOG, SIZES, ModelSpec
from hafabench.config.yaml_file import KeyPath, YamlFile, describe
from hafabench.errors import Problem, UserError

Task = Literal["classification", "segmentation", "detection"]
TASKS: tuple[Task, ...] = ("classification", "segmentation", "detection")

_AUTO_AUGMENT: dict[str, tuple[type, float, float]] = {"mstd": (float, 0, 1000)}
# The names of timm's policies. Each has the type, the smallest and the largest value of every option.
_POLICIES: dict[str, dict[str, tuple[type, float, float]]] = {
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), _AUTO_AUGMENT),
    "rand": {
        **_AUTO_AUGMENT,
        "m": (int, 0, 30),
        "n": (int, 1, 10),
        "p": (float, 0, 1),
        "mmax": (int, 1, 30),
        "inc": (int, 0, 1),
    },
    "augmix": {
        **_AUTO_AUGMENT,
        "m": (int, 0, 10),
        "w": (int, 1, 10),
        "d": (int, 0, 10),
        "a": (float, 0.01, 100),
        "b": (int, 0, 1),
    },
}
_TRANSFORMS_OF_RAND = ("tweights", "t3a", "t3aw")


def _policy(text: str) -> str:
    """Check a policy in timm's notation, which timm itself checks at the beginning of a training."""
    name, *options = text.split("-")
    problem = None if name in _POLICIES else f"no policy {shown(name)}"
    seen: set[str] = set()
    for option in options if problem is None else ():
        match = re.fullmatch(r"([a-z]+)([0-9]{1,6}(?:\.[0-9]{1,6})?)", option)
        key = "t" if name == "rand" and option in _TRANSFORMS_OF_RAND else match[1] if match else option
        if key in seen:
            problem = f"option {key!r} twice"
        elif key != "t":
            kind, low, high = _POLICIES[name].get(key, (None, 0, 0)) if match else (None, 0, 0)
            if kind is None or match is None:
                problem = f"no option {shown(option)} of {name!r}"
            elif not low <= float(match[2]) <= high or (kind is int and "." in match[2]):
                number = "a whole number" if kind is int else "a number"
                problem = f"{key!r} takes {number} from {low:g} to {high:g}, found {match[2]}"
        seen.add(key)
    if problem is not None:
        example = "'rand-m9-mstd0.5-inc1'"
        raise ValueError(f"expected a policy of timm such as {example}, found {shown(text)}: {problem}")
    return text


_Weight = Annotated[float, Field(ge=0, le=1e6)]
_Regions = Annotated[int, Field(gt=0, le=10**5)]
_Ratio = Annotated[float, Field(ge=0.05, le=20)]
_CropShare = Annotated[float, Field(ge=0.001, le=1)]


def _zero_or_drawable(alpha: float) -> float:
    if 0 < alpha < 0.001:
        raise ValueError(f"expected 0 or at least 0.001, found {alpha:g}")
    return alpha


_Alpha = Annotated[float, Field(ge=0, le=1000), AfterValidator(_zero_or_drawable)]


class Recipe(StrictModel, ABC):
    """Keys of every task."""

    warmup_key: ClassVar[str]
    """The key that sets the length of the warm-up."""
    lr_batch_key: ClassVar[str] = "batch_size"
    """The key of the number of images per step for which `lr` is given."""
    operational: ClassVar[frozenset[str]] = frozenset({"workers", "checkpoint_every", "log_every", "eval_batch_size"})
    """Keys that do not change a run's results. They are not part of its fingerprint."""
    added_later: ClassVar[frozenset[str]] = frozenset()
    """Keys that were added after the first records were made. A fingerprint contains them unless they have their
    default, which is what the code did before."""
    size_keys: ClassVar[tuple[str, ...]]
    """Keys that set the size of the images."""
    schedule_keys: ClassVar[tuple[str, ...]]
    """Keys that set the length of the training."""
    sections: ClassVar[dict[str, type[BaseModel]]] = {}
    """Nested sections by key. Their keys are written with a dot."""

    optimizer: Literal["adamw", "sgd"] = Field(description="Optimizer of the training.")
    lr: float = Field(gt=0, le=MAX_SINGLE, description="Peak learning rate.")
    weight_decay: float = Field(ge=0, le=MAX_SINGLE, description="Weight decay of the optimizer.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of `sgd`. AdamW does not use it.")
    batch_size: Batch = Field(description="Images per optimizer step, summed over all processes.")
    drop_path: float = Field(ge=0, lt=1, description="Stochastic depth rate of the last block.")
    clip_grad: float | None = Field(None, gt=0, description="Limit of the gradient norm; null does not clip.")
    amp: bool = Field(True, description="Whether to train in mixed precision on a GPU. CPUs never use it.")
    workers: int = Field(
        8,
        ge=0,
        le=MAX_WORKERS,
        description="Data loading processes per training process; 0 loads in the training process.",
    )
    eval_batch_size: Batch = Field(description="Images per batch of the evaluation.")
    checkpoint_every: Steps = Field(
        1000, description="Optimizer steps between two checkpoints. An interrupted job loses at most this many."
    )
    log_every: Steps = Field(50, description="Optimizer steps between two progress lines.")

    def identity(self) -> dict[str, Any]:
        """Return the values that can change a run's results. They are part of its fingerprint."""
        values = self.model_dump(mode="json", exclude=set(self.operational))
        unchanged = {key for key in self.added_later if values[key] == type(self).model_fields[key].default}
        return {key: value for key, value in values.items() if key not in unchanged}

    @property
    def lr_batch(self) -> int:
        """The number of images per step for which `lr` is given."""
        return int(getattr(self, self.lr_batch_key))

    @property
    def lr_per_image(self) -> float:
        """The peak learning rate divided by the number of images for which it is given."""
        return self.lr / self.lr_batch

    @property
    def images_go_in(self) -> int:
        """A number of which the images per step of each process have to be a multiple."""
        return 1

    @abstractmethod
    def steps(self, images: int) -> int:
        """Return the optimizer steps of a training on ``images`` images. A last, partial batch is dropped."""

    @property
    @abstractmethod
    def image_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The sides of the largest image of the training, and of the largest one of the evaluation, in pixels."""

    @abstractmethod
    def warmup_steps(self, images: int) -> int:
        """Return the number of optimizer steps in which the learning rate is warmed up."""

    def contradictions(self) -> dict[str, str]:
        """Return a message for each key whose value does not fit the value of another key."""
        found: dict[str, str] = {}
        min_lr = getattr(self, "min_lr", 0.0)
        if min_lr > self.lr:
            found["min_lr"] = f"expected at most lr ({self.lr:g}), from which the schedule falls, found {min_lr:g}"
        for key, sides in zip(("batch_size", "eval_batch_size"), self.image_sizes, strict=True):
            problem = batch_problem(getattr(self, key), *sides)
            if problem:
                found[key] = problem
        return found

    def problems(self, images: int) -> dict[str, str]:
        """Return a message for each key whose value does not fit ``images`` training images or another key."""
        found = self.contradictions()
        if images < self.batch_size:
            message = f"{self.batch_size} images per step, but there are only {images} training images"
            return {**found, "batch_size": message}
        warmup, total = self.warmup_steps(images), self.steps(images)
        if total > MAX_STEPS:
            found[self.schedule_keys[0]] = f"the training has {total:,} steps, expected at most {MAX_STEPS:,}"
        if warmup and warmup >= total:
            found[self.warmup_key] = f"{warmup} steps of warm-up, but the training has only {total}"
        return found


class TokenPruningRecipe(StrictModel):
    """How a trained classifier learns to drop tokens.

    The objective is DynamicViT's. The training starts from the weights of a teacher and imitates the teacher.
    """

    teacher: str = Field(
        description="Model whose run of the same seed gives the starting weights and the outputs to imitate."
    )
    ratio_weight: _Weight = Field(
        description="Weight of the squared difference between the actual and the wanted keep rates."
    )
    distillation_weight: _Weight = Field(
        description="Weight of the divergence from the teacher's class probabilities."
    )
    token_weight: _Weight = Field(description="Weight of the squared difference from the teacher's tokens.")
    backbone_lr_share: float = Field(
        gt=0, le=1, description="Learning rate of the teacher's parts, relative to that of the new parts."
    )
    frozen_epochs: int = Field(
        ge=0, le=MAX_EPOCHS, description="Number of first epochs in which only the new parts are trained."
    )
    ema_decay: float | None = Field(
        gt=0,
        lt=1,
        description="Decay of the moving average of the weights, which is stored and evaluated as well; null keeps "
        "none.",
    )


class ClassificationRecipe(Recipe):
    """Keys of classification: training on ImageNet (paper, section 4.1) with DeiT's script (published code)."""

    added_later: ClassVar[frozenset[str]] = frozenset({"token_pruning"})
    sections: ClassVar[dict[str, type[BaseModel]]] = {"token_pruning": TokenPruningRecipe}
    warmup_key: ClassVar[str] = "warmup_epochs"
    lr_batch_key: ClassVar[str] = "lr_batch_size"
    size_keys: ClassVar[tuple[str, ...]] = ("image_size",)
    schedule_keys: ClassVar[tuple[str, ...]] = ("epochs", "warmup_epochs", "batch_size")

    image_size: Side = Field(description="Side of the square input, in pixels.")
    eval_crop: float = Field(
        ge=0.1,
        le=1,
        description="Share of the shorter side that the evaluation's centre crop keeps. 0.875 resizes to 256 and "
        "crops 224 pixels.",
    )
    epochs: Epochs = Field(description="Epochs of the training, including the warm-up.")
    warmup_epochs: int = Field(ge=0, le=MAX_EPOCHS, description="Epochs in which the learning rate rises linearly.")
    lr_batch_size: Batch = Field(
        description="Batch size for which `lr`, `warmup_lr` and `min_lr` are given. They are scaled linearly to "
        "`batch_size`.",
    )
    warmup_lr: float = Field(ge=0, le=MAX_SINGLE, description="Learning rate at the start of the warm-up.")
    min_lr: float = Field(ge=0, le=MAX_SINGLE, description="Learning rate at the end of the cosine schedule.")
    interpolation: Literal["bicubic", "bilinear", "random"] = Field(
        description="Interpolation of resized training images. `random` draws one of the other two per image."
    )
    crop_scale: Annotated[tuple[_CropShare, _CropShare], SharesSmallerFirst] = Field(
        description="Smallest and largest share of the image area in a random crop."
    )
    horizontal_flip: float = Field(ge=0, le=1, description="Probability of a horizontal flip.")
    color_jitter: float = Field(
        ge=0, le=10, description="Strength of random colour changes. It has no effect while `auto_augment` is set."
    )
    auto_augment: Annotated[str, AfterValidator(_policy)] | None = Field(
        description="Automatic augmentation in timm's notation, for example `rand-m9-mstd0.5-inc1`; null uses none."
    )
    mixup: _Alpha = Field(description="Alpha of mixup; 0 switches it off.")
    cutmix: _Alpha = Field(description="Alpha of CutMix; 0 switches it off.")
    mixup_switch_prob: float = Field(ge=0, le=1, description="Probability of CutMix instead of mixup if both are on.")
    label_smoothing: float = Field(ge=0, lt=1, description="Label smoothing of the cross entropy.")
    random_erasing: float = Field(ge=0, le=1, description="Probability that a rectangle of the image is erased.")
    repeated_augmentation: int = Field(
        ge=1, le=100, description="Differently augmented copies of each image per epoch; 1 switches it off."
    )
    token_pruning: TokenPruningRecipe | None = Field(
        None, description="How a model learns to drop tokens. Only models with keep rates have this section."
    )

    @property
    def images_go_in(self) -> int:
        # Mixup and CutMix mix a batch with its own reverse.
        return 2 if self.mixup or self.cutmix else 1

    def contradictions(self) -> dict[str, str]:
        found = super().contradictions()
        if self.batch_size % self.images_go_in:
            found["batch_size"] = f"mixup and CutMix need an even number of images per step, found {self.batch_size}"
        scale = self.batch_size / self.lr_batch_size
        if self.lr * scale > MAX_SINGLE:
            found["lr"] = f"{self.lr:g} scaled to {self.batch_size} images per step is above {MAX_SINGLE:g}"
        if self.warmup_epochs and self.warmup_lr > self.lr:
            found["warmup_lr"] = (
                f"expected at most lr ({self.lr:g}), to which the warm-up rises, found {self.warmup_lr:g}"
            )
        resized = math.floor(self.image_size / self.eval_crop)
        if resized > MAX_SIDE:
            found["eval_crop"] = f"images are resized to {resized} pixels, expected at most {MAX_SIDE}"
        pruning = self.token_pruning
        if pruning is not None and pruning.frozen_epochs >= self.epochs:
            message = f"{pruning.frozen_epochs} epochs frozen, but the training has only {self.epochs}"
            found["token_pruning.frozen_epochs"] = message
        return found

    def steps(self, images: int) -> int:
        return self.epochs * (images // self.batch_size)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        size = self.image_size, self.image_size
        return size, size

    def warmup_steps(self, images: int) -> int:
        return self.warmup_epochs * (images // self.batch_size)


class DenseRecipe(Recipe):
    """Keys of segmentation and detection."""

    resize: Annotated[tuple[Side, Side], LargerFirst] = Field(
        description="Limits of the longer and the shorter side of resized images, in pixels, in this order. The "
        "aspect ratio is kept."
    )
    flip: float = Field(ge=0, le=1, description="Probability of a horizontal flip.")
    warmup_iterations: int = Field(
        ge=0, le=MAX_STEPS, description="Optimizer steps in which the learning rate rises linearly."
    )
    warmup_factor: float = Field(
        gt=0, le=1, description="Learning rate at the start of the warm-up, relative to `lr`."
    )
    neck: Literal["auto", "fpn", "token_fpn"] = Field(
        "auto",
        description="Feature pyramid. The top level of `token_fpn` reads cluster tokens. `auto` uses `token_fpn` for "
        "models whose last merger is SIA, and `fpn` for all others.",
    )

    new_layer_init: Literal["published_code", "xavier"] = Field(
        "published_code",
        description="Initialisation of the layers outside of the pretrained backbone, which are neck and heads. "
        "`published_code` uses the initialisers of mmseg and mmdet, as the published code does. `xavier` draws the "
        "weights of all their convolutions and linear layers from Xavier's uniform distribution and sets the biases "
        "to 0.",
    )

    added_later: ClassVar[frozenset[str]] = frozenset({"new_layer_init"})
    warmup_key: ClassVar[str] = "warmup_iterations"

    def warmup_steps(self, images: int) -> int:
        return self.warmup_iterations


class SegmentationRecipe(DenseRecipe):
    """Keys of segmentation: Semantic FPN (paper, section 4.2)."""

    added_later: ClassVar[frozenset[str]] = DenseRecipe.added_later | {"size_divisor"}
    size_keys: ClassVar[tuple[str, ...]] = ("resize", "crop_size", "size_divisor")
    schedule_keys: ClassVar[tuple[str, ...]] = ("iterations", "warmup_iterations", "batch_size")

    iterations: Steps = Field(description="Optimizer steps of the training.")
    poly_power: float = Field(gt=0, le=100, description="Exponent of the polynomial learning rate schedule.")
    min_lr: float = Field(ge=0, le=MAX_SINGLE, description="Learning rate at the end of the schedule.")
    ratio_range: Annotated[tuple[_Ratio, _Ratio], SmallerFirst] = Field(
        description="Smallest and largest random factor on the size of a training image."
    )
    crop_size: Side = Field(description="Side of the square random crop, in pixels.")
    size_divisor: int | None = Field(
        None,
        gt=0,
        le=MAX_SIDE,
        description="In the evaluation, each side of the resized image is enlarged to the next multiple of this "
        "number by a second resize; null keeps the size. In both cases the predictions are compared at the original "
        "size of the image.",
    )
    photometric_distortion: bool = Field(
        description="Whether brightness, contrast, saturation and hue are changed at random."
    )

    @property
    def image_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.crop_size, self.crop_size), self.resize

    def steps(self, images: int) -> int:
        return self.iterations


class DetectionRecipe(DenseRecipe):
    """Keys of detection: Mask R-CNN with a 1x schedule (paper, section 4.3)."""

    size_keys: ClassVar[tuple[str, ...]] = ("resize",)
    schedule_keys: ClassVar[tuple[str, ...]] = ("epochs", "milestones", "warmup_iterations", "batch_size")

    epochs: Epochs = Field(description="Epochs of the training.")
    milestones: Annotated[tuple[Epochs, ...], Rising] = Field(
        description="Epochs after which the learning rate is multiplied by `lr_gamma`."
    )
    lr_gamma: float = Field(gt=0, le=1, description="Factor on the learning rate at each of the `milestones`.")
    train_proposals: _Regions = Field(description="Region proposals kept per training image.")
    test_proposals: _Regions = Field(description="Region proposals kept per image of the evaluation.")
    roi_samples: _Regions = Field(
        description="Regions sampled per training image for the box head and the mask head."
    )
    max_detections: _Regions = Field(100, description="Largest number of detections per image of the evaluation.")
    anchor_scale: int = Field(8, gt=0, le=1000, description="Side of the anchors, in strides of their pyramid level.")

    def contradictions(self) -> dict[str, str]:
        found = super().contradictions()
        late = [epoch for epoch in self.milestones if epoch >= self.epochs]
        if late:
            found["milestones"] = (
                f"expected milestones before the end of the training, which has {self.epochs} epochs, found {late[0]}"
            )
        return found

    def steps(self, images: int) -> int:
        return self.epochs * (images // self.batch_size)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.resize, self.resize


RECIPE_TYPES: dict[str, type[Recipe]] = {
    "classification": ClassificationRecipe,
    "segmentation": SegmentationRecipe,
    "detection": DetectionRecipe,
}


class Sourced(StrictModel):
    """A value of a recipe with its source."""

    value: Any = Field(description="The value of the key.")
    source: str = Field(min_length=3, description="Where the value is published, or that it is the project's choice.")


class Departure(StrictModel):
    """Models that the recipe knowingly trains in another way than the paper's source of their rows."""

    models: tuple[str, ...] = Field(min_length=1, description="Shell patterns of the models: `resnet*`.")
    why: str = Field(min_length=3, description="What differs, one clause. Verdicts on these models contain it.")


class RecipeFile(StrictModel):
    """The recipe of one task."""

    task: Task = Field(description="Task of the recipe.")
    defaults: dict[str, Sourced] = Field(
        description="Values for all models. Every key without a default is required."
    )
    by_family: dict[str, dict[str, Sourced]] = Field(
        {}, description="Other values for the models of a family, by family."
    )
    by_size: dict[str, dict[str, Sourced]] = Field(
        {},
        description="Other values for the models of a size (`tiny`, `small`, `medium`, `large`), by size. A family "
        "with an entry in `by_family` does not use them.",
    )
    departures: tuple[Departure, ...] = Field(
        (),
        description="Models that the recipe knowingly trains in another way than the paper's source of their rows. "
        "Their figures are not compared with the paper's.",
    )

    def layers(self, model: ModelSpec) -> dict[str, Sourced]:
        """Return the values that apply to ``model``. Later layers win."""
        family = self.by_family.get(model.family, {})
        # A size layer belongs to the default recipe. It does not fit a family with its own recipe (SGD for ResNets).
        size = {} if family else self.by_size.get(model.size, {})
        return {**self.defaults, **family, **size}

    def resolved(self, model: ModelSpec) -> Recipe:
        """Return the recipe of ``model`` without the overrides of an experiment.

        Raises:
            ValidationError: If values of a checked file do not fit together, which `load_recipe` reports.
        """
        values = {key: item.value for key, item in self.layers(model).items()}
        return RECIPE_TYPES[self.task].model_validate(nested(values))


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Turn keys with a dot into nested sections: ``{"a.b": 1}`` -> ``{"a": {"b": 1}}``."""
    found: dict[str, Any] = {key: value for key, value in values.items() if "." not in key}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if not dot:
            continue
        if section in values:
            # The section is a plain key, so this key is unknown. It is kept as it is and refused by the validation.
            found[key] = value
        else:
            found.setdefault(section, {})[name] = value
    return found


def key_of(location: tuple[str | int, ...], values: dict[str, Any]) -> str:
    """Return the key of ``values`` to which the location of a validation error belongs."""
    return str(location[0]) if location[0] in values else ".".join(map(str, location[:2]))


def field_of(kind: type[Recipe], key: str) -> FieldInfo | None:
    """Return the field of a recipe for ``key``, which may contain a dot; None if the recipe has no such key."""
    section, dot, name = key.partition(".")
    owner = kind.sections.get(section) if dot else kind
    return (
        owner.model_fields.get(name if dot else section) if owner is not None and key not in kind.sections else None
    )


def load_recipe(path: Path, task: str) -> RecipeFile:
    """Read a recipe file and check its keys and values.

    Raises:
        UserError: With every problem of the file.
    """
    source = YamlFile(path)
    recipe = source.validate(RecipeFile)
    if recipe.task != task:
        raise UserError(source.problem(("task",), f"expected {task!r}, found {recipe.task!r}"))
    kind = RECIPE_TYPES[task]
    problems: list[Problem] = []
    layers: dict[KeyPath, dict[str, Sourced]] = {("defaults",): recipe.defaults}
    layers |= {("by_family", name): layer for name, layer in recipe.by_family.items()}
    layers |= {("by_size", name): layer for name, layer in recipe.by_size.items()}
    reported: set[tuple[str, str]] = set()
    for at, layer in layers.items():
        merged = {key: item.value for key, item in {**recipe.defaults, **layer}.items()}
        try:
            for key, message in kind.model_validate(nested(merged)).contradictions().items():
                if (key, message) not in reported:
                    reported.add((key, message))
                    problems.append(source.problem((*at, key), message))
        except ValidationError as error:
            for item in error.errors():
                key = key_of(item["loc"], merged)
                section = key.partition(".")[0] + "."
                if at == ("defaults",) or key in layer or any(name.startswith(section) for name in layer):
                    problems.append(source.problem((*at, key), describe(item)))
    for section, known in (("by_family", {spec.family for spec in CATALOG.values()}), ("by_size", SIZES)):
        for name in getattr(recipe, section):
            if name not in known:
                message = f"expected one of {', '.join(sorted(known))}, found {shown(name)}"
                problems.append(source.problem((section, name), message))
    for index, departure in enumerate(recipe.departures):
        for position, pattern in enumerate(departure.models):
            if not any(fnmatchcase(name, pattern) for name in CATALOG):
                message = f"{shown(pattern)} matches no known model"
                problems.append(source.problem(("departures", index, "models", position), message))
    if problems:
        raise UserError(problems)
    return recipe
