"""Tables as CSV: one line per cell, unrounded, with its mark and the paper's value."""

from __future__ import annotations

import csv
import io

from hafabench.reporting.tables import Table

COLUMNS = [
    "table",
    "row",
    "label",
    "group",
    "column",
    "ours",
    "spread",
    "seeds",
    "delta",
    "mark",
    "paper",
    "paper_delta",
    "scale",
    "experiment",
    "low",
    "high",
    "paper_mark",
    "delta_low",
    "delta_high",
]


def render(table: Table) -> str:
    """All cells of one table; ``seeds`` is the number of seeds behind ``ours``, empty where none enters."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            writer.writerow(
                {
                    "table": table.number,
                    "row": row.key,
                    "label": row.label,
                    "group": row.group,
                    "column": column.key,
                    "ours": _number(cell.value),
                    "spread": _number(cell.spread),
                    "seeds": "" if cell.n is None else cell.n,
                    "delta": _number(cell.delta),
                    "mark": cell.mark,
                    "paper": _number(cell.paper),
                    "paper_delta": _number(cell.paper_delta),
                    "scale": table.scale,
                    "experiment": table.experiment,
                    "low": _number(cell.low),
                    "high": _number(cell.high),
                    "paper_mark": cell.paper_mark,
                    "delta_low": _number(cell.delta_low),
                    "delta_high": _number(cell.delta_high),
                }
            )
    return buffer.getvalue()


def _number(value: float | None) -> str:
    # Ten significant digits: parameter counts stay exact, and no rounding noise of a factor shows.
    return "" if value is None else f"{value:.10g}"
