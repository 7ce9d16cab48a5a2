"""Warnings about learning rates that do not fit the batch size."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hafabench.config.experiment import Experiment
from hafabench.errors import Problem
from hafabench.runs.run import Run


def learning_rate_warnings(experiment: Experiment, runs: Iterable[Run]) -> list[Problem]:
    """Warn about runs whose learning rate per image of a step is not that of the recipe file.

    Classification scales its rates from ``lr_batch_size`` to ``batch_size``, so that only an own ``lr`` or
    ``lr_batch_size`` leaves the ratio of the recipe. The rates of segmentation and detection are not scaled.
    Published configurations scale them with the batch size: mmdet's and mmseg's for SGD, PVT's for AdamW.

    Args:
        experiment: The experiment with its recipe files.
        runs: Its runs.

    Returns:
        A warning for each group of models of a task with the same values, in the order of the runs.
    """
    groups: dict[tuple[str, str, float, int, float, int], dict[str, None]] = {}
    for run in runs:
        recipe, published = run.recipe, experiment.recipes[run.task].resolved(run.model)
        if not math.isclose(recipe.lr_per_image, published.lr_per_image, rel_tol=1e-6):
            key = recipe.lr_batch_key
            values = recipe.lr, recipe.lr_batch, published.lr, published.lr_batch
            groups.setdefault((run.task, key, *values), {})[run.model.name] = None
    return [
        Problem(
            str(experiment.file),
            task,
            f"lr {lr:g} with {key} {batch} for {', '.join(models)}, but lr {published_lr:g} with {key} "
            f"{published_batch} in the recipe; with {key} {batch} the same ratio is lr "
            f"{published_lr * batch / published_batch:.6g}",
        )
        for (task, key, lr, batch, published_lr, published_batch), models in groups.items()
    ]
