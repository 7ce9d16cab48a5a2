"""The check of the published weights from which an experiment's dense runs start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from hafabench.errors import Problem, UserError
from hafabench.models.checkpoints.foreign import ForeignWeights
from hafabench.models.registry import create
from hafabench.runs.run import Run


def check_starting_weights(runs: Iterable[Run]) -> None:
    """Read every file of published weights and fit it to its model, once per model.

    Raises:
        UserError: With the problems of all files: missing, unreadable, or weights of another model.
    """
    problems: list[Problem | str] = []
    by_model = {run.model.name: run for run in runs if run.weights is not None}
    for run in by_model.values():
        assert run.weights is not None
        try:
            weights = ForeignWeights(run.weights.file, run.weights.part, run.weights.renames)
            with torch.device("meta"):
                backbone: Any = create(run.model, dense=True)
            weights.fit_backbone(backbone, run.model)
        except UserError as error:
            problems += [_named(run, problem) for problem in error.problems]
    if problems:
        raise UserError(problems)


def _named(run: Run, problem: Problem | str) -> Problem | str:
    """Name the model in a problem of its weights, and the key that stands for an option of the command line."""
    message = problem if isinstance(problem, str) else problem.message
    if "--rename " in message:
        message += "; in an experiment file, write each as `rename: {OLD: NEW}`"
    if isinstance(problem, str):
        return f"{run.model.name}: {message}"
    return Problem(problem.file, problem.key, f"weights of {run.model.name}: {message}", problem.line)
