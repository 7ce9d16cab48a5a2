"""Checkpoint files: they contain tensors and plain containers only, are written atomically and checked when loaded.

A *final* checkpoint contains ``state_dict``, ``meta`` (the run of the weights and the provenance of their training)
and, if the training kept a moving average of the weights, ``average``. A *work* checkpoint contains everything that
an exact resume needs and belongs to one fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hafabench.errors import Problem, UserError
from hafabench.files import atomic_path
from hafabench.models.checkpoints.reading import read_tensors
from hafabench.runs.run import Run

FORMAT = "hafabench.checkpoint/1"

# Loads the weights of a file into a run's model.
Fill = Callable[[nn.Module, Run, Path], None]


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (tensors, numbers, strings and containers of them) to ``path`` atomically."""
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU, without unpickling arbitrary objects.

    Raises:
        UserError: If the file is missing, truncated or not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(Problem(str(path), "", "no such checkpoint"))
    content = read_tensors(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(Problem(str(path), "format", f"expected {FORMAT!r}, found {found!r}"))
    return content


def expect_meta(path: Path, content: dict[str, Any], **expected: Any) -> None:
    """Check the ``meta`` of a checkpoint.

    Args:
        path: The file, for error messages.
        content: Its content.
        **expected: Values that ``meta`` must have (model, task, num_classes, ...).

    Raises:
        UserError: If values differ; all of them are listed.
    """
    meta = content.get("meta", {})
    problems = [
        Problem(
            str(path),
            f"meta.{key}",
            f"checkpoint of another run: expected {value!r}, found {meta.get(key)!r}",
        )
        for key, value in expected.items()
        if meta.get(key) != value
    ]
    if problems:
        raise UserError(problems)


def load_strict(module: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load ``state`` into ``module``.

    Raises:
        UserError: If tensors are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    problems = []
    for key in own.keys() - state.keys():
        problems.append(Problem(str(path), key, "expected by the model, missing in the checkpoint"))
    for key in state.keys() - own.keys():
        problems.append(Problem(str(path), key, "in the checkpoint, unknown to the model"))
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            message = f"expected shape {tuple(own[key].shape)}, found {tuple(state[key].shape)}"
            problems.append(Problem(str(path), key, message))
    if problems:
        problems.sort(key=lambda problem: problem.key)
        shown = problems[:8]
        if len(problems) > len(shown):
            shown.append(Problem(str(path), "", f"and {len(problems) - len(shown)} more such tensors"))
        raise UserError(shown)
    module.load_state_dict(state)
