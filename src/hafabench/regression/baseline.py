"""The baseline: a tracked folder of records and predictions, and the history of how it moved."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from hafabench.errors import UserError
from hafabench.files import atomic_folder
from hafabench.regression.records import FILE_NAME, Cell, Side, load_side, predictions_of, record_paths

HISTORY = "history.jsonl"


def move_baseline(folder: Path, candidate: Side, *, reason: str, who: str) -> dict:
    """Replace the baseline in ``folder`` by the candidate's records and predictions, and add to its history.

    The folder changes as a whole or not at all. A first baseline is made the same way.

    Args:
        folder: of the baseline; need not exist.
        candidate: what it becomes.
        reason: why, a sentence for readers of the history.
        who: moves it.

    Returns:
        The new entry of the history.

    Raises:
        UserError: for an empty reason, or predictions that are not those of their record.
    """
    if not reason.strip():
        raise UserError("moving the baseline needs a reason; expected --reason with a sentence")
    for entries in candidate.cells.values():
        for entry in entries.values():
            predictions_of(entry)
    history = folder / HISTORY
    earlier = history.read_text(encoding="utf-8") if history.is_file() else ""
    provenances = [record.provenance for record in candidate.records.values()]
    entry = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": who,
        "reason": reason.strip(),
        "commits": sorted({p.git_commit for p in provenances if p.git_commit}),
        "dirty": any(p.git_dirty for p in provenances),
        "changes": _changes(_values_in(folder), _values(candidate)),
    }
    with atomic_folder(folder) as new:
        for path in candidate.paths:
            target = new / path.relative_to(candidate.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            kept = path.with_name(FILE_NAME)
            if kept.is_file():
                shutil.copyfile(kept, target.with_name(FILE_NAME))
        (new / HISTORY).write_text(earlier + json.dumps(entry) + "\n", encoding="utf-8")
    return entry


def _values(side: Side) -> dict[str, float]:
    return {
        _name(cell, seed): entry.metric.value for cell, seeds in side.cells.items() for seed, entry in seeds.items()
    }


def _values_in(folder: Path) -> dict[str, float]:
    return _values(load_side(folder)) if any(record_paths(folder)) else {}


def _name(cell: Cell, seed: int) -> str:
    return str(cell) if seed < 0 else f"{cell}/seed{seed}"


def _changes(before: dict[str, float], after: dict[str, float]) -> dict[str, list[float | None]]:
    """Old and new value of every number that is not the same; of a first baseline, none."""
    if not before:
        return {}
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
