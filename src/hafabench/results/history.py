"""The history of a training: a JSON object per line, written by `hafabench.engines.progress`."""

from __future__ import annotations

import json
from pathlib import Path

from hafabench.config.json_file import parse_json
from hafabench.config.text_file import read_text


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the entries of a history file up to the first line that is incomplete or has no step.

    A killed process may leave an incomplete last line.

    Raises:
        UserError: If the file is missing or cannot be read.
    """
    entries = []
    for line in read_text(path).splitlines():
        try:
            entry = parse_json(line)
        except json.JSONDecodeError:
            break
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            break
        entries.append(entry)
    return entries
