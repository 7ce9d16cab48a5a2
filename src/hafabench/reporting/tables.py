"""The one model of a table that Markdown, LaTeX and CSV render: cells that say what they are.

A column of the layout becomes a pair: this project's number, and the paper's beside it. Every cell carries a mark:

- ``measured``: trained and evaluated (or timed) here, at the experiment's scale;
- ``counted``: parameters and multiply-accumulates of the full-size model, which no training changes;
- ``imported``: from a record that was made elsewhere;
- ``not run``: nothing was measured;
- ``cited``: the paper's own number (the paper's half of the pair); ``not printed`` where the paper has none.

Values are means over seeds, with the sample standard deviation from two seeds on. Differences are taken between
unrounded means and rounded for printing, so 40.1 (+4.4) may stand above 35.7 although 40.1 - 35.7 is rounded twice.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from hafabench.errors import UserError
from hafabench.layout import Column, Row, TableLayout
from hafabench.reporting import legend
from hafabench.reporting.paper import PaperValue, PaperValues

Mark = Literal["measured", "counted", "imported", "not run"]
PaperMark = Literal["cited", "not printed"]


@dataclass(frozen=True)
class Cell:
    """One cell, in its column's unit.

    Attributes:
        value: mean over seeds, or the one number; None where nothing was measured.
        spread: standard deviation over seeds, from two seeds on.
        n: number of seeds behind ``value``; None where no seed enters it.
        delta: difference to the row's baseline.
        mark: what ``value`` is.
        paper, paper_delta: what the paper prints.
        low, high: quartiles of repeated measurements.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    delta: float | None = None
    mark: Mark = "not run"
    paper: float | None = None
    paper_delta: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def paper_mark(self) -> PaperMark:
        """What the paper's half of the pair is."""
        return "not printed" if self.paper is None else "cited"

    def ours(self, decimals: int) -> tuple[str, str]:
        """This project's number and its difference as printed: ``("93.1", "(+1.2)")``."""
        if self.value is None:
            return legend.NOT_RUN, ""
        text = _fixed(self.value, decimals)
        if self.spread is not None:
            text += f" ± {_fixed(self.spread, decimals)}"
        if self.low is not None and self.high is not None:
            text += f" [{_fixed(self.low, decimals)}, {_fixed(self.high, decimals)}]"
        if self.mark == "imported":
            text += legend.IMPORTED
        return text, _bracketed(self.delta, decimals)

    def cited(self, decimals: int) -> tuple[str, str]:
        """The paper's number and difference; empty texts where it prints none."""
        if self.paper is None:
            return "", ""
        return _fixed(self.paper, decimals), _bracketed(self.paper_delta, decimals)


