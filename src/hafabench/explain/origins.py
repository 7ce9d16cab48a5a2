"""The records behind a cell, each with the provenance of its number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hafabench.explain.explanation import Checkpoint, Origin
from hafabench.explain.locate import Place
from hafabench.files import sha256_of
from hafabench.formatting.durations import format_duration
from hafabench.reporting.provenance import commit_text, device_text, started_text
from hafabench.reporting.table_metrics import TableMetrics
from hafabench.results.record import Metric, Record
from hafabench.runs.paths import EVALUATE_LOG, TRAIN_LOG
from hafabench.runs.run import Run


def origins(
    place: Place, metrics: TableMetrics, records: Mapping[Path, Record], runs: Mapping[str, Run]
) -> list[Origin]:
    """The records behind a cell: those that it shows, then imported ones that are not shown beside measured ones.

    Args:
        place: The cell.
        metrics: The metrics of its table.
        records: The records that the metrics were made from, by file.
        runs: The experiment's runs behind the cell, by id.
    """
    shown = {(Path(metric.record), model) for model in place.models for metric in metrics.of(place.column, model)}
    found = [
        _origin(path, record, metric, runs.get(record.id), is_shown=(path, metric.model) in shown)
        for model in place.models
        for path, record in records.items()
        for metric in record.metrics
        if (metric.model, metric.name) == (model, place.column.metric_name)
    ]
    return sorted(found, key=lambda origin: not origin.shown)


def _origin(path: Path, record: Record, metric: Metric, run: Run | None, *, is_shown: bool) -> Origin:
    provenance = record.provenance
    return Origin(
        id=record.id if record.verb == "evaluate" else f"{record.id} ({metric.model})",
        record=path,
        value=metric.value,
        unit=metric.unit,
        shown=is_shown,
        origin=record.origin,
        how=_how(metric),
        commit=commit_text(
            provenance.git_commit,
            provenance.git_dirty,
            provenance.experiment_tracked,
            provenance.packages.get("hafabench"),
            provenance.git_changes,
        ),
        device=device_text(provenance.device, provenance.threads),
        host=provenance.host,
        started=started_text(provenance.started),
        took=format_duration(provenance.duration_s) or None,
        dataset_digest=provenance.dataset_digest,
        fingerprint=record.fingerprint,
        command=provenance.command,
        checkpoint=_checkpoint(record, run),
        training=record.training,
        starting_weights=record.starting_weights.model_dump() if record.starting_weights else None,
        source=record.source.model_dump(mode="json") if record.source else None,
        logs=_logs(path, run),
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
        return Checkpoint(path, digest, "deleted")
    return Checkpoint(path, digest, "unchanged" if sha256_of(path) == digest else "changed since")


def _logs(path: Path, run: Run | None) -> tuple[Path, ...]:
    candidates = [path.with_suffix(".log")]
    if run is not None:
        candidates = [run.folder / TRAIN_LOG, run.folder / EVALUATE_LOG, run.history]
    return tuple(log for log in candidates if log.is_file())
