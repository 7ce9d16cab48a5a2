"""The baseline: a tracked folder of records and predictions, and the history of its changes."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hafabench.errors import Problem, UserError
from hafabench.files import IsMade, atomic_folder
from hafabench.regression.records import (
    MetricKey,
    RecordSet,
    all_record_paths,
    predictions_of,
    read_records,
    record_paths,
)
from hafabench.results.record import is_record, predictions_beside

HISTORY = "history.jsonl"


def replace_baseline(folder: Path, candidate: RecordSet, *, reason: str, who: str) -> dict[str, Any]:
    """Replace the baseline by the candidate's records and predictions, and add an entry to its history.

    The folder changes as a whole or not at all.

    Args:
        folder: The folder of the baseline. It need not exist. It may contain only records, their predictions and a
            history of changes.
        candidate: The new baseline.
        reason: Why it is replaced, a sentence for readers of the history.
        who: Who replaces it.

    Returns:
        The new entry of the history.

    Raises:
        UserError: If the reason is empty, predictions do not belong to their record, or the folder contains other
            files or the candidate. Then nothing is changed.
    """
    if not reason.strip():
        raise UserError("replacing the baseline needs a reason; expected --reason with a sentence")
    for by_seed in candidate.metrics.values():
        for recorded in by_seed.values():
            predictions_of(recorded)
    _refuse_nested(folder, candidate.folder)
    is_made = _made_files(folder, candidate.folder)
    history = folder / HISTORY
    earlier = history.read_text(encoding="utf-8") if history.is_file() else ""
    provenances = [record.provenance for record in candidate.records.values()]
    entry = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": who,
        "reason": reason.strip(),
        "commits": sorted({p.git_commit for p in provenances if p.git_commit}),
        "dirty": any(p.git_dirty for p in provenances),
        "changes": _changed_values(_values_in(folder), _values(candidate)),
    }
    with atomic_folder(folder, is_made) as new:
        for path in candidate.paths:
            target = new / path.relative_to(candidate.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            predictions = predictions_beside(path)
            if predictions.is_file():
                shutil.copyfile(predictions, predictions_beside(target))
        (new / HISTORY).write_text(earlier + json.dumps(entry) + "\n", encoding="utf-8")
    return entry


def _refuse_nested(folder: Path, candidate: Path) -> None:
    """Refuse a baseline that contains the candidate or is in it: replacing one would change the other."""
    baseline, other = folder.resolve(), candidate.resolve()
    if baseline == other or baseline in other.parents or other in baseline.parents:
        message = f"one of baseline and candidate ({candidate}) contains the other; expected two separate folders"
        raise UserError(Problem(str(folder), "", message))


def _made_files(folder: Path, candidate: Path) -> IsMade:
    """Return what tells whether this program made a file of a baseline, given its path relative to the folder."""
    is_baseline = _is_history(folder / HISTORY)
    if not is_baseline and _is_history(candidate / HISTORY):
        message = "it has no history of a baseline, but the candidate has one; were the two folders exchanged?"
        raise UserError(Problem(str(folder), "", message))
    records = [path for path in all_record_paths(folder) if is_record(path)]
    made = {path.relative_to(folder) for path in (*records, *map(predictions_beside, records))}
    return (made | {Path(HISTORY)} if is_baseline else made).__contains__


def _is_history(path: Path) -> bool:
    """Whether a file is the history of a baseline. The history of a training has the same name."""
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return False
    return all(isinstance(entry, dict) and {"when", "who", "reason"} <= entry.keys() for entry in entries)


def _values(records: RecordSet) -> dict[str, float]:
    return {
        _name(key, seed): recorded.metric.value
        for key, by_seed in records.metrics.items()
        for seed, recorded in by_seed.items()
    }


def _values_in(folder: Path) -> dict[str, float]:
    return _values(read_records(folder)) if any(record_paths(folder)) else {}


def _name(key: MetricKey, seed: int) -> str:
    return str(key) if seed < 0 else f"{key}/seed{seed}"


def _changed_values(before: dict[str, float], after: dict[str, float]) -> dict[str, list[float | None]]:
    """Return the old and new value of every number that differs; nothing for a first baseline."""
    if not before:
        return {}
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
