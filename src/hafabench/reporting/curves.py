"""Learning curves: the loss and the learning rate along a training, from its history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hafabench.errors import Problem, UserError
from hafabench.results.history import read_history

Curve = dict[str, list[float]]
"""``step``, ``loss`` and ``lr`` at every report of progress."""


def read_curve(file: Path) -> Curve:
    """Read the curve from a history file.

    Raises:
        UserError: If the file cannot be read or is not a history.
    """
    curve: Curve = {key: [] for key in ("step", "loss", "lr")}
    for number, entry in enumerate(read_history(file), start=1):
        for key, values in curve.items():
            value: Any = entry.get(key)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or (isinstance(value, int) and abs(value) >= 2**63):
                message = (
                    f"expected a number, found {json.dumps(value)[:40]}; restore the file from a copy or remove it"
                )
                raise UserError(Problem(str(file), key, message, number))
            values.append(float(value))
    return curve
