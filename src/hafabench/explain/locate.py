"""Locators: ``table2/pvt_small_hafa/miou`` names a cell, ``table2/pvt_small_hafa/miou_delta`` its difference.

Claims have the same locators (`hafabench.reporting.claims.paper_claims`). Cells that the paper leaves empty have a
locator too.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from hafabench.config.experiment import Experiment
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.errors import UserError
from hafabench.reporting.claims.paper_claims import DELTA


@dataclass(frozen=True)
class Place:
    """One cell of the tables, or its difference from the row's baseline."""

    locator: str
    table_layout: TableLayout
    row: Row
    column: Column
    is_difference: bool

    @property
    def models(self) -> tuple[str, ...]:
        """The row's model, and for a difference also the baseline."""
        if self.is_difference and self.row.baseline is not None:
            return self.row.model, self.row.baseline
        return (self.row.model,)

    @property
    def latency_group(self) -> str | None:
        """The name of the latency measurement that fills it; None for other columns."""
        return self.column.latency_group(self.row.group)


def places(experiment: Experiment) -> dict[str, Place]:
    """All cells and differences of the tables by locator, in order."""
    found: dict[str, Place] = {}
    for table_layout in experiment.table_layouts:
        for row in table_layout.rows:
            for column in table_layout.columns:
                start = f"{table_layout.source}/{row.row or row.model}/"
                named = [(start + column.key, False)]
                if row.baseline and column.delta:
                    named.append((start + column.key + DELTA, True))
                if row.baseline and column.change:
                    named.append((start + column.change, True))
                found |= {name: Place(name, table_layout, row, column, difference) for name, difference in named}
    return found


def locate(experiment: Experiment, locator: str) -> Place:
    """The cell or difference that a locator names.

    A row may also be named by its model, and the table of a section by the id of its table layout.

    Raises:
        UserError: If the locator names nothing; the message lists similar locators.
    """
    known = places(experiment)
    if locator in known:
        return known[locator]
    wanted = locator.strip("/").removesuffix("/delta") + (DELTA if locator.endswith("/delta") else "")
    for place in known.values():
        metric = place.locator.rpartition("/")[2]
        tables = {place.table_layout.source, place.table_layout.id}
        rows = {place.row.row or place.row.model, place.row.model}
        if wanted in {f"{table}/{row}/{metric}" for table in tables for row in rows}:
            return place
    beginning = [name for name in known if name.startswith(f"{wanted}/")]
    near = beginning[:3] or get_close_matches(wanted, known, n=3, cutoff=0.5) or list(known)[:3]
    what = "names several cells" if beginning else "names no cell"
    raise UserError(f"{locator!r} {what} of the tables; expected table/row/column, for instance {', '.join(near)}")
