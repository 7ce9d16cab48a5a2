"""The baseline: a tracked folder of records and predictions, and the history of its changes."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hafabench.errors import UserError
from hafabench.files import atomic_folder
from hafabench.regression.records import MetricKey, RecordSet, predictions_of, read_records, record_paths
from hafabench.results.record import predictions_beside

HISTORY = "history.jsonl"


def replace_baseline(folder: Path, candidate: RecordSet, *, reason: str, who: str) -> dict[str, Any]:
    """Replace the baseline by the candidate's records and predictions, and add an entry to its history.

    The folder changes as a whole or not at all.

    Args:
        folder: The folder of the baseline. It need not exist.
        candidate: The new baseline.
        reason: Why it is replaced, a sentence for readers of the history.
        who: Who replaces it.

    Returns:
        The new entry of the history.

    Raises:
        UserError: If the reason is empty, or predictions do not belong to their record.
    """
    if not reason.strip():
        raise UserError("replacing the baseline needs a reason; expected --reason with a sentence")
    for by_seed in candidate.metrics.values():
        for recorded in by_seed.values():
            predictions_of(recorded)
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
    with atomic_folder(folder) as new:
        for path in candidate.paths:
            target = new / path.relative_to(candidate.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            predictions = predictions_beside(path)
            if predictions.is_file():
                shutil.copyfile(predictions, predictions_beside(target))
        (new / HISTORY).write_text(earlier + json.dumps(entry) + "\n", encoding="utf-8")
    return entry


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
