"""An experiment becomes runs: pure data, no torch, the same order every time.

A run is (task, model, data set, seed) with a resolved recipe. Its fingerprint covers everything that can change its
numbers, its starting weights' run included, so that equal fingerprints mean equal work.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hafabench.catalog import ModelSpec
from hafabench.config import DatasetConfig, Experiment, LatencyConfig
from hafabench.errors import Problem, UserError
from hafabench.recipes import RECIPE_TYPES, TASKS, Recipe, key_of, nested
from hafabench.yamlfile import describe

# Latencies are left out: they mean something only beside those of the same process.
IMPORTED_VERBS = ("evaluate", "complexity")


@dataclass(frozen=True)
class Run:
    """One training with its evaluation.

    Attributes:
        task, model, seed: what is trained; ``id`` is made of them.
        dataset: what it is trained and evaluated on.
        recipe: resolved values; a subclass of `Recipe` by task.
        sources: where each recipe value is written down.
        parent: the classification run whose weights initialise a dense run's backbone, or a model that learns to drop
            tokens and imitates it.
        fingerprint: of all of the above that can change a number.
        folder: everything about the run lies here.
    """

    task: str
    model: ModelSpec
    seed: int
    dataset: DatasetConfig
    recipe: Recipe
    sources: dict[str, str]
    parent: Run | None
    fingerprint: str
    folder: Path

    @property
    def id(self) -> str:
        """Readable path: ``classification/pvt_tiny_hafa/seed0``."""
        return run_id(self.task, self.model.name, self.seed)

    @property
    def checkpoint(self) -> Path:
        """Final weights with their provenance."""
        return self.folder / "checkpoint.pth"

    @property
    def record(self) -> Path:
        """Record of the evaluation."""
        return self.folder / "evaluate.json"

    @property
    def predictions(self) -> Path:
        """What each image came to in the evaluation; beside the record, which holds its SHA-256."""
        return self.record.with_name("predictions.npz")

    @property
    def history(self) -> Path:
        """Loss, learning rate and throughput along the training, one JSON object a line."""
        return self.folder / "history.jsonl"

    @property
    def work(self) -> Path:
        """Periodic checkpoints; not an output of any rule, so that a failed job keeps them."""
        return self.folder / "work"

    def resolved(self) -> dict[str, Any]:
        """The resolved configuration as plain data, as it is kept beside the run."""
        return {
            "id": self.id,
            "fingerprint": self.fingerprint,
            "model": asdict(self.model),
            "dataset": self.dataset.model_dump(mode="json"),
            "recipe": self.recipe.model_dump(mode="json"),
            "sources": self.sources,
            "parent": self.parent.id if self.parent else None,
        }


def run_id(task: str, model: str, seed: int) -> str:
    """``("segmentation", "pvt_tiny", 0)`` -> ``segmentation/pvt_tiny/seed0``."""
    return f"{task}/{model}/seed{seed}"


def expand(experiment: Experiment) -> dict[str, Run]:
    """Every run of an experiment by id: parents before the runs that start from them.

    Raises:
        UserError: for recipe values that do not fit together, a run without the classification run that it starts
            from, or an override that matches no run.
    """
    config = experiment.config
    runs: dict[str, Run] = {}
    problems: list[Problem | str] = []
    matched = [False] * len(config.overrides)
    for task in TASKS:
        # A model that drops tokens starts from another run of its task: those come last.
        for name in sorted(config.train.get(task, []), key=lambda name: experiment.models[name].keep is not None):
            for seed in config.seeds:
                try:
                    run = _resolve(experiment, task, name, seed, runs, matched)
                except UserError as error:
                    problems.extend(error.problems)
                else:
                    runs[run.id] = run
    file = str(experiment.file)
    for index, override in enumerate(config.overrides):
        if not matched[index] and not problems:
            message = f"pattern {override.runs!r} matches no run of this experiment"
            problems.append(Problem(file, f"overrides[{index}].runs", message))
    if problems:
        raise UserError(problems)
    return runs


def _resolve(
    experiment: Experiment, task: str, name: str, seed: int, runs: dict[str, Run], matched: list[bool]
) -> Run:
    model = experiment.models[name]
    identifier = run_id(task, name, seed)
    values, sources = {}, {}
    for key, item in experiment.recipes[task].layers(model).items():
        values[key], sources[key] = item.value, item.source
    for index, override in enumerate(experiment.config.overrides):
        if fnmatchcase(identifier, override.runs):
            matched[index] = True
            for key, value in override.set.items():
                values[key], sources[key] = value, f"{experiment.file.name}: {override.why}"
    try:
        recipe = RECIPE_TYPES[task].model_validate(nested(values))
    except ValidationError as error:
        raise UserError(
            [
                Problem(str(experiment.file), f"{identifier}: {key_of(e['loc'], values)}", describe(e))
                for e in error.errors()
            ]
        ) from None
    misfits = recipe.misfits(experiment.config.datasets[task].images["train"])
    if misfits:
        file = str(experiment.file)
        raise UserError([Problem(file, f"{identifier}: {key}", message) for key, message in misfits.items()])
    parent = None
    start = name if task != "classification" else _teacher(experiment, identifier, model, recipe)
    if start is not None:
        parent = runs.get(run_id("classification", start, seed))
        if parent is None:
            message = f"starts from the classification run of {start!r}, which train.classification does not list"
            raise UserError(Problem(str(experiment.file), f"train.{task}", message))
    dataset = experiment.config.datasets[task]
    return Run(
        task=task,
        model=model,
        seed=seed,
        dataset=dataset,
        recipe=recipe,
        sources=sources,
        parent=parent,
        fingerprint=fingerprint(
            {
                "task": task,
                "model": _identity(model),
                "dataset": dataset.identity(),
                "recipe": recipe.identity(),
                "seed": seed,
                "parent": parent.fingerprint if parent else None,
            }
        ),
        folder=experiment.results / identifier,
    )


def _teacher(experiment: Experiment, identifier: str, model: ModelSpec, recipe: Recipe) -> str | None:
    """The model that a classification run starts from and learns from, None where it starts from nothing."""
    pruning = recipe.token_pruning
    if (pruning is None) != (model.keep is None):
        message = "expected for models that drop tokens, and for them alone"
        raise UserError(Problem(str(experiment.file), f"{identifier}: token_pruning", message))
    return pruning.teacher if pruning is not None else None


def _identity(model: ModelSpec) -> dict[str, Any]:
    # The name is a label; what is computed follows from the rest. Keep rates came after the first records.
    ignored = {"name"} if model.keep is not None else {"name", "keep"}
    return {k: v for k, v in asdict(model).items() if k not in ignored}


def complexity_models(experiment: Experiment, task: str) -> list[ModelSpec]:
    """The models whose complexity the tables need for ``task``, in the tables' order."""
    names: dict[str, None] = {}
    for layout in experiment.layouts:
        if any(column.task == task and column.latency is None for column in layout.columns):
            names.update((row.model, None) for row in layout.rows)
    names.update((name, None) for name in experiment.config.train.get(task, []))
    return [experiment.models[name] for name in names]


