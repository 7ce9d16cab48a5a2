"""The paper's protocol, and where a run follows another one. This module imports no torch.

The protocol is that of the experiment file which the claims file names, with the recipes of that file: the data set
of each task, the input sizes, the schedules and all other recipe values. A figure of a run can be compared with the
printed one only if the run follows this protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.config.claims import ClaimsConfig
from hafabench.config.experiment import DatasetConfig, Experiment, LatencyConfig, load_experiment
from hafabench.config.recipes import RECIPE_TYPES, TASKS, Recipe, Task
from hafabench.runs.fingerprints import fingerprint
from hafabench.runs.run import Run

_SPLITS = {"train": "training", "val": "validation"}
_OTHER_VALUES = "other recipe values: "
NO_PROTOCOL = "the claims file names no experiment with the paper's protocol"


@dataclass(frozen=True)
class Differences:
    """Where a run differs from the paper's protocol. Each difference is a clause; all are empty if it follows it.

    Attributes:
        setting: Differences in model, data set, input size and schedule.
        recipe: Other recipe values, and what is known to differ from the training of the paper's row.
    """

    setting: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All differences, the most important first."""
        return (*self.setting, *self.recipe)


@dataclass(frozen=True)
class PaperProtocol:
    """The protocol of the paper.

    Attributes:
        experiment: The experiment whose data sets, recipes and latency measurements are the paper's.
        fingerprints: The fingerprint of each task's protocol, to detect that its files were edited.
    """

    experiment: Experiment
    fingerprints: dict[Task, str]

    def recipe(self, task: Task, model: ModelSpec) -> Recipe:
        """Return the recipe of a model."""
        return self.experiment.recipes[task].resolved(model)

    def fingerprint(self, task: Task) -> str:
        """Return the fingerprint of data set, input sizes and schedules of a task."""
        kind = RECIPE_TYPES[task]
        models = {}
        for name, model in CATALOG.items():
            values = self.recipe(task, model).model_dump(mode="json")
            models[name] = {key: values[key] for key in (*kind.size_keys, *kind.schedule_keys)}
        return fingerprint({"dataset": self.experiment.config.datasets[task].identity(), "models": models})

    @cached_property
    def edited(self) -> dict[Task, str]:
        """A clause for each task whose files no longer contain the paper's data set, sizes and schedules."""
        file = self.experiment.file.name
        message = f"{file} or its recipe was edited and no longer contains the paper's data, sizes and schedules"
        return {task: message for task in TASKS if self.fingerprint(task) != self.fingerprints[task]}

    def differences(self, run: Run) -> Differences:
        """Return where a run, or a run that it starts from, differs from the protocol."""
        setting: list[str] = []
        if run.model.name not in CATALOG:
            setting.append(f"the model {run.model.name} is the experiment's own")
        if run.model.is_scaled:
            setting.append(f"model_scale {run.model.scale_text} (paper: full size)")
        if run.task in self.edited:
            setting.append(self.edited[run.task])
        setting += dataset_differences(run.dataset, self.experiment.config.datasets[run.task])
        own, paper = run.recipe.model_dump(mode="json"), self.recipe(run.task, run.model).model_dump(mode="json")
        named = (*run.recipe.size_keys, *run.recipe.schedule_keys)
        setting += _value_differences(named, own, paper)
        others = [key for key in own if key not in (*named, *run.recipe.operational) and own[key] != paper[key]]
        recipe = [f"{_OTHER_VALUES}{', '.join(others)}"] if others else []
        recipe += [departure.why for departure in self._departures(run)]
        if run.parent is not None:
            start = self.differences(run.parent)
            # The id has no seed, so that the runs of all seeds share one clause.
            named_start = f"its start {run.parent.task}/{run.parent.model.name}"
            # The differences of the start are listed unless the run itself has some, which are often the same ones.
            if start.setting:
                details = " too" if setting else f": {', '.join(start.setting)}"
                setting.append(f"{named_start} differs{details}")
            if start.recipe:
                reasons = [reason.removeprefix(_OTHER_VALUES) for reason in start.recipe]
                details = " too" if recipe else f": {', '.join(reasons)}"
                recipe.append(f"the recipe of {named_start} differs{details}")
        return Differences(tuple(setting), tuple(recipe))

    def _departures(self, run: Run) -> Iterable[Any]:
        for departure in self.experiment.recipes[run.task].departures:
            if any(fnmatchcase(run.model.name, pattern) for pattern in departure.models):
                yield departure

    def imported_differences(self, experiment: Experiment, task: Task, run: Run | None) -> Differences:
        """Return where imported numbers were obtained on other data or input sizes. Nothing is known of the training.

        Args:
            experiment: The experiment that they were imported into.
            task: Their task.
            run: A run of the same model in this experiment, which defines the input size; None if there is none.
        """
        setting = dataset_differences(experiment.config.datasets[task], self.experiment.config.datasets[task])
        if run is not None:
            own, paper = run.recipe.model_dump(mode="json"), self.recipe(task, run.model).model_dump(mode="json")
            setting += _value_differences(run.recipe.size_keys, own, paper)
        return Differences(tuple(setting))

    def latency_differences(self, group: LatencyConfig, model: str) -> Differences:
        """Return where a latency measurement has another input than the paper's measurement of the same model."""
        groups = self.experiment.config.latency
        paper = next((g for g in groups if model in (g.baseline, *g.models)), None)
        if paper is None:
            return Differences((f"the paper times no {model}",))
        keys = ("image_size", "batch_size")
        pairs = [(key, getattr(group, key), getattr(paper, key)) for key in keys]
        return Differences(tuple(f"{key} {own} (paper: {theirs})" for key, own, theirs in pairs if own != theirs))


def _value_differences(keys: Iterable[str], own: Mapping[str, Any], paper: Mapping[str, Any]) -> list[str]:
    shown = {key: ["none" if of[key] is None else of[key] for of in (own, paper)] for key in keys}
    return [f"{key} {ours} (paper: {theirs})" for key, (ours, theirs) in shown.items() if ours != theirs]


def dataset_differences(own: DatasetConfig, paper: DatasetConfig) -> list[str]:
    """Return where a data set differs from the paper's in name, classes, numbers of images or origin."""
    found = []
    if own.name != paper.name:
        found.append(f"data set {own.name} (paper: {paper.name})")
    if own.num_classes != paper.num_classes:
        found.append(f"{own.num_classes:,} classes (paper: {paper.num_classes:,})")
    for split, theirs in paper.images.items():
        ours = own.images.get(split, 0)
        if ours != theirs:
            found.append(f"{ours:,} {_SPLITS[split]} images (paper: {theirs:,})")
    if own.generator != paper.generator:
        found.append("generated images")
    return found


def load_protocol(config: ClaimsConfig, file: Path) -> PaperProtocol | None:
    """Return the paper's protocol that a claims file names; None if it names none.

    Args:
        config: The content of the claims file.
        file: The claims file. The path of the experiment in it is relative to its folder.

    Raises:
        UserError: If the experiment cannot be loaded.
    """
    if config.protocol is None:
        return None
    experiment = load_experiment(file.parent / config.protocol.experiment)
    return PaperProtocol(experiment, config.protocol.fingerprints)
