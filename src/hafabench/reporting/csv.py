"""Tables as CSV: one line per cell, unrounded, with its mark and the paper's value."""

from __future__ import annotations

import csv
import io

from hafabench.formatting.numbers import format_unrounded
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
                    "ours": format_unrounded(cell.value),
                    "spread": format_unrounded(cell.spread),
                    "seeds": "" if cell.n is None else cell.n,
                    "delta": format_unrounded(cell.delta),
                    "mark": cell.mark,
                    "paper": format_unrounded(cell.paper),
                    "paper_delta": format_unrounded(cell.paper_delta),
                    "scale": table.scale,
                    "experiment": table.experiment,
                    "low": format_unrounded(cell.low),
                    "high": format_unrounded(cell.high),
                    "paper_mark": cell.paper_mark,
                    "delta_low": format_unrounded(cell.delta_low),
                    "delta_high": format_unrounded(cell.delta_high),
                }
            )
    return buffer.getvalue()