def complexity_fingerprint(experiment: Experiment, task: str) -> str:
    """Fingerprint of one task's complexity measurement."""
    config = experiment.config.complexity
    return fingerprint(
        {
            "complexity": task,
            "image_size": config.image_size[task],
            "num_classes": config.num_classes[task],
            "models": {model.name: _identity(model) for model in complexity_models(experiment, task)},
        }
    )


def latency_fingerprint(experiment: Experiment, group: LatencyConfig) -> str:
    """Fingerprint of one latency measurement."""
    names = [group.baseline, *group.models]
    models = {name: _identity(experiment.models[name]) for name in names}
    return fingerprint({"latency": group.identity(), "models": models})


def dataset_report(experiment: Experiment, task: str) -> Path:
    """Where the report of the task's verified data set lies."""
    return experiment.results / "data" / f"{task}.json"


def complexity_record(experiment: Experiment, task: str) -> Path:
    """Where the complexity record of a task lies."""
    return experiment.results / "complexity" / f"{task}.json"


def latency_record(experiment: Experiment, group: LatencyConfig) -> Path:
    """Where the record of a latency group lies."""
    return experiment.results / "latency" / f"{group.name}.json"


def expected_records(experiment: Experiment) -> dict[Path, str]:
    """Every record that the experiment's tables are made of, with the fingerprint it has to carry."""
    expected = {run.record: run.fingerprint for run in expand(experiment).values()}
    for task in TASKS:
        expected[complexity_record(experiment, task)] = complexity_fingerprint(experiment, task)
    for group in experiment.config.latency:
        expected[latency_record(experiment, group)] = latency_fingerprint(experiment, group)
    return expected


def imported_fingerprint(experiment: Experiment, verb: str, task: str) -> str:
    """Fingerprint of what imported numbers are said to be about: the task's data set, or the sizes of counting.

    It goes stale with them, and not with recipes, which had no part in the numbers.
    """
    if verb == "evaluate":
        return fingerprint({"imported": task, "dataset": experiment.config.datasets[task].identity()})
    config = experiment.config.complexity
    sizes = {"image_size": config.image_size[task], "num_classes": config.num_classes[task]}
    return fingerprint({"imported": task, **sizes})


def imported_folder(experiment: Experiment, verb: str, task: str, model: str) -> Path:
    """Where the imported records of a model lie."""
    return experiment.results / "imported" / verb / task / model


def imported_records(experiment: Experiment) -> dict[Path, str]:
    """Every imported record that is there, with the fingerprint that it has to carry."""
    found: dict[Path, str] = {}
    for verb in IMPORTED_VERBS:
        for task in TASKS:
            if verb == "complexity" or task in experiment.config.datasets:
                mark = imported_fingerprint(experiment, verb, task)
                found |= dict.fromkeys(sorted(imported_folder(experiment, verb, task, "").glob("*/*.json")), mark)
    return found


def dataset_fingerprint(dataset: DatasetConfig) -> str:
    """Fingerprint of what a data set has to be."""
    return fingerprint(dataset.identity())


def fingerprint(content: dict[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of ``content`` as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
