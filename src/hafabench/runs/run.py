"""The runs of an experiment, as pure data in a fixed order; imports no torch.

A run is one (task, model, data set, seed) with a resolved recipe. Its fingerprint covers everything that can change
its numbers, including the run whose weights it starts from, so that equal fingerprints mean equal work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hafabench.config.catalog import WITHOUT_DROP_PATH, ModelSpec, side_problem
from hafabench.config.experiment import DatasetConfig, Experiment
from hafabench.config.recipes import RECIPE_TYPES, TASKS, ClassificationRecipe, Recipe, Task, key_of, nested
from hafabench.config.yaml_file import YamlFile, describe
from hafabench.errors import Problem, UserError
from hafabench.results.record import outputs_beside, predictions_beside
from hafabench.runs.fingerprints import fingerprint, model_identity
from hafabench.runs.paths import CHECKPOINT, EVALUATION, dataset_report
from hafabench.runs.weights import StartingWeights, starting_weights


@dataclass(frozen=True)
class Run:
    """One training with its evaluation.

    Attributes:
        task, model, seed: What is trained; the id consists of them. The model has the experiment's scale.
        dataset: The data set that it is trained and evaluated on.
        recipe: The resolved values; a subclass of `Recipe` that depends on the task.
        sources: Where each value of the recipe is defined.
        parent: The classification run whose weights initialise the backbone of a dense run, or the teacher of a model
            that learns to drop tokens.
        fingerprint: The fingerprint of everything above that can change a number.
        folder: Where all files of the run are stored.
        weights: The published weights from which a dense run starts instead of a classification run.
        dataset_report: The report of the verified data set, if the run is part of an experiment.
        listing_digest: The digest of the training split, once a training has compared it with the verified one.
    """

    task: Task
    model: ModelSpec
    seed: int
    dataset: DatasetConfig
    recipe: Recipe
    sources: dict[str, str]
    parent: Run | None
    fingerprint: str
    folder: Path
    weights: StartingWeights | None = None
    dataset_report: Path | None = None
    listing_digest: str | None = None

    @property
    def id(self) -> str:
        """Readable path: ``classification/pvt_tiny_hafa/seed0``."""
        return run_id(self.task, self.model.name, self.seed)

    @property
    def checkpoint(self) -> Path:
        """The final weights with their provenance."""
        return self.folder / CHECKPOINT

    @property
    def kept_checkpoint(self) -> Path:
        """A second name of the final checkpoint, which exists until the workflow has evaluated it.

        See `hafabench.engines.finished`.
        """
        return self.work / CHECKPOINT

    @property
    def record(self) -> Path:
        """The record of the evaluation."""
        return self.folder / EVALUATION

    @property
    def predictions(self) -> Path:
        """The predictions for each image of the evaluation; the record contains the SHA-256 of this file."""
        return predictions_beside(self.record)

    @property
    def outputs(self) -> Path:
        """The folder of the detections or label maps that ``hafabench evaluate --keep-outputs`` keeps."""
        return outputs_beside(self.record)

    @property
    def history(self) -> Path:
        """Loss, learning rate and throughput during the training, one JSON object per line."""
        return self.folder / "history.jsonl"

    @property
    def work(self) -> Path:
        """The folder of periodic checkpoints. It is not an output of a rule, so a failed job keeps it."""
        return self.folder / "work"

    def resolved(self) -> dict[str, Any]:
        """The resolved configuration as plain data, as it is stored in the folder of the run."""
        return {
            "id": self.id,
            "fingerprint": self.fingerprint,
            "model": self.model.as_record(),
            "dataset": self.dataset.model_dump(mode="json", by_alias=True),
            "recipe": self.recipe.model_dump(mode="json"),
            "sources": self.sources,
            "parent": self.parent.id if self.parent else None,
            **({"weights": self.weights.as_record()} if self.weights else {}),
            **({} if self.listing_digest is None else {"listing_digest": self.listing_digest}),
        }


def run_id(task: str, model: str, seed: int | str) -> str:
    """``("segmentation", "pvt_tiny", 0)`` -> ``segmentation/pvt_tiny/seed0``."""
    return f"{task}/{model}/seed{seed}"


def expand(experiment: Experiment) -> dict[str, Run]:
    """Every run of an experiment by id; parents come before the runs that start from them.

    Raises:
        UserError: If values of a recipe do not fit together, the classification run that a run starts from is
            missing, or an override matches no run.
    """
    config = experiment.config
    runs: dict[str, Run] = {}
    problems: list[Problem | str] = []
    matched = [False] * len(config.overrides)
    known: set[tuple[str, str]] = set()
    for task in TASKS:
        # A model that drops tokens starts from another run of its task and therefore comes last.
        for name in sorted(config.train.get(task, []), key=lambda name: experiment.models[name].keep is not None):
            for seed in config.seeds_of(name):
                try:
                    run = _resolve(experiment, task, name, seed, runs, matched)
                except UserError as error:
                    # The runs of all seeds have the same problems.
                    new = [problem for problem in error.problems if (name, _about(problem)) not in known]
                    known.update((name, _about(problem)) for problem in new)
                    problems.extend(new)
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


def _about(problem: Problem | str) -> str:
    """Return a problem without the seed of its run."""
    return re.sub("/seed[0-9]+: ", ": ", str(problem), count=1)


def find_run(experiment: Experiment, identifier: str, *, is_trained: bool = True) -> Run:
    """Return a run by its id.

    Args:
        experiment: A checked experiment.
        identifier: The id of the run.
        is_trained: Whether the experiment has to train the run. Otherwise it may be any model on a data set of the
            experiment; such a run starts from no other run and can only be evaluated with weights from elsewhere.

    Raises:
        UserError: If there is no such run. The message contains the most similar ids.
    """
    runs = expand(experiment)
    if identifier in runs:
        return runs[identifier]
    found = re.fullmatch(r"([^/]+)/([^/]+)/seed([0-9]{1,10})", identifier)
    task = next((task for task in experiment.config.datasets if found and task == found[1]), None)
    if not is_trained and found and task and found[2] in experiment.models:
        matched = [False] * len(experiment.config.overrides)
        return _resolve(experiment, task, found[2], int(found[3]), None, matched)
    near = get_close_matches(identifier, runs, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "`hafabench runs` lists them"
    raise UserError(Problem(str(experiment.file), "", f"no run {identifier!r} in this experiment; {hint}"))


def _resolve(
    experiment: Experiment, task: Task, name: str, seed: int, runs: dict[str, Run] | None, matched: list[bool]
) -> Run:
    """Return a run with its recipe, and with the run or the weights that it starts from unless ``runs`` is None."""
    model = experiment.trained_model(name)
    identifier = run_id(task, name, seed)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    set_by: dict[str, int] = {}
    for key, item in experiment.recipes[task].layers(model).items():
        values[key], sources[key] = item.value, item.source
    for index, override in enumerate(experiment.config.overrides):
        if fnmatchcase(identifier, override.runs):
            matched[index] = True
            for key, value in override.set.items():
                values[key], sources[key] = value, f"{experiment.file.name}: {override.why}"
                set_by[key] = index
    try:
        recipe = RECIPE_TYPES[task].model_validate(nested(values))
    except ValidationError as error:
        found = [(key_of(item["loc"], values), describe(item)) for item in error.errors()]
        raise UserError(_problems(experiment, identifier, found, set_by)) from None
    problems = recipe.problems(experiment.config.datasets[task].images["train"])
    if recipe.drop_path and model.family in WITHOUT_DROP_PATH:
        problems["drop_path"] = f"{name} has no stochastic depth, expected 0, found {recipe.drop_path:g}"
    if isinstance(recipe, ClassificationRecipe) and (wrong := side_problem(model, recipe.image_size)):
        problems["image_size"] = wrong
    if problems and runs is not None:
        raise UserError(_problems(experiment, identifier, problems.items(), set_by))
    parent, weights, folder = None, None, experiment.results / identifier
    start = name if task != "classification" else _teacher(experiment, identifier, model, recipe)
    if runs is not None and task != "classification" and name in experiment.weights:
        weights = starting_weights(experiment.weights[name], folder)
    if runs is not None and weights is None and start is not None:
        parent = runs.get(run_id("classification", start, seed))
        if parent is None:
            message = f"starts from the classification run of {start!r}, which train.classification does not list"
            if task != "classification":
                message += f"; list it there, or name published weights in models.{name}.weights"
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
                "model": model_identity(model),
                "dataset": dataset.identity(),
                "recipe": recipe.identity(),
                "seed": seed,
                "parent": parent.fingerprint if parent else None,
                # Weights were added after the first records were made.
                **({"weights": weights.identity()} if weights else {}),
            }
        ),
        folder=folder,
        weights=weights,
        dataset_report=dataset_report(experiment, task),
    )


def _problems(
    experiment: Experiment, identifier: str, found: Iterable[tuple[str, str]], set_by: Mapping[str, int]
) -> list[Problem]:
    """Return the problems of a run's recipe, with the line of the override that sets the value.

    Args:
        experiment: The experiment.
        identifier: The id of the run.
        found: The keys with their messages.
        set_by: The index of the override that sets a key, for keys that are set by one.
    """
    source = YamlFile(experiment.file)
    lines = {key: source.line(("overrides", index, "set", key)) for key, index in set_by.items()}
    return [Problem(str(source.path), f"{identifier}: {key}", message, lines.get(key)) for key, message in found]


def _teacher(experiment: Experiment, identifier: str, model: ModelSpec, recipe: Recipe) -> str | None:
    """The model whose run a classification run starts from; None if it is trained from scratch."""
    pruning = recipe.token_pruning if isinstance(recipe, ClassificationRecipe) else None
    if (pruning is None) != (model.keep is None):
        message = "expected for models that drop tokens, and only for them"
        raise UserError(Problem(str(experiment.file), f"{identifier}: token_pruning", message))
    return pruning.teacher if pruning is not None else None
