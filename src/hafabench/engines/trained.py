"""Trained models: the identity that a final checkpoint records, and models filled with its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.engines.engine import engine_for
from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of
from hafabench.models.checkpoints.final import belongs_to
from hafabench.models.checkpoints.storage import (
    Fill,
    expect_meta,
    load_checkpoint,
    load_strict,
    meta_of,
    weights_problems,
)
from hafabench.results.checks import evaluated_findings
from hafabench.results.findings import Finding
from hafabench.results.record import Collapse, Record
from hafabench.runs.run import Run


def identity(run: Run) -> dict[str, Any]:
    """Return the identity that a final checkpoint of ``run`` records. If any entry differs, it is another run's."""
    found = {
        "run": run.id,
        "task": run.task,
        "model": run.model.name,
        "architecture": run.model.architecture,
        "mergers": list(run.model.mergers),
        "variant": run.model.query_mode,
        "fidelity": run.model.fidelity,
        "num_classes": run.dataset.num_classes,
        "dataset": run.dataset.name,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
    }
    if isinstance(run.recipe, ClassificationRecipe):
        found["image_size"] = run.recipe.image_size
    return found


def parameters_of(run: Run) -> int:
    """Return the number of parameters of the run's model with its head, without building it."""
    with torch.device("meta"):
        model = engine_for(run.task).create_model(run)
    return sum(parameter.numel() for parameter in model.parameters())


def is_trained(run: Run) -> bool:
    """Return whether the run's final checkpoint exists and belongs to the current configuration and training data.

    Raises:
        UserError: If the checkpoint cannot be read, or has changed since it was written.
    """
    return run.checkpoint.exists() and belongs_to(run, read_final(run, run.checkpoint))


def read_final(run: Run, checkpoint: Path) -> dict[str, Any]:
    """Read a final checkpoint of ``run``.

    Raises:
        UserError: If the file is missing, cannot be read, or has changed since it was written.
    """
    try:
        return load_checkpoint(checkpoint)
    except UserError as error:
        advice = [_advice(run, checkpoint)] if checkpoint.exists() else []
        raise UserError([*error.problems, *advice]) from None


def collapse_of(content: dict[str, Any]) -> Collapse | None:
    """Return the outcome in the final checkpoint of a run whose training collapsed; None if it has weights.

    Args:
        content: The content of the checkpoint.

    Raises:
        UserError: If the checkpoint contains something else in the place of the outcome.
    """
    found = content.get("meta", {}).get("collapse")
    try:
        return None if found is None else Collapse.model_validate(found)
    except ValidationError as error:
        raise UserError(f"meta.collapse of a final checkpoint: {error.errors()[0]['msg']}") from None


def load_trained(run: Run, checkpoint: Path, fill: Fill | None = None) -> nn.Module:
    """Return the run's model with its final weights, in evaluation mode, on the CPU.

    Args:
        run: The run whose model is built.
        checkpoint: The run's final checkpoint, or the file that ``fill`` reads.
        fill: Loads the weights into the model; `fill_trained` by default.

    Raises:
        UserError: If the checkpoint belongs to another run or does not fit the model.
    """
    model = engine_for(run.task).create_model(run)
    (fill or fill_trained)(model, run, checkpoint)
    return model.eval()


def fill_trained(model: nn.Module, run: Run, checkpoint: Path) -> None:
    """Load the weights of the run's own final checkpoint into ``model``.

    Raises:
        UserError: If the checkpoint belongs to another run or does not fit the model.
    """
    _fill(model, run, checkpoint, "state_dict")


def fill_averaged(model: nn.Module, run: Run, checkpoint: Path) -> None:
    """Load the moving average of the weights in the run's own final checkpoint into ``model``.

    Raises:
        UserError: If the checkpoint belongs to another run or does not fit the model.
    """
    _fill(model, run, checkpoint, "average")


def _fill(model: nn.Module, run: Run, checkpoint: Path, key: str) -> None:
    content = read_final(run, checkpoint)
    expect_meta(checkpoint, content, **identity(run))
    collapse = collapse_of(content)
    if collapse is not None:
        raise UserError(Problem(str(checkpoint), "", f"contains no weights: {collapse.clause(run.id)}"))
    try:
        load_strict(model, content.get(key), checkpoint)
    except UserError as error:
        raise UserError([*error.problems, _advice(run, checkpoint)]) from None


def _advice(run: Run, checkpoint: Path) -> Problem:
    message = f"restore the file from a copy, or delete it; `hafabench train {run.id}` then trains the run again"
    return Problem(str(checkpoint), "", message)


def checkpoint_findings(run: Run, record: Record | None = None) -> list[Finding] | None:
    """Compare the run's final checkpoint with the run, with its own digest, and with the record made from it.

    Args:
        run: The run.
        record: The record of its evaluation, if there is one.

    Returns:
        What does not hold; None if the checkpoint is not on this machine.
    """
    path = run.checkpoint
    if not path.exists():
        return None
    try:
        content = load_checkpoint(path)
        meta = meta_of(path, content)
        collapse = collapse_of(content)
        if meta.get("fingerprint") == run.fingerprint:
            expect_meta(path, content, **identity(run))
    except UserError as error:
        return [_finding(path, problem) for problem in error.problems]
    problems: list[Problem | str] = []
    if meta.get("fingerprint") != run.fingerprint:
        message = f"made under another configuration: expected {run.fingerprint!r}, found {meta.get('fingerprint')!r}"
        problems.append(Problem(str(path), "meta.fingerprint", message))
    if collapse is None:
        for key in ("state_dict", *(["average"] if "average" in content else [])):
            problems += weights_problems(content.get(key), path)
    if record is not None:
        problems += _problems_with_record(path, meta, collapse, record)
    problems += _problems_with_parent(run, path, meta)
    replaced = [] if record is None else evaluated_findings(record, path, sha256_of(path))
    return [*(_finding(path, problem) for problem in problems), *replaced]


def _problems_with_record(
    path: Path, meta: dict[str, Any], collapse: Collapse | None, record: Record
) -> Iterator[Problem]:
    """Yield how the training and the outcome in a checkpoint differ from those in a record."""
    # A record has passed through JSON, which has no tuples.
    for key, own in (("training", meta.get("training")), ("collapse", collapse and collapse.model_dump())):
        other = getattr(record, key)
        other = other.model_dump() if isinstance(other, Collapse) else other
        if json.loads(json.dumps(own)) != json.loads(json.dumps(other)):
            yield Problem(str(path), f"meta.{key}", f"differs from `{key}` in the record")


def _problems_with_parent(run: Run, path: Path, meta: dict[str, Any]) -> Iterator[Problem]:
    """Yield how the weights that a training started from differ from the parent's final checkpoint."""
    origin = meta.get("initialised_from")
    if run.parent is None or not isinstance(origin, dict) or not run.parent.checkpoint.exists():
        return
    expected = origin.get("sha256")
    if expected is not None and expected != sha256_of(run.parent.checkpoint):
        message = (
            f"{run.parent.checkpoint} is not the file that the training started from, which had sha256 {expected}"
        )
        yield Problem(str(path), "meta.initialised_from", message)


def _finding(path: Path, problem: Problem | str) -> Finding:
    if isinstance(problem, Problem):
        return Finding("checkpoint", problem.file, problem.message, problem.key)
    return Finding("checkpoint", str(path), problem)
