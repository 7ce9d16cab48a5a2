"""The schema of an experiment file, and the check of everything that the file refers to.

This module imports no torch. `load_experiment` is its entry point; `hafabench.runs.run` expands the result into runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError, field_validator, model_validator

from hafabench.config.base import RenamedKeysModel, StrictModel, UserPath, checking_numbers, shown
from hafabench.config.bounds import (
    MAX_BATCH,
    MAX_GPUS,
    MAX_SEEDS,
    Batch,
    Classes,
    Images,
    Seed,
    Side,
    SmallerFirst,
    Threads,
    batch_problem,
)
from hafabench.config.catalog import CATALOG, MIN_DEPTH, MIN_WIDTH, WITHOUT_PYRAMID, ModelSpec, side_problem
from hafabench.config.claims import ClaimsConfig, load_claims_config
from hafabench.config.custom_models import ModelConfig, WeightsConfig
from hafabench.config.names import Name, pattern_problem, same_folded
from hafabench.config.recipes import RECIPE_TYPES, TASKS, RecipeFile, Task, field_of, load_recipe
from hafabench.config.shipped import own_or_shipped
from hafabench.config.tables import TableLayout, load_table_layouts
from hafabench.config.yaml_file import KeyPath, YamlFile
from hafabench.errors import Problem, UserError

DataFormat = Literal["imagenet", "coco", "ade20k"]
Scale = Literal["embedded", "custom", "full"]
FORMAT_OF_TASK = {"classification": "imagenet", "segmentation": "ade20k", "detection": "coco"}


MOST_MASK_CLASSES = 254
"""The largest number of classes that 8-bit masks can distinguish beside unlabelled and ignored pixels."""

DIGITS_CLASSES = {"imagenet": 10, "coco": 10, "ade20k": 11}
"""Classes of the embedded scenes by data format. Segmentation has the background as well."""

_MOST_DIGITS = 10**6

_Height = Annotated[float, Field(ge=0.05, le=1.2)]


class DigitsGenerator(StrictModel):
    """How the embedded scenes of handwritten digits are composed."""

    kind: Literal["digits"] = Field(description="The only generator.")
    seed: Seed = Field(
        0,
        description="Seed of the composition and of the division of the handwritten digits into train and val.",
    )
    image_size: int = Field(ge=32, le=1024, description="Side of the square scenes, in pixels.")
    max_objects: int = Field(
        1, ge=1, le=20, description="Largest number of digits in a scene. Classification scenes have one."
    )
    min_objects: int | None = Field(
        None,
        ge=1,
        le=20,
        description="Smallest number of digits that are drawn for a scene; null means two, or one if `max_objects` "
        "is 1. A digit that finds no place is left out.",
    )
    heights: Annotated[tuple[_Height, _Height], SmallerFirst] | None = Field(
        None,
        description="Smallest and largest height of the digits of a scene with several digits, relative to "
        "`image_size`. Heights are drawn so that their logarithms are uniform. Null means small and middle-sized "
        "digits, with one that fills most of the image in every fourth scene.",
    )
    background: Literal["textured", "plain"] = Field(
        "textured",
        description="`textured` draws stripes, bricks and other patterns with strong contrasts. `plain` draws soft "
        "clouds of two similar colours.",
    )
    strokes: Literal["varied", "bold"] = Field(
        "varied", description="Weight of the strokes: from thin to bold, or bold only."
    )
    ink: Literal["coloured", "pale"] = Field(
        "coloured",
        description="`coloured` digits have any colour that is lighter than the background, some with an outline of "
        "another colour. `pale` digits are nearly white.",
    )
    poses: Literal["varied", "upright"] = Field(
        "varied",
        description="`upright` digits are turned, slanted and stretched less than `varied` ones. A single digit is "
        "in the middle of its image.",
    )

    # Keys that were added after the first data sets were made. A fingerprint contains them unless they have their
    # default.
    added_later: ClassVar[frozenset[str]] = frozenset(
        {"min_objects", "heights", "background", "strokes", "ink", "poses"}
    )

    @model_validator(mode="after")
    def _counts_in_order(self) -> DigitsGenerator:
        if self.min_objects is not None and self.min_objects > self.max_objects:
            raise ValueError(
                f"min_objects: expected at most max_objects ({self.max_objects}), found {self.min_objects}"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Return what identifies the scenes. It is part of the fingerprints of the runs on them."""
        values = self.model_dump(mode="json")
        unchanged = {key for key in self.added_later if values[key] == type(self).model_fields[key].default}
        return {key: value for key, value in values.items() if key not in unchanged}


