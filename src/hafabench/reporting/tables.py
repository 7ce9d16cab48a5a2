"""Tables as data: the cells that all formats render.

Each column of a table layout becomes a pair of columns: this project's number, and the paper's next to it. Every cell
has a mark:

- ``measured``: trained and evaluated (or timed) here, at the experiment's scale;
- ``measured from published weights``: trained here from published ImageNet weights;
- ``counted``: parameters and multiply-accumulates of the full-size model, which training does not change;
- ``imported``: from a record that was made elsewhere;
- ``collapsed``: the training diverged;
- ``failed``: the last attempt of its job ended with an error;
- ``not run``: nothing was measured;
- ``cited``: the paper's own number (the paper's half of the pair), ``derived`` if it follows from printed numbers, or
  ``not printed`` if it has none.

Values are means over seeds; with at least two seeds they have the sample standard deviation. Differences are taken
between unrounded means over the seeds that both models have, and rounded for printing. With at least two such seeds,
a difference has its 95 % confidence interval, paired by seed. Values and differences over fewer seeds than the
experiment has are marked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hafabench.config.paper_values import PaperValues
from hafabench.config.recipes import Task
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.errors import UserError
from hafabench.formatting.numbers import format_fixed, format_interval
from hafabench.reporting import legend
from hafabench.reporting.outcomes import Outcome, Outcomes, seeds_text
from hafabench.reporting.table_metrics import FROM_WEIGHTS, Mark, TableMetrics, mark_of, weights_of
from hafabench.stats.paired import summarize

PaperMark = Literal["cited", "derived", "not printed", "collapsed"]


@dataclass(frozen=True)
class TableCell:
    """One cell, in its column's unit.

    Attributes:
        value: Mean over seeds, or the only number; None if nothing was measured.
        spread: Standard deviation over seeds; None with fewer than two seeds.
        n: Number of seeds behind ``value``; None if the value does not depend on a seed.
        seeds: The known seeds behind ``value``.
        has_fewer_seeds: Whether these are fewer seeds than the experiment has.
        delta: Difference from the row's baseline.
        delta_low, delta_high: Its 95 % confidence interval, paired by seed; None if seeds cannot be paired.
        delta_seeds: The seeds that the row and its baseline share, over which the difference is taken.
        delta_has_fewer_seeds: Whether these are fewer seeds than the experiment has.
        mark: The kind of ``value``.
        paper, paper_delta: The paper's value and difference.
        paper_is_derived: Whether the paper does not print the value itself, but others from which it follows.
        paper_is_collapsed: Whether the paper prints an em dash because the training collapsed.
        low, high: Quartiles of repeated measurements.
        outcomes: The runs or measurements of the cell that have no numbers.
        starting_weights: The published weights from which the trainings started.
        best, paper_best: Whether ``value`` and ``paper`` are the best of their group, as printed.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    seeds: tuple[int, ...] = ()
    has_fewer_seeds: bool = False
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    delta_seeds: tuple[int, ...] = ()
    delta_has_fewer_seeds: bool = False
    mark: Mark = "not run"
    paper: float | None = None
    paper_delta: float | None = None
    paper_is_derived: bool = False
    paper_is_collapsed: bool = False
    low: float | None = None
    high: float | None = None
    best: bool = False
    paper_best: bool = False
    outcomes: tuple[Outcome, ...] = ()
    starting_weights: tuple[str, ...] = ()

    @property
    def paper_mark(self) -> PaperMark:
        """The kind of the paper's half of the pair."""
        if self.paper_is_collapsed:
            return "collapsed"
        if self.paper is None and self.paper_delta is None:
            return "not printed"
        return "derived" if self.paper_is_derived else "cited"

    def ours(self, decimals: int) -> tuple[str, str]:
        """Return this project's number and difference as printed: ``("93.1 ± 0.4", "(+1.2)")``."""
        if self.value is None:
            signs = {"collapsed": legend.COLLAPSED, "failed": legend.FAILED, "stale": legend.STALE}
            return signs.get(self.mark, legend.NOT_RUN), ""
        text = format_fixed(self.value, decimals)
        if self.spread is not None:
            text += f" ± {format_fixed(self.spread, decimals)}"
        if self.low is not None and self.high is not None:
            text += f" {format_interval(self.low, self.high, decimals)}"
        text += legend.SIGNS.get(self.mark, "")
        if self.has_fewer_seeds:
            text += legend.FEWER_SEEDS
        # The mean is over the other seeds.
        text = ", ".join(filter(None, [text, seeds_text(self.outcomes)]))
        return text, _bracketed(self.delta, decimals, legend.FEWER_SEEDS if self.delta_has_fewer_seeds else "")

    def interval(self, decimals: int) -> str:
        """Return the interval of the difference as printed, ``"[+0.3, +2.1]"``; empty if there is none."""
        if self.delta_low is None or self.delta_high is None:
            return ""
        return format_interval(self.delta_low, self.delta_high, decimals, signed=True)

    def cited(self, decimals: int) -> tuple[str, str]:
        """Return the paper's number and difference; empty if it prints none, a dash if its training collapsed."""
        if self.paper_is_collapsed:
            return legend.COLLAPSED, ""
        number = "" if self.paper is None else format_fixed(self.paper, decimals)
        return number + (legend.DERIVED if self.paper_is_derived else ""), _bracketed(self.paper_delta, decimals)


