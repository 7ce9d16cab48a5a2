"""Locators: ``table2/pvt_small_hafa/miou`` is a cell, ``table2/pvt_small_hafa/miou_delta`` its difference.

They are those of the claims (`hafabench.reporting.claims.ledger`); cells that the paper leaves empty have one too.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from hafabench.config.experiment import Experiment
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.errors import UserError
from hafabench.reporting.claims.ledger import DELTA


@dataclass(frozen=True)
class Place:
    """One cell of the tables, or its difference to the row's baseline."""

    locator: str
    layout: TableLayout
    row: Row
    column: Column
    is_difference: bool

    @property
    def models(self) -> tuple[str, ...]:
        """The models behind it: the row's, and for a difference the baseline's."""
        return (self.row.model, self.row.baseline) if self.is_difference else (self.row.model,)

    @property
    def latency_group(self) -> str | None:
        """The latency measurement that fills it."""
        return self.column.latency.format(group=self.row.group) if self.column.latency else None


def places(experiment: Experiment) -> dict[str, Place]:
    """Every cell and difference of the tables by its locator, in their order."""
    found: dict[str, Place] = {}
    for layout in experiment.table_layouts:
        for row in layout.rows:
            for column in layout.columns:
                start = f"{layout.source}/{row.row or row.model}/"
                named = [(start + column.key, False)]
                if row.baseline and column.delta:
                    named.append((start + column.key + DELTA, True))
                if row.baseline and column.change:
                    named.append((start + column.change, True))
                found |= {name: Place(name, layout, row, column, difference) for name, difference in named}
    return found


def locate(experiment: Experiment, locator: str) -> Place:
    """The place of a locator; a row may also go by its model's name, a section's table by its layout's.

    Raises:
        UserError: for a locator that names nothing, with the nearest that do.
    """
    known = places(experiment)
    if locator in known:
        return known[locator]
    wanted = locator.strip("/").removesuffix("/delta") + (DELTA if locator.endswith("/delta") else "")
    for place in known.values():
        metric = place.locator.rpartition("/")[2]
        tables, rows = {place.layout.source, place.layout.id}, {place.row.row or place.row.model, place.row.model}
        if wanted in {f"{table}/{row}/{metric}" for table in tables for row in rows}:
            return place
    beginning = [name for name in known if name.startswith(f"{wanted}/")]
    near = beginning[:3] or get_close_matches(wanted, known, n=3, cutoff=0.5) or list(known)[:3]
    what = "names several cells" if beginning else "names no cell"
    raise UserError(f"{locator!r} {what} of the tables; expected table/row/column, for instance {', '.join(near)}")
