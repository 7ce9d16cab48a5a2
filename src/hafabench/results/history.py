"""The history of a training: a JSON object per line, written by `hafabench.engines.progress`."""

from __future__ import annotations

import json
from pathlib import Path


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the entries of a history file up to the first line that is incomplete or has no step.

    A killed process may leave an incomplete last line.
    """
    entries = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            break
        entries.append(entry)
    return entries
