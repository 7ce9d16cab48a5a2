"""The one model of a table that Markdown, LaTeX and CSV render: cells that say what they are.

A column of the layout becomes a pair: this project's number, and the paper's beside it. Every cell carries a mark:

- ``measured``: trained and evaluated (or timed) here, at the experiment's scale;
- ``counted``: parameters and multiply-accumulates of the full-size model, which no training changes;
- ``imported``: from a record that was made elsewhere;
- ``not run``: nothing was measured;
- ``cited``: the paper's own number (the paper's half of the pair); ``not printed`` where the paper has none.

Values are means over seeds, with the sample standard deviation from two seeds on. Differences are taken between
unrounded means and rounded for printing, so 40.1 (+4.4) may stand above 35.7 although 40.1 - 35.7 is rounded twice.
Where both models have the same two seeds or more, a difference has its 95 % confidence interval, paired by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from hafabench.config.paper_values import PaperValues
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.errors import UserError
from hafabench.formatting.numbers import format_fixed, format_interval
from hafabench.reporting import legend
from hafabench.reporting.numbers import Mark, Numbers, mark_of
from hafabench.stats.paired import summarize

PaperMark = Literal["cited", "not printed"]


@dataclass(frozen=True)
class Cell:
    """One cell, in its column's unit.

    Attributes:
        value: mean over seeds, or the one number; None where nothing was measured.
        spread: standard deviation over seeds, from two seeds on.
        n: number of seeds behind ``value``; None where no seed enters it.
        delta: difference to the row's baseline.
        delta_low, delta_high: its 95 % confidence interval, paired by seed; None where seeds are not paired.
        mark: what ``value`` is.
        paper, paper_delta: what the paper prints.
        low, high: quartiles of repeated measurements.
        best, paper_best: whether ``value`` and ``paper`` are the best of their group, as printed.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    mark: Mark = "not run"
    paper: float | None = None
    paper_delta: float | None = None
    low: float | None = None
    high: float | None = None
    best: bool = False
    paper_best: bool = False

    @property
    def paper_mark(self) -> PaperMark:
        """What the paper's half of the pair is."""
        return "not printed" if self.paper is None and self.paper_delta is None else "cited"

    def ours(self, decimals: int) -> tuple[str, str]:
        """This project's number and its difference as printed: ``("93.1 ± 0.4", "(+1.2)")``."""
        if self.value is None:
            return legend.NOT_RUN, ""
        text = format_fixed(self.value, decimals)
        if self.spread is not None:
            text += f" ± {format_fixed(self.spread, decimals)}"
        if self.low is not None and self.high is not None:
            text += f" {format_interval(self.low, self.high, decimals)}"
        if self.mark == "imported":
            text += legend.IMPORTED
        return text, _bracketed(self.delta, decimals)

    def interval(self, decimals: int) -> str:
        """The difference's interval as printed, ``"[+0.3, +2.1]"``; empty where there is none."""
        if self.delta_low is None or self.delta_high is None:
            return ""
        return format_interval(self.delta_low, self.delta_high, decimals, signed=True)

    def cited(self, decimals: int) -> tuple[str, str]:
        """The paper's number and difference; empty texts where it prints none."""
        number = "" if self.paper is None else format_fixed(self.paper, decimals)
        return number, _bracketed(self.paper_delta, decimals)


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
        id, number: ``table2`` and ``2``, ``section4_1`` and ``4.1``.
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
    def place(self) -> str:
        """Where the paper has it: ``Table 2``, ``Section 4.1``."""
        return f"{'Table' if self.is_table else 'Section'} {self.number}"

    @property
    def is_table(self) -> bool:
        """Whether the paper prints it as a table; other figures are told in the text of a section."""
        return self.id.startswith("table")

    @property
    def as_printed(self) -> str:
        """A clause that says so."""
        return f"{'laid out as' if self.is_table else 'as told in the text of'} {self.place} of the paper"

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
        frame: of `hafabench.reporting.frame`; may be empty.
        paper: the paper's printed values.
        experiment, title, scale: of the experiment (``embedded`` or ``full``) that the frame has to be of.

    Raises:
        UserError: for numbers of another experiment or scale, or a row said to be the paper's that it does not have.
    """
    _refuse_mixtures(frame, experiment, scale)
    _refuse_unknown_rows(layout, paper)
    numbers = Numbers(layout, frame)
    rows = [
        TableRow(
            key=row.row or row.model,
            model=row.model,
            label=row.label,
            group=row.group,
            baseline=row.baseline,
            cells=tuple(
                _cell(column, row, numbers, _printed(column, paper, layout.source, row.row or row.model))
                for column in layout.columns
            ),
        )
        for row in layout.rows
    ]
    rows = _with_best(layout.columns, rows)
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
        rows=tuple(rows),
        notes=tuple(legend.notes(layout.columns, words, sources, rows, marks, experiment=experiment, scale=scale)),
    )


def _refuse_mixtures(frame: pd.DataFrame, experiment: str, scale: str) -> None:
    scales = sorted(frame["scale"].unique())
    if any(found != scale for found in scales):
        found = " and ".join(scales)
        raise UserError(f"experiment {experiment} is of {scale} scale, its frame holds {found} numbers: never mixed")
    others = sorted(set(frame["experiment"].unique()) - {experiment})
    if others:
        raise UserError(f"expected numbers of experiment {experiment} only, found also {', '.join(others)}")


def _refuse_unknown_rows(layout: TableLayout, paper: PaperValues) -> None:
    known = {row for table, row, _ in paper if table == layout.source}
    unknown = [row.row for row in layout.rows if row.row is not None and row.row not in known]
    if unknown:
        raise UserError([f"{layout.id}: the paper's values have no row {row!r} in this table" for row in unknown])


def _word(column: Column, scale: str) -> str:
    if column.verb == "complexity":
        return "counted"
    return "embedded" if column.verb == "evaluate" and scale == "embedded" else "measured"


def _printed(column: Column, paper: PaperValues, table: str, row: str) -> dict[str, float | None]:
    """The paper's half of a cell."""
    value, change = paper.get((table, row, column.key)), paper.get((table, row, column.change or ""))
    found = {"paper": value.value, "paper_delta": value.delta} if value else {}
    return found | ({"paper_delta": change.value} if change else {})


