"""The models that have to be counted to settle the paper's static figures (parameters, GFLOPs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import Experiment
from hafabench.config.recipes import TASKS, Task
from hafabench.runs.fingerprints import complexity_models, fingerprint


@dataclass(frozen=True)
class StaticRow:
    """One model to be counted part by part.

    Attributes:
        task: The task whose head the model gets.
        model: The model of the row, or a stand-in for it (`hafabench.config.claims.StandIn`).
        counts_operations: Whether a table prints its operations as well as its parameters.
        build: Another build of it (`hafabench.config.claims.BUILDS`); None for the project's own.
    """

    task: Task
    model: ModelSpec
    counts_operations: bool
    build: str | None = None


def static_rows(experiment: Experiment) -> list[StaticRow]:
    """Every model behind a static column of the tables, other builds of it, and the stand-ins."""
    rows: dict[tuple[str, str, str | None], StaticRow] = {}
    for task in TASKS:
        columns = [
            (table_layout, column)
            for table_layout in experiment.table_layouts
            for column in table_layout.columns
            if column.verb == "complexity" and column.task == task
        ]
        operations = any(column.metric_name == "gmacs" for _, column in columns)
        wanted = {row.model for table_layout, _ in columns for row in table_layout.rows}
        for model in complexity_models(experiment, task):
            if model.name not in wanted:
                continue
            for build in (None, *_other_builds(model, task)):
                rows[task, model.name, build] = StaticRow(task, model, operations, build)
    for stand_in in experiment.claims_config.stand_ins:
        rows["classification", stand_in.model.name, None] = StaticRow("classification", stand_in.model, True)
    return list(rows.values())


def _other_builds(model: ModelSpec, task: str) -> tuple[str, ...]:
    # mmseg builds ResNets with this stem and ResNeXts without.
    deep = task == "segmentation" and model.family == "resnet" and model.architecture.startswith("resnet")
    return ("deep_stem",) if deep else ()


def counts_fingerprint(experiment: Experiment) -> str:
    """Fingerprint of what has to be counted. Conventions are applied later, so they are not part of it."""
    config = experiment.config.complexity
    rows = [[row.task, _described(row.model), row.counts_operations, row.build] for row in static_rows(experiment)]
    return fingerprint({"counts": rows, "image_size": config.image_size, "num_classes": config.num_classes})


def _described(model: ModelSpec) -> dict[str, Any]:
    # Fields at their defaults are left out, so that a field that is added later does not change fingerprints.
    defaults = ModelSpec(name="", family="", size="", architecture="").as_record()
    return {name: value for name, value in model.as_record().items() if value != defaults.get(name)}
