"""The metrics that fill the columns of a table, by model and seed. This is the only place that selects them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from hafabench.config.tables import Column, TableLayout
from hafabench.stats.paired import PairedComparison, compare_paired

Mark = Literal[
    "measured",
    "measured from published weights",
    "counted",
    "imported",
    "collapsed",
    "failed",
    "stale",
    "not run",
]
FROM_WEIGHTS: Mark = "measured from published weights"


@dataclass(frozen=True)
class Difference:
    """The difference of a model from its baseline, in the column's unit.

    Attributes:
        value: The difference of the means over the common seeds, or over all values if they have no seeds.
        paired: The comparison over the common seeds; None if the values have no seeds or were imported.
    """

    value: float
    paired: PairedComparison | None = None


class TableMetrics:
    """The rows of a frame that fill one table.

    Args:
        table_layout: The arrangement of the table.
        frame: The experiment's metrics, see `hafabench.reporting.frame`.
    """

    def __init__(self, table_layout: TableLayout, frame: pd.DataFrame):
        self.table_layout = table_layout
        models = {name for row in table_layout.rows for name in (row.model, row.baseline) if name}
        names = {column.metric_name for column in table_layout.columns}
        wanted = frame[frame["model"].isin(models) & frame["name"].isin(names)]
        # Missing values become None, which plain Python code can test.
        wanted = wanted.astype(object).where(wanted.notna(), None)
        self._metrics: dict[tuple[str, ...], list[Any]] = {}
        metric: Any
        for metric in wanted.itertuples(index=False):
            at = (metric.verb, metric.task, metric.name, metric.id if metric.verb == "latency" else "")
            self._metrics.setdefault((*at, metric.model), []).append(metric)
        self._models = models
        self._groups = {name: row.group for row in table_layout.rows for name in (row.baseline, row.model) if name}

    def of(self, column: Column, model: str) -> list[Any]:
        """Return the metrics of one column and model. Imported ones are used only if nothing was measured."""
        group = column.latency_group(self._groups.get(model, ""))
        source = f"latency/{group}" if group is not None else ""
        found = self._metrics.get((column.verb, column.task, column.metric_name, source, model), [])
        return [metric for metric in found if metric.origin == "measured"] or found

    def of_column(self, column: Column) -> list[Any]:
        """Return the metrics of one column, of all models of the table."""
        return [metric for model in sorted(self._models) for metric in self.of(column, model)]

    def by_seed(self, column: Column, model: str) -> dict[int, float]:
        """Return the values by seed, in the column's unit, without those that have no seed."""
        metrics = (metric for metric in self.of(column, model) if metric.seed is not None)
        return {int(metric.seed): metric.value * column.factor for metric in metrics}

    def paired(self, column: Column, model: str, baseline: str) -> PairedComparison | None:
        """Compare ``model`` with ``baseline`` on their common seeds; return None if they have none.

        Imported numbers are not paired, because equal seeds of different projects have nothing in common. Trainings
        from published weights are not paired with trainings from weights of this project.
        """
        if {mark_of(self.of(column, name)) for name in (model, baseline)} not in ({"measured"}, {FROM_WEIGHTS}):
            return None
        candidate, reference = self.by_seed(column, model), self.by_seed(column, baseline)
        return compare_paired(candidate, reference) if candidate.keys() & reference.keys() else None

    def difference(self, column: Column, model: str, baseline: str) -> Difference | None:
        """Return the difference of ``model`` from ``baseline`` that tables and claims give.

        It is taken over the common seeds. There is none if one model has no metric, if one was measured and the other
        imported, or if both were measured with seeds but share none.
        """
        found = [self.of(column, name) for name in (model, baseline)]
        # A measured and an imported number differ by more than the model.
        if not all(found) or mark_of(found[0]) != mark_of(found[1]):
            return None
        paired = self.paired(column, model, baseline)
        if paired is not None:
            return Difference(paired.difference, paired)
        if mark_of(found[0]) in ("measured", FROM_WEIGHTS) and all(
            self.by_seed(column, name) for name in (model, baseline)
        ):
            return None
        means = [statistics.fmean(metric.value * column.factor for metric in of_model) for of_model in found]
        return Difference(means[0] - means[1])


def mark_of(metrics: Sequence[Any]) -> Mark:
    """Return the mark of a cell with these metrics, which are always of one kind."""
    if not metrics:
        return "not run"
    first = metrics[0]
    if first.origin == "imported":
        return "imported"
    if first.verb == "complexity":
        return "counted"
    return FROM_WEIGHTS if weights_of(metrics) else "measured"


def weights_of(metrics: Sequence[Any]) -> tuple[str, ...]:
    """Return the published weights from which the trainings behind metrics started: file names with digests."""
    return tuple(dict.fromkeys(metric.starting_weights for metric in metrics if metric.starting_weights))