class DatasetConfig(RenamedKeysModel, populate_by_name=True):
    """The data set of one task."""

    name: Name = Field(description="Name of the data set in records and tables.")
    data_format: DataFormat = Field(
        validation_alias=AliasChoices("format", "layout"),
        serialization_alias="layout",
        description="Arrangement of the files below `root`. Classification needs `imagenet` "
        "(`{train,val}/<class>/*`), detection `coco` (`{train2017,val2017}/` and "
        "`annotations/instances_{train,val}2017.json`), and segmentation `ade20k` "
        "(`{images,annotations}/{training,validation}/`).",
    )
    root: UserPath = Field(
        description="Folder of the data set, absolute or relative to the working directory. In all paths `~` and "
        "environment variables are replaced; `$$` stands for a dollar sign."
    )
    num_classes: Classes = Field(description="Number of classes that a head predicts.")
    images: dict[Literal["train", "val"], Images] = Field(
        description="Expected number of images of each split. `hafabench data verify` checks it before a training."
    )
    generator: DigitsGenerator | None = Field(
        None, description="How the data set is generated; null for data that exists already."
    )

    @field_validator("images")
    @classmethod
    def _both_splits(cls, images: dict[str, int]) -> dict[str, int]:
        missing = [split for split in ("train", "val") if split not in images]
        if missing:
            raise ValueError(f"the number of images of {' and '.join(missing)} is missing")
        return images

    def problems(self) -> dict[str, str]:
        """Return a message for each key whose value the data format or the generator cannot have."""
        if self.generator is None:
            if self.data_format == "ade20k" and self.num_classes > MOST_MASK_CLASSES:
                message = f"expected at most {MOST_MASK_CLASSES} classes in 8-bit masks, found {self.num_classes}"
                return {"num_classes": message}
            return {}
        found: dict[str, str] = {}
        classes = DIGITS_CLASSES[self.data_format]
        if self.num_classes != classes:
            found["num_classes"] = f"digits have {classes}, found {self.num_classes}"
        # The classes of a classification data set are its folders, which must not be empty.
        least = classes if self.data_format == "imagenet" else 1
        for split, number in self.images.items():
            if number < least:
                found[f"images.{split}"] = f"expected {least} or more, found {number}"
            if number > _MOST_DIGITS:
                found[f"images.{split}"] = f"expected at most {_MOST_DIGITS:,} scenes, found {number:,}"
        return found

    def identity(self) -> dict[str, Any]:
        """Return what identifies the data set, without its folder. It is part of a run's fingerprint."""
        values = self.model_dump(mode="json", by_alias=True, exclude={"root"})
        return values if self.generator is None else {**values, "generator": self.generator.identity()}


class Override(StrictModel):
    """Other recipe values for some runs. Later overrides win."""

    runs: str = Field(
        description="Shell pattern of run ids (`<task>/<model>/seed<k>`). It starts with a task: "
        "`classification/pvt_tiny/*`."
    )
    set: dict[str, Any] = Field(
        min_length=1, description="New values by recipe key. The keys of a nested section are written with a dot."
    )
    why: str = Field(min_length=3, description="Reason. `hafabench explain` shows it as the source of the values.")

    @field_validator("runs")
    @classmethod
    def _is_pattern(cls, runs: str) -> str:
        problem = pattern_problem(runs)
        if problem:
            raise ValueError(problem)
        return runs


_PAPER_SIZES = {"classification": (224, 224), "segmentation": (512, 512), "detection": (800, 1280)}
_PAPER_CLASSES = {"classification": 1000, "segmentation": 150, "detection": 80}


