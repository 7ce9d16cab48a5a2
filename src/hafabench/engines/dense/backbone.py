"""A dense model's backbone from the checkpoint of its classification run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of
from hafabench.models.checkpoints.classifier import load_classifier
from hafabench.models.checkpoints.storage import expect_meta, load_checkpoint
from hafabench.runs.run import Run


def initialise_backbone(backbone: nn.Module, run: Run, *, announce: bool) -> dict[str, Any]:
    """Copy the weights of ``run.parent``'s final checkpoint into ``backbone``.

    Args:
        backbone: what `hafabench.models.create` makes with ``dense=True``.
        run: the dense run.
        announce: print what was and was not taken over.

    Returns:
        ``run``, ``path`` and ``sha256`` of the checkpoint; ``missing``: names that only the backbone has;
        ``unexpected``: names that only the checkpoint has (the classifier's head).

    Raises:
        UserError: for a checkpoint of another run or model, a tensor of another shape, or no tensor in common.
    """
    parent = run.parent
    if parent is None:
        raise UserError(Problem(run.id, "parent", "a dense run starts from a classification run; found none"))
    path = parent.checkpoint
    content = load_checkpoint(path)
    expect_meta(path, content, task=parent.task, model=run.model.name, fingerprint=parent.fingerprint)
    try:
        report = load_classifier(backbone, content["state_dict"])
    except UserError as error:
        raise UserError([Problem(str(path), "state_dict", str(problem)) for problem in error.problems]) from None
    if announce:
        print(
            f"{run.id}: backbone starts from {path}; missing there: {_listed(report.missing)}; "
            f"not used here: {_listed(report.unexpected)}",
            file=sys.stderr,
        )
    return {
        "run": parent.id,
        "path": str(path),
        "sha256": sha256_of(path),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
    }


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