@dataclass(frozen=True)
class TableRow:
    """A row with one cell per column; ``key`` is its name in the paper's values, ``baseline`` is a model."""

    key: str
    model: str
    label: str
    group: str
    baseline: str | None
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class Table:
    """A table, ready to be rendered.

    Attributes:
        id, number: ``table2`` and ``2``, or ``section4_1`` and ``4.1``.
        experiment, scale: Name and scale of the experiment.
        warning: Warning to be shown in front of the table; empty at full scale.
        title: Title of the table.
        columns: The columns of the table layout.
        kinds: The kind of this project's half of each column: ``counted``, ``embedded`` or ``custom``
            (evaluated at that scale), or ``measured``.
        rows: The rows in the paper's order.
        notes: The legend, one sentence each.
        model_scale: A sentence on the size of the trained models, if the table has their accuracies and they are
            smaller than the paper's.
    """

    id: str
    number: str
    experiment: str
    scale: str
    warning: str
    title: str
    columns: tuple[Column, ...]
    kinds: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    model_scale: str = ""

    @property
    def place(self) -> str:
        """Its place in the paper: ``Table 2``, ``Section 4.1``."""
        return f"{'Table' if self.is_table else 'Section'} {self.number}"

    @property
    def is_table(self) -> bool:
        """Whether the paper prints it as a table; other numbers are part of the text of a section."""
        return self.id.startswith("table")

    @property
    def as_printed(self) -> str:
        """A clause that names its place in the paper."""
        return f"{'laid out as' if self.is_table else 'from the text of'} {self.place} of the paper"

    @property
    def groups(self) -> list[list[TableRow]]:
        """The rows in blocks of the same group."""
        blocks: list[list[TableRow]] = []
        for row in self.rows:
            if not blocks or blocks[-1][-1].group != row.group:
                blocks.append([])
            blocks[-1].append(row)
        return blocks


def build_table(
    metrics: TableMetrics,
    paper: PaperValues,
    *,
    experiment: str,
    title: str,
    scale: str,
    outcomes: Outcomes | None = None,
    seeds: int = 1,
    other_tasks: Collection[Task] = (),
    model_scale: str = "",
) -> Table:
    """Fill a table layout with an experiment's numbers and the paper's.

    Args:
        metrics: The table layout and the metrics that fill it; there may be none.
        paper: The paper's printed values.
        experiment: Name of the experiment.
        title: Title of the experiment.
        scale: Scale of the experiment (`hafabench.config.experiment`).
        outcomes: The outcomes of the experiment that are no numbers.
        seeds: Number of seeds of the experiment.
        other_tasks: Tasks whose data, input size or schedule is not the paper's.
        model_scale: A sentence on the size of the trained models; empty if it is the paper's.

    Raises:
        UserError: If the table layout names a row of the paper that does not exist.
    """
    table_layout = metrics.table_layout
    _refuse_unknown_rows(table_layout, paper)
    names = [name for row in table_layout.rows for name in (row.model, row.baseline) if name]
    counts = [len(metrics.by_seed(column, name)) for column in table_layout.columns for name in names]
    all_seeds = max(seeds, *counts)
    rows = [
        TableRow(
            key=row.row or row.model,
            model=row.model,
            label=row.label,
            group=row.group,
            baseline=row.baseline,
            cells=tuple(
                _cell(column, row, metrics, paper, outcomes or Outcomes(), all_seeds)
                for column in table_layout.columns
            ),
        )
        for row in table_layout.rows
    ]
    rows = _with_best(table_layout.columns, rows)
    kinds = tuple(_kind(column, scale, other_tasks) for column in table_layout.columns)
    is_other = scale == "full" and any(kind == "custom" for kind in kinds)
    marks: set[str] = {cell.mark for row in rows for cell in row.cells}
    sources = [metrics.of_column(column) for column in table_layout.columns]
    return Table(
        id=table_layout.id,
        number=table_layout.number,
        experiment=experiment,
        scale=scale,
        warning=legend.warning(title, "custom" if is_other else scale),
        title=table_layout.title,
        columns=tuple(table_layout.columns),
        kinds=kinds,
        rows=tuple(rows),
        notes=tuple(
            legend.notes(table_layout.columns, kinds, sources, rows, marks, experiment=experiment, scale=scale)
        ),
        model_scale=model_scale if any(column.verb == "evaluate" for column in table_layout.columns) else "",
    )