class ComplexityConfig(StrictModel):
    """Input sizes and numbers of classes of the counted models. They are the paper's in every shipped experiment."""

    image_size: dict[Task, tuple[Side, Side]] = Field(
        description="Height and width of the input, in pixels, by task; the paper's for tasks that are left out."
    )
    num_classes: dict[Task, Classes] = Field(
        description="Number of classes of the head, by task; the paper's for tasks that are left out."
    )

    @field_validator("image_size")
    @classmethod
    def _all_sizes(cls, given: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        return {**given, **{task: size for task, size in _PAPER_SIZES.items() if task not in given}}

    @field_validator("num_classes")
    @classmethod
    def _all_classes(cls, given: dict[str, int]) -> dict[str, int]:
        return {**given, **{task: number for task, number in _PAPER_CLASSES.items() if task not in given}}


_MAX_ROUNDS = 10**6


class LatencyConfig(StrictModel):
    """A latency measurement. One process times several models in turn, so that their ratios can be compared."""

    # Keys that were added after the first records were made. They are part of a fingerprint unless they are None.
    added_later: ClassVar[frozenset[str]] = frozenset({"interval", "throughput_batch"})

    name: Name = Field(description="Name of the measurement and of its record.")
    baseline: str = Field(description="Model that the ratios refer to. It is timed in every round.")
    models: list[str] = Field(min_length=1, description="Other models that are timed in every round.")
    image_size: Side = Field(224, description="Side of the square input, in pixels.")
    batch_size: Batch = Field(1, description="Images per batch.")
    warmup: int = Field(
        5,
        ge=0,
        le=_MAX_ROUNDS,
        description="Smallest number of discarded rounds. More are discarded until the speed is steady.",
    )
    repeats: int = Field(gt=1, le=_MAX_ROUNDS, description="Largest number of measured rounds.")
    threads: Threads | None = Field(None, description="CPU threads; null uses torch's default.")
    interval: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Relative half width of the confidence interval of a ratio. The measurement ends when every "
        "ratio has reached it; null measures all `repeats` rounds.",
    )
    throughput_batch: int | None = Field(
        None,
        gt=1,
        description="Batch size of an additional throughput measurement; null measures none.",
    )

    @model_validator(mode="after")
    def _batches_fit(self) -> LatencyConfig:
        for key in ("batch_size", "throughput_batch"):
            batch = getattr(self, key) or 1
            problem = batch_problem(batch, self.image_size, self.image_size)
            if batch > MAX_BATCH:
                problem = f"expected at most {MAX_BATCH:,} images in a batch, found {batch:,}"
            if problem:
                raise ValueError(f"{key}: {problem}")
        return self

    def identity(self) -> dict[str, Any]:
        """Return what identifies the measurement. It is part of its fingerprint."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if key not in self.added_later or value is not None}


class ModelScale(StrictModel):
    """The size of the trained models as fractions of the paper's. The topology of a model does not change."""

    width: float = Field(
        1.0,
        ge=MIN_WIDTH,
        le=1,
        description="Channels of the models and of the dense heads, as a fraction of the paper's. The number of "
        "attention heads does not change, so each head is narrower.",
    )
    depth: float = Field(
        1.0, ge=MIN_DEPTH, le=1, description="Blocks of each stage, as a fraction of the paper's, rounded up."
    )

    @property
    def is_reduced(self) -> bool:
        """Whether the trained models are smaller than the paper's."""
        return (self.width, self.depth) != (1, 1)