@dataclass(frozen=True)
class TableRow:
    """A row with one cell per column; ``key`` is its name in the paper's values, ``baseline`` a model."""

    key: str
    model: str
    label: str
    group: str
    baseline: str | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table ready to render.

    Attributes:
        id, number: ``table2`` and ``2``.
        warning: what has to be read first; empty at full scale.
        title: what the table shows.
        columns: of the layout; ``words`` say for each what this project's half is: ``counted``, ``embedded``
            (measured on embedded data) or ``measured``.
        rows: in the paper's order.
        notes: the legend, plain sentences.
    """

    id: str
    number: str
    experiment: str
    scale: str
    warning: str
    title: str
    columns: tuple[Column, ...]
    words: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]

    @property
    def groups(self) -> list[list[TableRow]]:
        """The rows in blocks of the same group, in order."""
        blocks: list[list[TableRow]] = []
        for row in self.rows:
            if not blocks or blocks[-1][-1].group != row.group:
                blocks.append([])
            blocks[-1].append(row)
        return blocks


def build_table(
    layout: TableLayout, frame: pd.DataFrame, paper: PaperValues, *, experiment: str, title: str, scale: str
) -> Table:
    """Fill a layout with an experiment's numbers and the paper's.

    Args:
        layout: rows, columns, baselines.
        frame: of `hafabench.results.collect`; may be empty.
        paper: the paper's printed values.
        experiment, title, scale: of the experiment (``embedded`` or ``full``) that the frame has to be of.

    Raises:
        UserError: for numbers of another experiment or scale, or a row said to be the paper's that it does not have.
    """
    _refuse_mixtures(frame, experiment, scale)
    _refuse_unknown_rows(layout, paper)
    numbers = _Numbers(layout, frame)
    rows = tuple(
        TableRow(
            key=row.row or row.model,
            model=row.model,
            label=row.label,
            group=row.group,
            baseline=row.baseline,
            cells=tuple(
                _cell(column, row, numbers, paper.get((layout.id, row.row or row.model, column.key)))
                for column in layout.columns
            ),
        )
        for row in layout.rows
    )
    words = tuple(_word(column, scale) for column in layout.columns)
    marks = {cell.mark for row in rows for cell in row.cells}
    sources = [numbers.of_column(column) for column in layout.columns]
    return Table(
        id=layout.id,
        number=layout.number,
        experiment=experiment,
        scale=scale,
        warning=legend.warning(title, scale),
        title=layout.title,
        columns=tuple(layout.columns),
        words=words,
        rows=rows,
        notes=tuple(legend.notes(layout.columns, words, sources, rows, marks, experiment=experiment, scale=scale)),
    )


def _refuse_mixtures(frame: pd.DataFrame, experiment: str, scale: str) -> None:
    scales = sorted(set(frame["scale"]))
    if any(found != scale for found in scales):
        found = " and ".join(scales)
        raise UserError(f"experiment {experiment} is of {scale} scale, its frame holds {found} numbers: never mixed")
    others = sorted(set(frame["experiment"]) - {experiment})
    if others:
        raise UserError(f"expected numbers of experiment {experiment} only, found also {', '.join(others)}")


def _refuse_unknown_rows(layout: TableLayout, paper: PaperValues) -> None:
    known = {row for table, row, _ in paper if table == layout.id}
    unknown = [row.row for row in layout.rows if row.row is not None and row.row not in known]
    if unknown:
        raise UserError([f"{layout.id}: the paper's values have no row {row!r} in this table" for row in unknown])


def _word(column: Column, scale: str) -> str:
    if column.verb == "complexity":
        return "counted"
    return "embedded" if column.verb == "evaluate" and scale == "embedded" else "measured"


class _Numbers:
    """The metrics that can fill a layout, by column and model."""

    def __init__(self, layout: TableLayout, frame: pd.DataFrame):
        models = {row.model for row in layout.rows} | {row.baseline for row in layout.rows if row.baseline}
        names = {column.metric_name for column in layout.columns}
        wanted = frame[frame["model"].isin(models) & frame["name"].isin(names)]
        # Missing values as None, so that plain Python code can test them.
        wanted = wanted.astype(object).where(wanted.notna(), None)
        self._metrics: dict[tuple[str, ...], list[Any]] = {}
        for metric in wanted.itertuples(index=False):
            at = (metric.verb, metric.task, metric.name, metric.id if metric.verb == "latency" else "")
            self._metrics.setdefault((*at, metric.model), []).append(metric)
        self._models = models

    def of(self, column: Column, model: str) -> list[Any]:
        """Metrics of one column and model; imported ones only where nothing was measured, so they never mix."""
        source = f"latency/{column.latency}" if column.latency else ""
        found = self._metrics.get((column.verb, column.task, column.metric_name, source, model), [])
        return [metric for metric in found if metric.origin == "measured"] or found

    def of_column(self, column: Column) -> list[Any]:
        """Metrics of one column, of every model of the table."""
        return [metric for model in sorted(self._models) for metric in self.of(column, model)]


def _cell(column: Column, row: Row, numbers: _Numbers, printed: PaperValue | None) -> Cell:
    paper = {"paper": printed.value, "paper_delta": printed.delta} if printed else {}
    metrics = numbers.of(column, row.model)
    if not metrics:
        return Cell(**paper)
    values = [metric.value * column.factor for metric in metrics]
    value, single = statistics.fmean(values), metrics[0] if len(metrics) == 1 else None
    delta = None
    baseline = numbers.of(column, row.baseline) if column.delta and row.baseline else []
    # A number made here and one imported from elsewhere differ by more than the model: no difference is given.
    if baseline and _mark(baseline) == _mark(metrics):
        delta = value - statistics.fmean(metric.value * column.factor for metric in baseline)
    return Cell(
        value=value,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        n=sum(metric.seed is not None for metric in metrics) or None,
        delta=delta,
        mark=_mark(metrics),
        low=single.low * column.factor if single and single.low is not None else None,
        high=single.high * column.factor if single and single.high is not None else None,
        **paper,
    )


def _mark(metrics: Iterable[Any]) -> Mark:
    first = next(iter(metrics))
    if first.origin == "imported":
        return "imported"
    return "counted" if first.verb == "complexity" else "measured"


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _bracketed(delta: float | None, decimals: int) -> str:
    if delta is None:
        return ""
    text = _fixed(delta, decimals)
    return f"({text})" if text.startswith("-") else f"(+{text})"
