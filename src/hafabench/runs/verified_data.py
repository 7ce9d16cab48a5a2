"""The data that runs and records rest on, compared with the data that was verified last; imports no torch.

Every split has a digest of the files that are read (`hafabench.data.manifest.split_digest`). Names are relative to
the root folder, so that a data set that was moved is the same data. Training and evaluation store the digest of the
split that they read. Files of earlier versions contain none; nothing is known about their data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafabench.config.json_file import read_json_object
from hafabench.results.record import Record
from hafabench.runs.fingerprints import dataset_fingerprint, fingerprint
from hafabench.runs.run import Run

SPLIT_NAMES = {"train": "training", "val": "validation"}
_NAMED = 3


@dataclass(frozen=True)
class DataRead:
    """The data that one record rests on.

    Attributes:
        id: The id of the record.
        task: Its task.
        digests: The digest of each split that is known, by ``train`` and ``val``.
    """

    id: str
    task: str
    digests: Mapping[str, str]


def data_of(record: Record) -> DataRead:
    """The data that the record of an evaluation rests on."""
    found = {"train": (record.training or {}).get("listing_digest"), "val": record.provenance.listing_digest}
    return DataRead(record.id, record.id.split("/")[0], {split: one for split, one in found.items() if one})


def verified_digests(run: Run) -> dict[str, str]:
    """The digest of each split of a run's data when it was last verified.

    It is empty if the data was not verified, was verified by an earlier version, or under another configuration.
    """
    report = read_json_object(run.dataset_report) if run.dataset_report is not None else None
    if report is None or fingerprint(report.get("identity") or {}) != dataset_fingerprint(run.dataset):
        return {}
    found = report.get("listings")
    return found if isinstance(found, dict) else {}


def data_changes(run: Run, digests: Mapping[str, Any]) -> tuple[str, ...]:
    """How the data that the files of a run were made from differs from the verified data, as clauses.

    Args:
        run: The run.
        digests: The digests that the files contain, by split; None or missing if one is not known.
    """
    verified = verified_digests(run)
    return tuple(
        f"its {SPLIT_NAMES[split]} data: {before[:12]} -> {verified[split][:12]}"
        for split, before in digests.items()
        if before is not None and verified.get(split, before) != before
    )


def different_data(read: Iterable[DataRead]) -> list[str]:
    """Tell which records of an experiment rest on different data, in one sentence for each task and split."""
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in read:
        for split, digest in one.digests.items():
            if one.id not in found[one.task, split][digest]:
                found[one.task, split][digest].append(one.id)
    sentences = []
    for (task, split), ids_of in found.items():
        if len(ids_of) > 1:
            parts = [f"{_names(ids)} from {digest[:12]}" for digest, ids in ids_of.items()]
            sentences.append(
                f"{task}: the records come from different {SPLIT_NAMES[split]} data: {', '.join(parts)}; "
                "their numbers cannot be compared"
            )
    return sentences


def _names(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more


def stored_digest(file: Path, fingerprint: str) -> str | None:
    """The digest of the training data in a stored configuration.

    Args:
        file: The configuration in the folder of a run.
        fingerprint: The fingerprint of the run; the digest of another configuration is not returned.
    """
    written = read_json_object(file) or {}
    return written.get("listing_digest") if written.get("fingerprint") == fingerprint else None
