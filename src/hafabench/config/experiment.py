"""The schema of an experiment: what `configs/*.yaml` may say, checked whole before anything runs.

Imports no torch. `load_experiment` is the one entry; `hafabench.runs.run` turns the result into runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError, field_validator, model_validator

from hafabench.config.base import RenamedKeysModel, StrictModel
from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.config.claims import ClaimsConfig, load_claims_config
from hafabench.config.custom_models import ModelConfig
from hafabench.config.recipes import RECIPE_TYPES, TASKS, RecipeFile, Task, field_of, load_recipe
from hafabench.config.tables import TableLayout, load_table_layouts
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError

FORMAT_OF_TASK = {"classification": "imagenet", "segmentation": "ade20k", "detection": "coco"}


class DigitsGenerator(StrictModel):
    """How to compose the embedded scenes.

    Attributes:
        seed: of the composition and of the split of the source scans.
        image_size: side of the square scenes, pixels.
        max_objects: most digits in one scene (one in classification scenes).
    """

    kind: Literal["digits"]
    seed: int = 0
    image_size: int = Field(ge=32, le=1024)
    max_objects: int = Field(1, ge=1, le=20)


class DatasetConfig(RenamedKeysModel):
    """A data set on disk.

    Attributes:
        name: the name in records and tables.
        data_format: ``imagenet`` (root/{train,val}/<class>/*), ``coco`` (root/{train2017,val2017} and
            root/annotations/instances_{train,val}2017.json) or ``ade20k`` (root/{images,annotations}/
            {training,validation}).
        root: its folder, relative to the repository's root or absolute.
        num_classes: classes that a head predicts.
        images: expected number of images per split; verified before training.
        generator: how to make it, for embedded data; None for data that has to be there.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    data_format: Literal["imagenet", "coco", "ade20k"] = Field(
        validation_alias=AliasChoices("format", "layout", "data_format"), serialization_alias="layout"
    )
    root: Path
    num_classes: int = Field(gt=0)
    images: dict[Literal["train", "val"], int]
    generator: DigitsGenerator | None = None

    def identity(self) -> dict[str, Any]:
        """What makes it this data set, wherever it lies: the part that enters a run's fingerprint."""
        return self.model_dump(mode="json", by_alias=True, exclude={"root"})


class Override(StrictModel):
    """Recipe values changed for the runs whose id matches ``runs`` (shell pattern); later entries win."""

    runs: str
    set: dict[str, Any] = Field(min_length=1)
    why: str = Field(min_length=3)


class ComplexityConfig(StrictModel):
    """Input sizes (height, width) at which parameters and multiply-accumulates are counted, per task."""

    image_size: dict[Task, tuple[int, int]]
    num_classes: dict[Task, int]


class LatencyConfig(StrictModel):
    """One interleaved latency measurement of several models in one process.

    Attributes:
        name: of the measurement and its record.
        models, baseline: timed round robin; ratios are against ``baseline``, pair by pair.
        image_size, batch_size: of the input.
        warmup: fewest rounds discarded; more are, until the speed is steady.
        repeats: most rounds measured.
        threads: CPU threads; None leaves torch's default.
        interval: half width to which every ratio is wanted, relative; measuring ends once it is reached. None
            measures ``repeats`` rounds.
        throughput_batch: measure throughput as well, at this batch size.
    """

    # Added since the first records: at their defaults they are no part of a fingerprint.
    later: ClassVar[frozenset[str]] = frozenset({"interval", "throughput_batch"})

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    baseline: str
    models: list[str] = Field(min_length=1)
    image_size: int = Field(224, gt=0)
    batch_size: int = Field(1, gt=0)
    warmup: int = Field(5, ge=0)
    repeats: int = Field(gt=1)
    threads: int | None = Field(None, gt=0)
    interval: float | None = Field(None, gt=0, lt=1)
    throughput_batch: int | None = Field(None, gt=1)

    def identity(self) -> dict[str, Any]:
        """What makes it this measurement: the part that enters its fingerprint."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if key not in self.later or value is not None}


class ExperimentConfig(StrictModel):
    """An experiment file."""

    experiment: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    scale: Literal["embedded", "full"]
    seeds: list[int] = Field(min_length=1)
    datasets: dict[Task, DatasetConfig]
    recipes: Path = Path("recipes")
    tables: Path = Path("tables.yaml")
    paper_values: Path = Path("paper_values.csv")
    claims: Path = Path("claims.yaml")
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    train: dict[Task, list[str]]
    overrides: list[Override] = Field(default_factory=list)
    complexity: ComplexityConfig
    latency: list[LatencyConfig] = Field(default_factory=list)

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"expected different seeds, found {seeds}")
        return seeds

    @model_validator(mode="after")
    def _every_task_has_data(self) -> ExperimentConfig:
        missing = [task for task in self.train if task not in self.datasets]
        if missing:
            raise ValueError(f"no entry under datasets for {', '.join(missing)}")
        return self


@dataclass(frozen=True)
class Experiment:
    """A checked experiment with everything its file refers to.

    Attributes:
        file: the experiment file.
        config: its content.
        models: every model name that it may use.
        recipes: the recipe file of each task.
        table_layouts: the tables, in order.
        tables_file: the file that defines them.
        paper_values: the paper's printed values (CSV).
        claims_config: conventions, tolerances and notes by which the printed values are checked.
        claims_file: the file that defines them.
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
        """The experiment's name, which names its folders."""
        return self.config.experiment

    @property
    def results(self) -> Path:
        """Folder of its runs and records."""
        return Path("results") / self.name

    @property
    def reports(self) -> Path:
        """Folder of what is generated from them."""
        return Path("reports") / self.name


def load_experiment(path: Path) -> Experiment:
    """Read an experiment and everything it names.

    Args:
        path: the experiment's YAML file.

    Raises:
        UserError: with every problem of all the files involved: file, line, key, expectation.
    """
    source = YamlFile(path)
    config = source.validate(ExperimentConfig)
    problems: list[Problem | str] = []
    models = _models(source, config, problems)
    folder = source.path.parent
    recipes: dict[str, RecipeFile] = {}
    for task in TASKS:
        _collect(
            problems,
            lambda task=task: recipes.update({task: load_recipe(folder / config.recipes / f"{task}.yaml", task)}),
        )
    layouts: list[TableLayout] = []
    _collect(problems, lambda: layouts.extend(load_table_layouts(folder / config.tables)))
    paper_values = folder / config.paper_values
    if not paper_values.is_file():
        problems.append(source.problem(("paper_values",), f"no such file: {paper_values}"))
    claims_file = folder / config.claims
    claims: list[ClaimsConfig] = []
    _collect(problems, lambda: claims.append(load_claims_config(claims_file)))
    _check_names(source, config, models, problems)
    _check_layout_models(folder / config.tables, layouts, models, problems)
    for task, dataset in config.datasets.items():
        if dataset.data_format != FORMAT_OF_TASK[task]:
            at = ("datasets", task, source.spelling(("datasets", task), "format", "layout"))
            problems.append(source.problem(at, f"expected {FORMAT_OF_TASK[task]!r}, found {dataset.data_format!r}"))
    for index, override in enumerate(config.overrides):
        _check_override(source, index, override, problems)
    if problems:
        raise UserError(problems)
    tables = folder / config.tables
    return Experiment(source.path, config, models, recipes, layouts, tables, paper_values, claims[0], claims_file)


def _collect(problems: list[Problem | str], load) -> None:
    try:
        load()
    except UserError as error:
        problems.extend(error.problems)


def _models(source: YamlFile, config: ExperimentConfig, problems: list[Problem | str]) -> dict[str, ModelSpec]:
    models = dict(CATALOG)
    for name, entry in config.models.items():
        at = ("models", name)
        if name in CATALOG:
            problems.append(source.problem(at, "this name is taken by a model of the paper; choose another"))
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


def unknown_model(name: str, models: dict[str, ModelSpec]) -> str:
    """A sentence for a name that is no model, with the nearest names that are."""
    near = get_close_matches(name, models, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`hafabench models` lists the known ones"
    return f"unknown model {name!r}; {hint}"


def _check_names(
    source: YamlFile, config: ExperimentConfig, models: dict[str, ModelSpec], problems: list[Problem | str]
) -> None:
    named = [
        (("train", task, index), name) for task, names in config.train.items() for index, name in enumerate(names)
    ]
    for index, group in enumerate(config.latency):
        at = ("latency", index)
        named.append(((*at, "baseline"), group.baseline))
        named += [((*at, "models", position), name) for position, name in enumerate(group.models)]
    for at, name in named:
        if name not in models:
            problems.append(source.problem(at, unknown_model(name, models)))
    for task, names in config.train.items():
        for index, name in enumerate(names):
            if name in names[:index]:
                problems.append(source.problem(("train", task, index), f"model {name!r} listed twice"))


def _check_layout_models(
    file: Path, layouts: list[TableLayout], models: dict[str, ModelSpec], problems: list[Problem | str]
) -> None:
    for layout in layouts:
        for row in layout.rows:
            for name in filter(None, (row.model, row.baseline)):
                if name not in models:
                    problems.append(Problem(str(file), f"{layout.id}.{row.label}", unknown_model(name, models)))


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
        try:
            TypeAdapter(Annotated[field.annotation, field]).validate_python(value)
        except ValidationError as error:
            problems += source.problems_of(error, (*at, "set", key))
