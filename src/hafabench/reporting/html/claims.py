"""The claims as the HTML page shows them: grouped by verdict, and next to the cells of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hafabench.config.tables import Column
from hafabench.reporting.claims.ledger import Ledger
from hafabench.reporting.claims.paper_claims import DELTA
from hafabench.reporting.claims.verdicts import IMPORTED_TALLY, ClaimVerdict

# The name of each verdict's colour in the style sheet.
TONES = {
    "reproduced": "good",
    "reproduced under a convention": "good",
    "contradicted": "bad",
    "inconclusive": "open",
    "not comparable": "none",
    "not run": "none",
}


@dataclass(frozen=True)
class ClaimGroup:
    """The claims with one verdict."""

    verdict: str
    tone: str
    verdicts: list[ClaimVerdict]


@dataclass(frozen=True)
class ClaimMark:
    """The verdict on what the paper prints in a cell; ``what`` names the printed figure or difference."""

    what: str
    verdict: str
    tone: str
    because: str


def claim_groups(ledger: Ledger) -> list[ClaimGroup]:
    """Return the claims grouped by verdict, in the ledger's order within each group."""
    return [
        ClaimGroup(name, _tone(name), [verdict for verdict in ledger.verdicts if verdict.tally == name])
        for name in ledger.totals()
    ]


def _tone(tally: str) -> str:
    """Return the colour of a group; verdicts on imported numbers are no results of this project."""
    return "none" if tally.endswith(IMPORTED_TALLY) else TONES[tally]


def marks_of_cell(verdicts: Mapping[str, ClaimVerdict], locator: str, column: Column) -> tuple[ClaimMark, ...]:
    """Return the verdicts on a cell's printed figure and printed difference, if the paper prints them.

    Args:
        verdicts: The verdicts by locator.
        locator: The cell's locator.
        column: The cell's column.
    """
    names = [("figure", locator), ("difference", locator + DELTA)]
    if column.change:
        names.append(("change", f"{locator.rpartition('/')[0]}/{column.change}"))
    found = [(kind, verdicts[name]) for kind, name in names if name in verdicts]
    return tuple(
        ClaimMark(
            "collapse" if v.claim.is_collapse else f"{kind} {v.claim.text}", v.verdict, TONES[v.verdict], v.because
        )
        for kind, v in found
    )
