"""The history of a training: a JSON object per line, written by `hafabench.engines.progress`."""

from __future__ import annotations

import json
from pathlib import Path


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the entries of a history file, without a last line that a killed process left incomplete."""
    entries = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
