"""The tables as the page shows them: the one cell model's cells, and behind each where its number came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hafabench.config.tables import Column, TableLayout
from hafabench.formatting.durations import format_duration
from hafabench.reporting.claims.verdicts import Ruling
from hafabench.reporting.html.claims import ClaimMark, marks_of_cell
from hafabench.reporting.numbers import Numbers
from hafabench.reporting.tables import Cell, Table

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """One record behind a cell: its value as printed, and what only this record has."""

    name: str
    value: str
    facts: Facts


@dataclass(frozen=True)
class CellView:
    """A cell with its texts.

    Attributes:
        id: of its card on the page; None where there is nothing to tell.
        locator: its name to `hafabench explain`.
        value, delta: this project's half; ``paper``, ``paper_delta`` the paper's.
        against: the difference to the baseline with its interval.
        shared: facts that hold for every record behind the value.
        sources: the records.
        claims: verdicts on what the paper prints here.
    """

    id: str | None
    locator: str
    cell: Cell
    value: str
    delta: str
    against: str
    paper: str
    paper_delta: str
    shared: Facts
    sources: list[Source]
    claims: tuple[ClaimMark, ...]


@dataclass(frozen=True)
class RowView:
    """A row; ``ran`` says whether training or timing filled any of its cells."""

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


def table_view(table: Table, layout: TableLayout, frame: pd.DataFrame, rulings: Mapping[str, Ruling]) -> TableView:
    """The table, each cell with the frame's rows that filled it and the verdicts on it.

    Args:
        table: of `hafabench.reporting.tables.build_table`, from ``layout`` and ``frame``.
        rulings: of the claims ledger, by locator.
    """
    numbers = Numbers(layout, frame)
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
                    numbers.of(column, row.model),
                    f"{layout.source}/{row.key}/{column.key}",
                    rulings,
                )
                for column, cell in zip(table.columns, row.cells, strict=True)
            ]
            ran = any(cell.mark in ("measured", "imported") for cell in row.cells)
            baseline = labels.get(row.baseline or "", row.baseline)
            rows.append(RowView(row.label, row.model, baseline, ran, cells))
        groups.append(rows)
    return TableView(table, groups)


def _cell_view(
    identifier: str,
    cell: Cell,
    column: Column,
    metrics: Sequence[Any],
    locator: str,
    rulings: Mapping[str, Ruling],
) -> CellView:
    value, delta = cell.ours(column.decimals)
    paper, paper_delta = cell.cited(column.decimals)
    facts = [_facts(metric) for metric in metrics]
    shared = [fact for fact in facts[0] if all(fact in other for other in facts)] if facts else []
    sources = [
        Source(
            name=f"seed {metric.seed}" if metric.seed is not None else metric.id,
            value=f"{metric.value * column.factor:.{column.decimals + 1}f}",
            facts=[fact for fact in own if fact not in shared],
        )
        for metric, own in zip(metrics, facts, strict=True)
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
        claims=marks_of_cell(rulings, locator, column),
    )


def _facts(metric: Any) -> Facts:
    """Where one row of the frame came from; what is not known is left out."""
    known = [
        ("How", metric.convention),
        ("Repeats", None if metric.repeats is None or metric.verb == "complexity" else f"{metric.repeats:,}"),
        ("Commit", commit_text(metric.git_commit, metric.git_dirty)),
        ("Device", device_text(metric.device, metric.threads)),
        ("Host", metric.host),
        ("Started", started_text(metric.started)),
        ("Took", format_duration(metric.duration_s)),
        ("Training", _training(metric)),
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


def commit_text(commit: str | None, dirty: bool | None) -> str | None:
    """``0123456789`` or ``0123456789 with local changes``."""
    if not commit:
        return None
    return commit[:10] + (" with local changes" if dirty else "")


def device_text(device: str | None, threads: int | None) -> str | None:
    """``cpu, 1 thread``; counting runs on no device."""
    if not device or device == "meta":
        return None
    if threads is None:
        return device
    return f"{device}, {threads} thread{'s' if threads != 1 else ''}"


def started_text(started: str | None) -> str | None:
    """``2026-01-02 03:04`` of an ISO 8601 time (UTC)."""
    return f"{started[:16].replace('T', ' ')} UTC" if started else None


def short_digest(digest: str | None) -> str | None:
    """The first 16 digits: enough to tell two files apart; the record has all."""
    return f"sha256 {digest[:16]}…" if digest else None