class ExperimentConfig(StrictModel):
    """An experiment: data sets, the models to train, and what is measured."""

    experiment: Name = Field(
        description="Name of the experiment and of its folders below `results/` and `reports/`.",
    )
    title: str = Field(description="Title of the report.")
    scale: Scale = Field(
        description="`embedded` for the generated data on CPUs, `custom` for real data with image sizes or schedules "
        "other than the paper's, `full` for the paper's matrix on GPUs. Accuracies of different scales are never "
        "shown in one table. The scale decides no verdict on the paper's claims."
    )
    model_scale: ModelScale = Field(
        default_factory=ModelScale,
        description="Size of the trained models as fractions of the paper's. Complexity and latency are always "
        "measured on the models of full size.",
    )
    gpus: int | None = Field(
        None,
        ge=0,
        le=MAX_GPUS,
        description="Largest number of GPUs of one training. Null means none at `embedded` and `custom` scale, and "
        "the paper's number at `full` scale. An experiment that uses GPUs requests one for every evaluation and "
        "latency measurement.",
    )
    seeds: list[Seed] = Field(
        min_length=1, max_length=MAX_SEEDS, description="Seeds. Every model is trained once with each of them."
    )
    fewer_seeds: dict[str, list[Seed]] = Field(
        default_factory=dict,
        description="Models that are trained with some of the `seeds` only, for example `{swin_tiny: [0]}`. This "
        "applies to all tasks.",
    )
    datasets: dict[Task, DatasetConfig] = Field(description="Data set of each task.")
    recipes: UserPath | None = Field(
        None,
        description="Folder of the recipe files `<task>.yaml`, relative to the experiment file. By default each "
        "recipe is read from `recipes/` beside the experiment file, or else from the files of this project.",
    )
    tables: UserPath | None = Field(
        None,
        description="File of the tables, relative to the experiment file; by default `tables.yaml` beside it, or "
        "else the file of this project.",
    )
    paper_values: UserPath | None = Field(
        None,
        description="File of the paper's printed values, relative to the experiment file; by default "
        "`paper_values.csv` beside it, or else the file of this project.",
    )
    claims: UserPath | None = Field(
        None,
        description="File of the claims, relative to the experiment file; by default `claims.yaml` beside it, or "
        "else the file of this project.",
    )
    models: dict[Name, ModelConfig] = Field(
        default_factory=dict,
        description="Models that the experiment defines, by name, and published weights that models start from. "
        "Models of the catalog (`hafabench models`) can only be given `weights`.",
    )
    train: dict[Task, list[str]] = Field(
        description="Models to train for each task. `hafabench models` lists their names."
    )
    overrides: list[Override] = Field(default_factory=list, description="Other recipe values for some runs.")
    complexity: ComplexityConfig = Field(
        description="Sizes at which parameters and multiply-accumulates are counted."
    )
    latency: list[LatencyConfig] = Field(default_factory=list, description="Latency measurements.")

    @field_validator("experiment")
    @classmethod
    def _no_reserved_name(cls, name: str) -> str:
        if name.casefold() == "baseline":
            raise ValueError("results/baseline is the folder of the regression gate; expected another name")
        return name

    @field_validator("latency")
    @classmethod
    def _no_measurement_twice(cls, groups: list[LatencyConfig]) -> list[LatencyConfig]:
        for one, other in same_folded(group.name for group in groups):
            found = f"{one} twice" if one == other else f"{one} and {other}, which differ in case only"
            raise ValueError(f"expected different names of measurements, found {found}")
        return groups

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"expected different seeds, found {seeds}")
        return seeds

    @model_validator(mode="after")
    def _fewer_seeds_are_some_of_all(self) -> ExperimentConfig:
        trained = {name for names in self.train.values() for name in names}
        for name, own in self.fewer_seeds.items():
            if name not in trained:
                raise ValueError(f"fewer_seeds.{name}: no model under train has this name")
            if not own or len(set(own)) != len(own) or not set(own) <= set(self.seeds):
                raise ValueError(f"fewer_seeds.{name}: expected some of the seeds {self.seeds}, found {own}")
        return self

    def seeds_of(self, model: str) -> list[int]:
        """Return the seeds with which a model is trained."""
        return self.fewer_seeds.get(model, self.seeds)

    @model_validator(mode="after")
    def _generated_data_has_a_folder_of_its_own(self) -> ExperimentConfig:
        # Links are followed, so that one folder with two names is found.
        roots = {task: Path(os.path.realpath(dataset.root)) for task, dataset in self.datasets.items()}
        for task, other in permutations(self.datasets, 2):
            ours, theirs = self.datasets[task], self.datasets[other]
            if not (roots[other] == roots[task] or roots[task] in roots[other].parents):
                continue
            if ours.generator is not None:
                raise ValueError(
                    f"datasets.{other}.root: {theirs.root} is in the folder of the generated data for {task} "
                    f"(datasets.{task}.root: {ours.root}), which is replaced as a whole; expected another folder"
                )
            if theirs.generator is not None:
                raise ValueError(
                    f"datasets.{other}.root: {theirs.root} is in the folder of the data for {task} "
                    f"(datasets.{task}.root: {ours.root}); expected another folder for generated data"
                )
        return self

    @model_validator(mode="after")
    def _gpus_fit_scale(self) -> ExperimentConfig:
        if self.scale == "embedded" and self.gpus:
            raise ValueError(f"gpus: embedded experiments run on CPUs, found {self.gpus}; scale: custom may use GPUs")
        if self.scale == "full" and self.gpus == 0:
            raise ValueError("gpus: experiments of full scale need at least one; scale: custom may run on CPUs")
        return self

    @property
    def uses_gpus(self) -> bool:
        """Whether trainings, evaluations and latency measurements request GPUs."""
        return self.scale == "full" or bool(self.gpus)

    @model_validator(mode="after")
    def _every_task_has_data(self) -> ExperimentConfig:
        missing = [task for task in self.train if task not in self.datasets]
        if missing:
            raise ValueError(f"no entry under datasets for {', '.join(missing)}")
        return self


