"""The numbers that can fill a column of a table, by model and by seed: the one place that chooses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from hafabench.config.tables import Column, TableLayout
from hafabench.stats.paired import PairedComparison, compare_paired

Mark = Literal["measured", "counted", "imported", "not run"]


class Numbers:
    """The metrics of a frame that can fill one layout.

    Args:
        layout: the table.
        frame: of `hafabench.reporting.frame`.
    """

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
        self._groups = {name: row.group for row in layout.rows for name in (row.baseline, row.model) if name}

    def of(self, column: Column, model: str) -> list[Any]:
        """Metrics of one column and model; imported ones only where nothing was measured, so they never mix."""
        source = f"latency/{column.latency.format(group=self._groups.get(model, ''))}" if column.latency else ""
        found = self._metrics.get((column.verb, column.task, column.metric_name, source, model), [])
        return [metric for metric in found if metric.origin == "measured"] or found

    def of_column(self, column: Column) -> list[Any]:
        """Metrics of one column, of every model of the table."""
        return [metric for model in sorted(self._models) for metric in self.of(column, model)]

    def by_seed(self, column: Column, model: str) -> dict[int, float]:
        """Seed -> value in the column's unit; what was measured without a seed has no place here."""
        metrics = (metric for metric in self.of(column, model) if metric.seed is not None)
        return {int(metric.seed): metric.value * column.factor for metric in metrics}

    def paired(self, column: Column, model: str, baseline: str) -> PairedComparison | None:
        """``model`` against ``baseline`` on their common seeds; None where none is common.

        Only what was measured here is paired: whether seeds of imported numbers have anything in common is unknown.
        """
        if {mark_of(self.of(column, name)) for name in (model, baseline)} != {"measured"}:
            return None
        candidate, reference = self.by_seed(column, model), self.by_seed(column, baseline)
        return compare_paired(candidate, reference) if candidate.keys() & reference.keys() else None


def mark_of(metrics: Sequence[Any]) -> Mark:
    """What the metrics of one cell are; they are never of two kinds."""
    if not metrics:
        return "not run"
    first = metrics[0]
    if first.origin == "imported":
        return "imported"
    return "counted" if first.verb == "complexity" else "measured"