def _cell(column: Column, row: Row, numbers: Numbers, paper: dict[str, float | None]) -> Cell:
    metrics = numbers.of(column, row.model)
    if not metrics:
        return Cell(**paper)
    summary = summarize([metric.value * column.factor for metric in metrics])
    single = metrics[0] if len(metrics) == 1 else None
    difference = _difference(column, row, numbers, summary.mean) if column.delta and row.baseline else {}
    return Cell(
        value=summary.mean,
        spread=summary.sd,
        n=sum(metric.seed is not None for metric in metrics) or None,
        mark=mark_of(metrics),
        low=single.low * column.factor if single and single.low is not None else None,
        high=single.high * column.factor if single and single.high is not None else None,
        **difference,
        **paper,
    )


def _difference(column: Column, row: Row, numbers: Numbers, mean: float) -> dict[str, float | None]:
    metrics, baseline = numbers.of(column, row.model), numbers.of(column, row.baseline)
    # A number made here and one imported from elsewhere differ by more than the model: no difference is given.
    if mark_of(baseline) != mark_of(metrics):
        return {}
    delta = mean - summarize([metric.value * column.factor for metric in baseline]).mean
    paired = numbers.paired(column, row.model, row.baseline)
    # With other seeds on one side the interval would be that of another difference than the printed one.
    if paired is None or not len(metrics) == len(baseline) == paired.n:
        return {"delta": delta}
    return {"delta": delta, "delta_low": paired.low, "delta_high": paired.high}


def _with_best(columns: Sequence[Column], rows: Sequence[TableRow]) -> list[TableRow]:
    """Mark the best of each group and column, this project's and the paper's apart; rivals have to be of one kind."""
    cells = [list(row.cells) for row in rows]
    for at, column in enumerate(columns):
        if column.better is None:
            continue
        best = {"higher": max, "lower": min}[column.better]
        for group in {row.group for row in rows}:
            members = [index for index, row in enumerate(rows) if row.group == group]
            found = [cells[index][at] for index in members]
            ours = _best_of([cell.value for cell in found], best, column.decimals)
            if len({cell.mark for cell in found} - {"not run"}) > 1:
                ours = set()
            theirs = _best_of([cell.paper for cell in found], best, column.decimals)
            for position, index in enumerate(members):
                cells[index][at] = replace(found[position], best=position in ours, paper_best=position in theirs)
    return [replace(row, cells=tuple(own)) for row, own in zip(rows, cells, strict=True)]


def _best_of(values: Sequence[float | None], best: Callable[..., float], decimals: int) -> set[int]:
    """Positions of the best of at least two values; equal as printed is equal."""
    shown = {i: float(format_fixed(value, decimals)) for i, value in enumerate(values) if value is not None}
    return {i for i, value in shown.items() if value == best(shown.values())} if len(shown) > 1 else set()


def _bracketed(delta: float | None, decimals: int) -> str:
    return "" if delta is None else f"({format_fixed(delta, decimals, signed=True)})"