@dataclass(frozen=True)
class Experiment:
    """A checked experiment with everything that its file refers to.

    Attributes:
        file: The experiment file.
        config: The content of the experiment file.
        models: All models that the experiment may use, by name, in full size. `trained_model` returns the model of a
            run.
        recipes: The recipe file of each task.
        table_layouts: The table layouts, in the order of the report.
        tables_file: The file of the table layouts.
        paper_values: The CSV file of the paper's printed values.
        claims_config: Conventions, tolerances and notes by which the printed values are checked.
        claims_file: The file of the claims.
    """

    file: Path
    config: ExperimentConfig
    models: dict[str, ModelSpec]
    recipes: dict[str, RecipeFile]
    table_layouts: list[TableLayout]
    tables_file: Path
    paper_values: Path
    claims_config: ClaimsConfig
    claims_file: Path

    @property
    def name(self) -> str:
        """The name of the experiment and of its folders."""
        return self.config.experiment

    def companion(self, name: str) -> Path:
        """Return the file ``name`` in the folder of the tables file, or the shipped one if there is none.

        If the experiment uses tables by default, the file is sought beside the experiment file.
        """
        return own_or_shipped((self.file if self.config.tables is None else self.tables_file).parent, name)

    def trained_model(self, name: str) -> ModelSpec:
        """Return a model in the size in which this experiment trains it."""
        scale = self.config.model_scale
        return replace(self.models[name], width=scale.width, depth=scale.depth)

    @property
    def weights(self) -> dict[str, WeightsConfig]:
        """The published weights from which the dense runs of models start, by model."""
        return {name: entry.weights for name, entry in self.config.models.items() if entry.weights is not None}

    @property
    def results(self) -> Path:
        """The folder of the experiment's runs and records."""
        return Path("results") / self.name

    @property
    def reports(self) -> Path:
        """The folder of the reports that are generated from the records."""
        return Path("reports") / self.name


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file and every file that it refers to.

    Args:
        path: The experiment file.

    Raises:
        UserError: With every problem of all these files, each with file, line, key and expectation.
    """
    source = YamlFile(path)
    config = source.validate(ExperimentConfig)
    problems: list[Problem | str] = []
    models = _models(source, config, problems)
    folder = source.path.parent
    recipes: dict[str, RecipeFile] = {}
    for task in TASKS:
        with _collected(problems):
            name = f"{task}.yaml"
            given = config.recipes and folder / config.recipes / name
            recipes[task] = load_recipe(given or own_or_shipped(folder, f"recipes/{name}"), task)
    tables = _file(folder, config.tables, "tables.yaml")
    table_layouts: list[TableLayout] = []
    with _collected(problems):
        table_layouts = load_table_layouts(tables)
    paper_values = _file(folder, config.paper_values, "paper_values.csv")
    if not paper_values.is_file():
        problems.append(source.problem(("paper_values",), f"no such file: {paper_values}"))
    claims_file = _file(folder, config.claims, "claims.yaml")
    claims: ClaimsConfig | None = None
    with _collected(problems):
        claims = load_claims_config(claims_file)
    _check_names(source, config, models, problems)
    _check_weights(source, config, problems)
    _check_table_models(tables, table_layouts, models, problems)
    for task, dataset in config.datasets.items():
        if dataset.data_format != FORMAT_OF_TASK[task]:
            at = ("datasets", task, source.spelling(("datasets", task), "format", "layout"))
            problems.append(source.problem(at, f"expected {FORMAT_OF_TASK[task]!r}, found {dataset.data_format!r}"))
            continue
        for key, message in dataset.problems().items():
            problems.append(source.problem(("datasets", task, *key.split(".")), message))
    for index, override in enumerate(config.overrides):
        _check_override(source, index, override, problems)
    if problems or claims is None:
        raise UserError(problems)
    return Experiment(source.path, config, models, recipes, table_layouts, tables, paper_values, claims, claims_file)


def _file(folder: Path, given: Path | None, name: str) -> Path:
    """Return the file that an experiment in ``folder`` gives, or the file ``name`` that it uses by default."""
    return own_or_shipped(folder, name) if given is None else folder / given


@contextmanager
def _collected(problems: list[Problem | str]) -> Iterator[None]:
    """Add the problems of a `UserError` to ``problems``."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)