def _refuse_unknown_rows(table_layout: TableLayout, paper: PaperValues) -> None:
    known = {row for table, row, _ in paper if table == table_layout.source}
    unknown = [row.row for row in table_layout.rows if row.row is not None and row.row not in known]
    if unknown:
        problem = f"{table_layout.id}: the paper's values have no row"
        raise UserError([f"{problem} {row!r} in this table" for row in unknown])


def _kind(column: Column, scale: str, other_tasks: Collection[Task]) -> str:
    if column.verb == "complexity":
        return "counted"
    if column.verb == "latency":
        return "measured"
    if scale == "full":
        return "custom" if column.task in other_tasks else "measured"
    return scale


def _cell(
    column: Column, row: Row, metrics: TableMetrics, paper: PaperValues, outcomes: Outcomes, all_seeds: int
) -> TableCell:
    """Fill one cell.

    Args:
        column: Its column.
        row: Its row.
        metrics: The metrics that fill its table.
        paper: The paper's printed values.
        outcomes: The outcomes of the experiment that are no numbers.
        all_seeds: Number of seeds of the experiment.
    """
    cited = _printed(column, paper, metrics.table_layout.source, row.row or row.model)
    without = tuple(outcomes.of(column, row.model, row.group))
    found = metrics.of(column, row.model)
    if mark_of(found) == "imported" and any(outcome.kind == "collapsed" for outcome in without):
        # An imported number is shown only if there is no result of this project.
        found = []
    if not found and without:
        kinds = {outcome.kind for outcome in without}
        # A cell of several seeds has failed if any has, because the others do not make it complete.
        mark: Mark = "collapsed" if kinds == {"collapsed"} else "not run"
        mark = next((kind for kind in ("failed", "stale") if kind in kinds), mark)
        return replace(cited, mark=mark, outcomes=without)
    if not found:
        return cited
    summary = summarize([metric.value * column.factor for metric in found])
    single = found[0] if len(found) == 1 else None
    seeds = tuple(sorted(int(metric.seed) for metric in found if metric.seed is not None))
    is_measured = mark_of(found) in ("measured", FROM_WEIGHTS)
    cell = replace(
        cited,
        value=summary.mean,
        spread=summary.sd,
        n=len(seeds) or None,
        seeds=seeds,
        # Missing seeds with a known outcome are named in the cell.
        has_fewer_seeds=is_measured and 0 < len(seeds) < all_seeds and not seeds_text(without),
        mark=mark_of(found),
        starting_weights=weights_of(found),
        outcomes=without if is_measured else (),
        low=single.low * column.factor if single and single.low is not None else None,
        high=single.high * column.factor if single and single.high is not None else None,
    )
    difference = metrics.difference(column, row.model, row.baseline) if column.delta and row.baseline else None
    if difference is None:
        return cell
    paired = difference.paired
    return replace(
        cell,
        delta=difference.value,
        delta_low=paired.low if paired else None,
        delta_high=paired.high if paired else None,
        delta_seeds=paired.seeds if paired else (),
        delta_has_fewer_seeds=paired is not None and paired.n < all_seeds,
    )


def _printed(column: Column, paper: PaperValues, table: str, row: str) -> TableCell:
    """Return a cell that contains only the paper's value and difference."""
    value, change = paper.get((table, row, column.key)), paper.get((table, row, column.change or ""))
    difference = change.value if change else value.delta if value else None
    if value is None:
        return TableCell(paper_delta=difference)
    return TableCell(
        paper=value.value,
        paper_delta=difference,
        paper_is_derived=value.is_derived,
        paper_is_collapsed=value.is_collapsed,
    )


def _with_best(columns: Sequence[Column], rows: Sequence[TableRow]) -> list[TableRow]:
    """Mark the best cell of each group and column, if all cells of the group are of one kind.

    This project's numbers and the paper's are treated separately.
    """
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
    """Return the positions of the best of at least two values; values that are printed alike are equal."""
    shown = {i: float(format_fixed(value, decimals)) for i, value in enumerate(values) if value is not None}
    return {i for i, value in shown.items() if value == best(shown.values())} if len(shown) > 1 else set()


def _bracketed(delta: float | None, decimals: int, mark: str = "") -> str:
    return "" if delta is None else f"({format_fixed(delta, decimals, signed=True)}{mark})"
