"""The baseline: a tracked folder of records and predictions, and the history of its changes.

The manifest of a baseline lists the SHA-256 of every record and of all predictions, and the last entry of the history
contains the SHA-256 of the manifest. A file that was edited, added or lost is therefore found before anything is
compared. A baseline of an earlier version has no manifest.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.json_file import parse_json, read_json_model
from hafabench.config.text_file import read_text
from hafabench.errors import Problem, UserError
from hafabench.files import IsMade, atomic_folder, sha256_of, write_text
from hafabench.regression.records import (
    MetricKey,
    RecordSet,
    predictions_of,
    read_records,
    record_paths,
)
from hafabench.results.findings import Finding
from hafabench.results.record import is_record, predictions_beside

HISTORY = "history.jsonl"
MANIFEST = "manifest.json"
_MANIFEST_SHA256 = "manifest_sha256"
_REMEDY = "restore the baseline from version control, or replace it with --update"


class Manifest(StrictModel):
    """The files of a baseline.

    Attributes:
        files: The SHA-256 of each record and of its predictions, by the path relative to the folder.
    """

    schema_: Literal["hafabench.baseline/1"] = Field("hafabench.baseline/1", alias="schema")
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


def read_baseline(folder: Path) -> RecordSet:
    """Read the records of a baseline.

    Raises:
        UserError: If there are no records, some cannot be read, or files differ from the manifest.
    """
    findings = baseline_findings(folder)
    if findings:
        raise UserError([finding.as_problem() for finding in findings])
    return read_records(folder)


def baseline_findings(folder: Path) -> list[Finding] | None:
    """Check that the files of a baseline are those that ``hafabench regress --update`` wrote.

    Args:
        folder: The folder of the baseline.

    Returns:
        The findings; None if there is nothing to compare with, because the folder is no baseline or an earlier
        version wrote it.
    """
    path = folder / MANIFEST
    history = _history_entries(folder / HISTORY)
    expected = history[-1].get(_MANIFEST_SHA256) if history else None
    if not path.is_file():
        return [_finding(path, "it is missing")] if expected is not None else None
    if expected is not None and sha256_of(path) != expected:
        return [_finding(path, f"it is not the one that {HISTORY} is about")]
    try:
        files = read_json_model(path, Manifest).files
    except UserError as error:
        return [_finding(path, getattr(problem, "message", str(problem))) for problem in error.problems]
    findings = []
    for name, digest in files.items():
        if not (folder / name).is_file():
            findings.append(_finding(folder / name, f"it is missing, but {MANIFEST} lists it"))
        elif not _has_digest(folder / name, digest):
            findings.append(_finding(folder / name, "it was changed after it became part of the baseline"))
    added = [path for path in _record_files(folder) if path.relative_to(folder).as_posix() not in files]
    return [*findings, *(_finding(path, f"{MANIFEST} does not list it") for path in added)]


def _has_digest(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _finding(path: Path, what: str) -> Finding:
    return Finding("baseline", str(path), f"{what}; {_REMEDY}")


def _record_files(folder: Path) -> list[Path]:
    """Return the records of a folder and their predictions."""
    records = list(record_paths(folder))
    return sorted(path for path in (*records, *map(predictions_beside, records)) if path.is_file())


def refuse_exchanged(folder: Path, candidate: Path) -> None:
    """Refuse a baseline that is the candidate, or a candidate that is a baseline although the other folder is none.

    Args:
        folder: The folder that was given as baseline.
        candidate: The folder that was given as candidate.
    """
    if folder.resolve() == candidate.resolve():
        raise UserError(Problem(str(folder), "", "it is both baseline and candidate; expected two folders"))
    if not is_history(folder / HISTORY) and is_history(candidate / HISTORY):
        message = "it has no history of a baseline, but the candidate has one; were the two folders exchanged?"
        raise UserError(Problem(str(folder), "", message))


def replace_baseline(folder: Path, candidate: RecordSet, *, reason: str, who: str) -> dict[str, Any]:
    """Replace the baseline by the candidate's records and predictions, and add an entry to its history.

    The folder changes as a whole or not at all.

    Args:
        folder: The folder of the baseline. It need not exist. It may contain only what this function wrote: records,
            their predictions, a manifest and a history of changes.
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
    refuse_exchanged(folder, candidate.folder)
    _refuse_nested(folder, candidate.folder)
    is_made = _made_files(folder)
    history = folder / HISTORY
    earlier = read_text(history) if history.is_file() else ""
    before = _values_in(folder)
    provenances = [record.provenance for record in candidate.records.values()]
    entry = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": who,
        "reason": reason.strip(),
        "commits": sorted({p.git_commit for p in provenances if p.git_commit}),
        "dirty": any(p.git_dirty for p in provenances),
        "changes": _changed_values(before, _values(candidate)) if before is not None else {},
    }
    if before is None:
        entry["note"] = "the files of the baseline before were changed or lost, so its numbers are unknown"
    with atomic_folder(folder, is_made) as new:
        for path in candidate.paths:
            target = new / path.relative_to(candidate.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            predictions = predictions_beside(path)
            if predictions.is_file():
                shutil.copyfile(predictions, predictions_beside(target))
        files = {path.relative_to(new).as_posix(): sha256_of(path) for path in _record_files(new)}
        content = Manifest(files=files).model_dump(by_alias=True)
        write_text(new / MANIFEST, json.dumps(content, indent=2, sort_keys=True) + "\n")
        entry[_MANIFEST_SHA256] = sha256_of(new / MANIFEST)
        write_text(new / HISTORY, earlier + json.dumps(entry) + "\n")
    return entry


def _refuse_nested(folder: Path, candidate: Path) -> None:
    """Refuse a baseline that contains the candidate or is in it: replacing one would change the other."""
    baseline, other = folder.resolve(), candidate.resolve()
    if baseline == other or baseline in other.parents or other in baseline.parents:
        message = f"one of baseline and candidate ({candidate}) contains the other; expected two separate folders"
        raise UserError(Problem(str(folder), "", message))


def _made_files(folder: Path) -> IsMade:
    """Return what tells whether this program made a file of a baseline, given its path relative to the folder."""
    if not is_history(folder / HISTORY):
        if any(is_record(path) for path in record_paths(folder)):
            # They may be somebody's only copy.
            message = f"it contains records but no {HISTORY} of a baseline; move it away, or choose another folder"
            raise UserError(Problem(str(folder), "", f"not written: {message}"))
        return set[Path]().__contains__
    records = [path for path in record_paths(folder) if is_record(path)]
    made = {Path(HISTORY), Path(MANIFEST)}
    made |= {path.relative_to(folder) for path in (*records, *map(predictions_beside, records))}
    with suppress(UserError):
        # The record beside predictions may be lost.
        files = read_json_model(folder / MANIFEST, Manifest).files
        made |= {Path(name) for name, digest in files.items() if _has_digest(folder / name, digest)}
    return made.__contains__


def is_history(path: Path) -> bool:
    """Return whether a file is the history of a baseline. The history of a training has the same name."""
    return _history_entries(path) is not None


def _history_entries(path: Path) -> list[dict[str, Any]] | None:
    """Return the entries of the history of a baseline; None if the file is none."""
    try:
        entries = [parse_json(line) for line in read_text(path).splitlines()]
    except (UserError, ValueError):
        return None
    is_history = all(isinstance(entry, dict) and {"when", "who", "reason"} <= entry.keys() for entry in entries)
    return entries if is_history else None


def _values(records: RecordSet) -> dict[str, float]:
    return {
        _name(key, seed): recorded.metric.value
        for key, by_seed in records.metrics.items()
        for seed, recorded in by_seed.items()
    }


def _values_in(folder: Path) -> dict[str, float] | None:
    """Return the numbers of a baseline that is replaced; None if they cannot be read or are not those it had."""
    if not any(record_paths(folder)):
        return {}
    try:
        return _values(read_baseline(folder))
    except UserError:
        return None


def _name(key: MetricKey, seed: int) -> str:
    return str(key) if seed < 0 else f"{key}/seed{seed}"


def _changed_values(before: dict[str, float], after: dict[str, float]) -> dict[str, list[float | None]]:
    """Return the old and new value of every number that differs; nothing for a first baseline."""
    if not before:
        return {}
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
