"""The overview of an experiment and the list of its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from hafabench.config.experiment import Experiment, Scale
from hafabench.config.recipes import TASKS, Task
from hafabench.formatting.durations import format_duration
from hafabench.reporting.frame import COLLAPSED, NOT_BEGUN
from hafabench.reporting.html.tables import Details
from hafabench.reporting.outcomes import Outcomes
from hafabench.reporting.provenance import commit_text, device_text, short_digest, started_text
from hafabench.reporting.report import Report
from hafabench.results.findings import audit_lines

_SCALES: dict[Scale, str] = {
    "embedded": "embedded data, minutes on CPUs",
    "custom": "custom data, image sizes or schedules",
    "full": "full, as in the paper",
}


@dataclass(frozen=True)
class RecordLine:
    """One record in the list of all records; unknown values are empty."""

    id: str
    verb: str
    origin: str
    commit: str
    device: str
    started: str
    took: str
    training: str
    checkpoint: str
    path: str


def experiment_details(report: Report) -> Details:
    """Return the name and the text of each detail, the most important first."""
    experiment, runs, frame = report.experiment, report.runs, report.frame
    config = experiment.config
    with_numbers = (frame["verb"] == "evaluate") & ~frame["name"].isin((COLLAPSED, NOT_BEGUN))
    evaluated = set(frame.loc[with_numbers, "id"]) & set(runs)
    details: Details = [
        ("Scale", _SCALES[config.scale]),
        ("Runs", f"{len(evaluated)} of {len(runs)} evaluated"),
        ("Seeds", ", ".join(map(str, config.seeds))),
    ]
    named = {"Collapsed": report.outcomes.recorded, "Missing": report.outcomes.missing}
    for name, found in named.items():
        if found:
            grouped = Outcomes.by_clause(found).items()
            details.append((name, "; ".join(f"{clause}: {', '.join(ids)}" for clause, ids in grouped)))
    missing = {outcome.id for outcome in report.outcomes.missing}
    others = {clause: [one for one in ids if one not in missing] for clause, ids in report.not_shown.items()}
    if any(others.values()):
        text = "; ".join(f"{clause}: {', '.join(ids)}" for clause, ids in others.items() if ids)
        details.append(("Left out", text))
    for task in TASKS:
        if task in config.datasets and config.train.get(task):
            details.append((f"Data, {task}", _dataset(experiment, task, frame)))
    details += [("Different data", sentence) for sentence in report.different_data]
    if report.audit:
        details.append(("Audit", "; ".join(audit_lines(report.audit))))
    measured = frame[frame["origin"] == "measured"]
    commits = {
        commit_text(*code) for code in _distinct(measured, "git_commit", "git_dirty", "experiment_tracked", "version")
    }
    details.append(("Commit", ", ".join(sorted(filter(None, commits))) or "unknown"))
    timed = measured[measured["verb"] != "complexity"]
    devices = {device_text(device, threads) for device, threads in _distinct(timed, "device", "threads")}
    if any(devices):
        details.append(("Device", "; ".join(sorted(filter(None, devices)))))
    trained = frame[frame["training_seconds"].notna()].drop_duplicates("id")
    if len(trained):
        details.append(("Training time", f"{format_duration(float(trained['training_seconds'].sum()))} in total"))
    if len(measured):
        details.append(("Newest record", started_text(measured["started"].max()) or "unknown"))
    return details


def record_lines(frame: pd.DataFrame) -> list[RecordLine]:
    """Return one line per record, in the order of the frame."""
    one_each = frame.drop_duplicates("record").astype(object)
    one_each = one_each.where(one_each.notna(), None)
    return [_line(record) for record in one_each.itertuples(index=False)]


def _line(record: Any) -> RecordLine:
    return RecordLine(
        id=record.id,
        verb=record.verb,
        origin=record.origin,
        commit=commit_text(record.git_commit, record.git_dirty, record.experiment_tracked, record.version) or "",
        device=device_text(record.device, record.threads) or "",
        started=started_text(record.started) or "",
        took=format_duration(record.duration_s),
        training=format_duration(record.training_seconds),
        checkpoint=(record.checkpoint_sha256 or "")[:12],
        path=record.record,
    )


def _dataset(experiment: Experiment, task: Task, frame: pd.DataFrame) -> str:
    dataset = experiment.config.datasets[task]
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.images.items())
    own = frame[(frame["task"] == task) & (frame["verb"] == "evaluate")]
    digests = sorted(set(own["dataset_digest"].dropna()))
    text = f"{dataset.name}: {counts} images, {dataset.num_classes} classes"
    return "; ".join([text, *(short_digest(digest) or "" for digest in digests)])


def _distinct(frame: pd.DataFrame, *columns: str) -> set[tuple[Any, ...]]:
    """Return the distinct combinations of values in some columns; missing values are None."""
    unique = frame[list(columns)].drop_duplicates().astype(object)
    return {tuple(None if pd.isna(value) else value for value in row) for row in unique.itertuples(index=False)}
