"""Learning curves: the loss and the learning rate along a training, from its history."""

from __future__ import annotations

from pathlib import Path

from hafabench.errors import Problem, UserError
from hafabench.results.history import read_history

Curve = dict[str, list[float]]
"""``step``, ``loss`` and ``lr`` at every report of progress."""


def read_curve(file: Path) -> Curve:
    """Read the curve from a history file.

    Raises:
        UserError: If the file cannot be read or is not a history.
    """
    try:
        entries = read_history(file)
        return {key: [float(entry[key]) for entry in entries] for key in ("step", "loss", "lr")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(Problem(str(file), "", f"not a training's history: no {error} in one of its lines")) from None