def _models(source: YamlFile, config: ExperimentConfig, problems: list[Problem | str]) -> dict[str, ModelSpec]:
    models = dict(CATALOG)
    for one, other in same_folded(dict.fromkeys([*CATALOG, *config.models])):
        message = f"expected a name that differs from {one} not only in case, because both are names of folders"
        problems.append(source.problem(("models", other), message))
    for name, entry in config.models.items():
        at = ("models", name)
        if name in CATALOG:
            problems += _catalog_model_problems(source, at, entry)
            continue
        if entry.base is None:
            message = f"a model of your own needs its base. Or is it misspelt? {unknown_model(name, models)}"
            problems.append(source.problem((*at, "base"), message))
            continue
        base = CATALOG.get(entry.base)
        if base is None:
            problems.append(source.problem((*at, "base"), unknown_model(entry.base, models)))
            continue
        wrong = entry.problem(base)
        if wrong:
            key, message = wrong
            problems.append(source.problem((*at, key), message))
        else:
            models[name] = entry.derived(base, name)
    return models


def _catalog_model_problems(source: YamlFile, at: KeyPath, entry: ModelConfig) -> list[Problem]:
    if entry.model_fields_set == {"weights"}:
        return []
    message = "a model of the paper has this name, and only its weights can be set; choose another name for your own"
    return [source.problem(at, message)]


def _check_weights(source: YamlFile, config: ExperimentConfig, problems: list[Problem | str]) -> None:
    dense = {name for task, names in config.train.items() if task != "classification" for name in names}
    for name, entry in config.models.items():
        if entry.weights is not None and name not in dense:
            message = "only dense runs use them; list the model under train.segmentation or train.detection"
            problems.append(source.problem(("models", name, "weights"), message))


def unknown_model(name: str, models: dict[str, ModelSpec]) -> str:
    """Return the message for an unknown model, with the most similar names of known models."""
    near = get_close_matches(name, models, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`hafabench models` lists the known ones"
    return f"unknown model {shown(name)}; {hint}"


def _check_names(
    source: YamlFile, config: ExperimentConfig, models: dict[str, ModelSpec], problems: list[Problem | str]
) -> None:
    named: list[tuple[KeyPath, str]] = [
        (("train", task, index), name) for task, names in config.train.items() for index, name in enumerate(names)
    ]
    for index, group in enumerate(config.latency):
        named.append((("latency", index, "baseline"), group.baseline))
        named += [(("latency", index, "models", position), name) for position, name in enumerate(group.models)]
    for at, name in named:
        if name not in models:
            problems.append(source.problem(at, unknown_model(name, models)))
    for index, group in enumerate(config.latency):
        for position, name in enumerate(group.models):
            if name == group.baseline or name in group.models[:position]:
                hint = "is the baseline already" if name == group.baseline else "is listed twice"
                problems.append(source.problem(("latency", index, "models", position), f"model {name!r} {hint}"))
        for name in (group.baseline, *group.models):
            problem = side_problem(models[name], group.image_size) if name in models else None
            if problem:
                problems.append(source.problem(("latency", index, "image_size"), problem))
    for task, names in config.train.items():
        for index, name in enumerate(names):
            if task != "classification" and name in models and models[name].family in WITHOUT_PYRAMID:
                message = f"model {name!r} has no feature pyramid, which {task} needs"
                problems.append(source.problem(("train", task, index), message))
            if name in names[:index]:
                problems.append(source.problem(("train", task, index), f"model {name!r} is listed twice"))


def _check_table_models(
    file: Path, table_layouts: list[TableLayout], models: dict[str, ModelSpec], problems: list[Problem | str]
) -> None:
    for table_layout in table_layouts:
        for row in table_layout.rows:
            for name in filter(None, (row.model, row.baseline)):
                if name not in models:
                    problems.append(Problem(str(file), f"{table_layout.id}.{row.label}", unknown_model(name, models)))


def _check_override(source: YamlFile, index: int, override: Override, problems: list[Problem | str]) -> None:
    at = ("overrides", index)
    task = override.runs.split("/")[0]
    if task not in RECIPE_TYPES:
        expected = "expected a pattern that starts with a task, like 'classification/pvt_tiny/*'"
        problems.append(source.problem((*at, "runs"), f"{expected}, found {override.runs!r}"))
        return
    kind = RECIPE_TYPES[task]
    for key, value in override.set.items():
        field = field_of(kind, key)
        if field is None:
            problems.append(source.problem((*at, "set", key), f"unknown key of the {task} recipe"))
            continue
        annotation = checking_numbers(Annotated[field.annotation, field])
        try:
            TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            problems += source.problems_of(error, (*at, "set", key))
