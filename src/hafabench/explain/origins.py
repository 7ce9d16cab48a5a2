"""The records behind a cell, with what each says of where its number was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hafabench.explain.explanation import Checkpoint, Origin
from hafabench.explain.locate import Place
from hafabench.files import sha256_of
from hafabench.formatting.durations import format_duration
from hafabench.reporting.html.tables import commit_text, device_text, started_text
from hafabench.reporting.numbers import Numbers
from hafabench.results.record import Metric, Record, read_record
from hafabench.runs.run import Run


def origins(place: Place, frame: pd.DataFrame, numbers: Numbers, runs: Mapping[str, Run]) -> list[Origin]:
    """One entry per record and model: those that the cell shows, then imported ones that yield to measured ones."""
    shown = [metric for model in place.models for metric in numbers.of(place.column, model)]
    column = place.column
    matching = frame[
        frame["model"].isin(place.models)
        & (frame["name"] == column.metric_name)
        & (frame["task"] == column.task)
        & (frame["verb"] == column.verb)
        & (frame["origin"] == "imported")
    ]
    paths = {metric.record for metric in shown}
    places = [(metric.record, metric.model, True) for metric in shown]
    places += [(row.record, row.model, False) for row in matching.itertuples() if row.record not in paths]
    return [_origin(Path(path), model, place, runs, is_shown) for path, model, is_shown in places]


def _origin(path: Path, model: str, place: Place, runs: Mapping[str, Run], shown: bool) -> Origin:
    record = read_record(path)
    metric = next(m for m in record.metrics if m.name == place.column.metric_name and m.model == model)
    provenance = record.provenance
    return Origin(
        id=record.id if place.column.verb == "evaluate" else f"{record.id} ({model})",
        record=path,
        value=metric.value,
        unit=metric.unit,
        shown=shown,
        origin=record.origin,
        how=_how(metric),
        commit=commit_text(provenance.git_commit, provenance.git_dirty),
        device=device_text(provenance.device, provenance.threads),
        host=provenance.host,
        started=started_text(provenance.started),
        took=format_duration(provenance.duration_s) or None,
        dataset_digest=provenance.dataset_digest,
        fingerprint=record.fingerprint,
        command=provenance.command,
        checkpoint=_checkpoint(record, runs.get(record.id)),
        training=record.training,
        source=record.source.model_dump(mode="json") if record.source else None,
        logs=_logs(path, runs.get(record.id)),
    )


def _how(metric: Metric) -> str | None:
    parts = [metric.convention, f"{metric.repeats:,} repeats or images" if metric.repeats else None]
    return "; ".join(filter(None, parts)) or None


def _checkpoint(record: Record, run: Run | None) -> Checkpoint | None:
    digest = record.provenance.checkpoint_sha256
    path = run.checkpoint if run is not None else Path(record.source.file) if record.source else None
    if digest is None or path is None:
        return None
    if not path.is_file():
        return Checkpoint(path, digest, "no longer there")
    return Checkpoint(path, digest, "unchanged" if sha256_of(path) == digest else "another file now")


def _logs(path: Path, run: Run | None) -> tuple[Path, ...]:
    candidates = [path.with_suffix(".log")]
    if run is not None:
        candidates = [run.folder / "train.log", run.folder / "evaluate.log", run.history]
    return tuple(log for log in candidates if log.is_file())
