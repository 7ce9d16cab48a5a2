"""Fingerprints, which identify what a run or a measurement computes by twelve hexadecimal digits.

Equal fingerprints mean equal work. They are public interface: records contain them, and a changed fingerprint makes
results stale.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import DatasetConfig, Experiment, LatencyConfig
from hafabench.config.recipes import Task


def fingerprint(content: dict[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of ``content`` as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def model_identity(model: ModelSpec) -> dict[str, Any]:
    """The properties of a model that determine what it computes."""
    # The name is only a label. Keep rates were added after the first records were made.
    ignored = {"name"} if model.keep is not None else {"name", "keep"}
    return {k: v for k, v in model.as_record().items() if k not in ignored}


def dataset_fingerprint(dataset: DatasetConfig) -> str:
    """Fingerprint of the configuration of a data set."""
    return fingerprint(dataset.identity())


def complexity_models(experiment: Experiment, task: Task) -> list[ModelSpec]:
    """The models whose complexity the tables need for ``task``, in the tables' order."""
    names: dict[str, None] = {}
    for table_layout in experiment.table_layouts:
        if any(column.task == task and column.latency is None for column in table_layout.columns):
            names.update((row.model, None) for row in table_layout.rows)
    names.update((name, None) for name in experiment.config.train.get(task, []))
    return [experiment.models[name] for name in names]


def complexity_fingerprint(experiment: Experiment, task: Task) -> str:
    """Fingerprint of one task's complexity measurement."""
    config = experiment.config.complexity
    return fingerprint(
        {
            "complexity": task,
            "image_size": config.image_size[task],
            "num_classes": config.num_classes[task],
            "models": {model.name: model_identity(model) for model in complexity_models(experiment, task)},
        }
    )


def latency_fingerprint(experiment: Experiment, group: LatencyConfig) -> str:
    """Fingerprint of one latency measurement."""
    names = [group.baseline, *group.models]
    models = {name: model_identity(experiment.models[name]) for name in names}
    return fingerprint({"latency": group.identity(), "models": models})


def imported_fingerprint(experiment: Experiment, verb: str, task: Task) -> str:
    """Fingerprint of what imported numbers were obtained on: the task's data set, or the sizes used for counting.

    Recipes do not affect imported numbers, so they are not part of this fingerprint.

    Args:
        experiment: The experiment that the numbers are imported into.
        verb: ``evaluate`` or ``complexity``.
        task: The task that the numbers belong to.
    """
    if verb == "evaluate":
        return fingerprint({"imported": task, "dataset": experiment.config.datasets[task].identity()})
    config = experiment.config.complexity
    sizes = {"image_size": config.image_size[task], "num_classes": config.num_classes[task]}
    return fingerprint({"imported": task, **sizes})
