"""The tables as the HTML page shows them: every cell with the records that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hafabench.config.tables import Column
from hafabench.formatting.durations import format_duration
from hafabench.formatting.numbers import format_fixed
from hafabench.reporting.claims.verdicts import ClaimVerdict
from hafabench.reporting.html.claims import ClaimMark, marks_of_cell
from hafabench.reporting.provenance import commit_text, device_text, short_digest, started_text
from hafabench.reporting.table_metrics import FROM_WEIGHTS, TableMetrics
from hafabench.reporting.tables import Table, TableCell

Details = list[tuple[str, str]]
_RAN = ("measured", FROM_WEIGHTS, "imported", "collapsed", "failed")


@dataclass(frozen=True)
class Source:
    """One record behind a cell: its value as printed, and the details that only this record has."""

    name: str
    value: str
    details: Details


@dataclass(frozen=True)
class CellView:
    """A cell with its texts.

    Attributes:
        id: Id of its card on the page; None if no record is behind it.
        locator: Its locator, as `hafabench explain` takes it.
        cell: The cell.
        value, delta: This project's half; ``paper`` and ``paper_delta`` are the paper's half.
        against: The difference from the baseline with its interval.
        shared: The details that all records behind the value have in common.
        sources: The records.
        claims: The verdicts on what the paper prints here.
    """

    id: str | None
    locator: str
    cell: TableCell
    value: str
    delta: str
    against: str
    paper: str
    paper_delta: str
    shared: Details
    sources: list[Source]
    claims: tuple[ClaimMark, ...]


@dataclass(frozen=True)
class RowView:
    """A row; ``ran`` is whether any of its cells was measured or imported, or has a training that did not succeed."""

    label: str
    model: str
    baseline: str | None
    ran: bool
    cells: list[CellView]


@dataclass(frozen=True)
class TableView:
    """A table with its rows in blocks of the same group."""

    table: Table
    groups: list[list[RowView]]


def table_view(table: Table, metrics: TableMetrics, verdicts: Mapping[str, ClaimVerdict]) -> TableView:
    """Return the table, each cell with the metrics that fill it and the verdicts on it.

    Args:
        table: The table.
        metrics: The metrics that it was built from.
        verdicts: The verdicts on the paper's claims, by locator.
    """
    labels = {row.model: row.label for row in table.rows}
    groups = []
    for number, block in enumerate(table.groups):
        rows = []
        for at, row in enumerate(block):
            cells = [
                _cell_view(
                    f"{table.id}-{number}-{at}-{column.key}",
                    cell,
                    column,
                    metrics.of(column, row.model),
                    f"{metrics.table_layout.source}/{row.key}/{column.key}",
                    verdicts,
                )
                for column, cell in zip(table.columns, row.cells, strict=True)
            ]
            ran = any(cell.mark in _RAN for cell in row.cells)
            baseline = labels.get(row.baseline or "", row.baseline)
            rows.append(RowView(row.label, row.model, baseline, ran, cells))
        groups.append(rows)
    return TableView(table, groups)


def _cell_view(
    identifier: str,
    cell: TableCell,
    column: Column,
    metrics: Sequence[Any],
    locator: str,
    verdicts: Mapping[str, ClaimVerdict],
) -> CellView:
    value, delta = cell.ours(column.decimals)
    paper, paper_delta = cell.cited(column.decimals)
    details = [_details(metric) for metric in metrics]
    shared = [detail for detail in details[0] if all(detail in other for other in details)] if details else []
    sources = [
        Source(
            name=f"seed {metric.seed}" if metric.seed is not None else metric.id,
            value=format_fixed(metric.value * column.factor, column.decimals + 1),
            details=[detail for detail in own if detail not in shared],
        )
        for metric, own in zip(metrics, details, strict=True)
    ]
    against = " ".join(filter(None, (delta[1:-1], cell.interval(column.decimals))))
    return CellView(
        id=identifier if metrics else None,
        locator=locator,
        cell=cell,
        value=value,
        delta=delta,
        against=against,
        paper=paper,
        paper_delta=paper_delta,
        shared=shared,
        sources=sources,
        claims=marks_of_cell(verdicts, locator, column),
    )


def _details(metric: Any) -> Details:
    """Return the known provenance of one metric."""
    known = [
        ("Convention", metric.convention),
        ("Repeats", None if metric.repeats is None or metric.verb == "complexity" else f"{metric.repeats:,}"),
        ("Commit", commit_text(metric.git_commit, metric.git_dirty, metric.experiment_tracked, metric.version)),
        ("Device", device_text(metric.device, metric.threads)),
        ("Host", metric.host),
        ("Started", started_text(metric.started)),
        ("Duration", format_duration(metric.duration_s)),
        ("Training", _training(metric)),
        ("Starts from", metric.starting_weights),
        ("Checkpoint", short_digest(metric.checkpoint_sha256)),
        ("Data set", short_digest(metric.dataset_digest)),
        ("Configuration", metric.fingerprint),
        ("Record", metric.record),
    ]
    return [(name, str(text)) for name, text in known if text]


def _training(metric: Any) -> str | None:
    if metric.training_seconds is None:
        return None
    steps = f"{metric.training_steps:,} steps, " if metric.training_steps is not None else ""
    return f"{steps}{format_duration(metric.training_seconds)}"
