"""The claims ledger as the page shows it: by verdict, and beside each cell of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hafabench.config.tables import Column
from hafabench.reporting import legend
from hafabench.reporting.claims.ledger import DELTA
from hafabench.reporting.claims.settle import Ledger
from hafabench.reporting.claims.verdicts import Ruling

# Verdict -> the style sheet's name of its colour.
_TONES = {
    "reproduced": "good",
    "reproduced under a convention": "good",
    "contradicted": "bad",
    "inconclusive": "open",
    "not run": "none",
}


@dataclass(frozen=True)
class ClaimLine:
    """One claim: where the paper prints what, what was found here, and why the verdict is what it is."""

    locator: str
    printed: str
    here: str
    because: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ClaimGroup:
    """The claims of one verdict."""

    verdict: str
    tone: str
    lines: list[ClaimLine]


@dataclass(frozen=True)
class ClaimMark:
    """The verdict on what the paper prints in a cell; ``what`` is its figure or its difference."""

    what: str
    verdict: str
    tone: str
    because: str


@dataclass(frozen=True)
class Claims:
    """All claims by verdict; ``settled`` of ``total`` were reproduced or contradicted."""

    groups: list[ClaimGroup]
    settled: int
    total: int


def claims_view(ledger: Ledger) -> Claims:
    """The ledger by verdict, in the ledger's order within each."""
    groups = [
        ClaimGroup(
            verdict, _TONES[verdict], [_line(ruling) for ruling in ledger.rulings if ruling.verdict == verdict]
        )
        for verdict in ledger.tally()
    ]
    return Claims(groups, sum(ruling.is_settled for ruling in ledger.rulings), len(ledger.rulings))


def by_locator(ledger: Ledger) -> dict[str, Ruling]:
    """The rulings by the locator of their claim."""
    return {ruling.claim.locator: ruling for ruling in ledger.rulings}


def marks_of_cell(rulings: Mapping[str, Ruling], locator: str, column: Column) -> tuple[ClaimMark, ...]:
    """The verdicts on a cell's printed figure and printed difference, as far as the paper prints them.

    Args:
        rulings: of the ledger, by locator.
        locator: of the cell.
        column: it stands in.
    """
    names = [("figure", locator), ("difference", locator + DELTA)]
    if column.change:
        names.append(("change", f"{locator.rpartition('/')[0]}/{column.change}"))
    found = [(kind, rulings[name]) for kind, name in names if name in rulings]
    return tuple(ClaimMark(f"{kind} {r.claim.text}", r.verdict, _TONES[r.verdict], r.because) for kind, r in found)


def _line(ruling: Ruling) -> ClaimLine:
    claim, here = ruling.claim, legend.NOT_RUN
    if ruling.value is not None:
        # One digit more than the paper prints shows what was rounded off.
        here = f"{ruling.value:{'+' if claim.is_difference else ''}.{claim.column.decimals + 1}f}"
        here += legend.IMPORTED if ruling.origin == "imported" else ""
    return ClaimLine(claim.locator, f"{claim.text} {claim.unit}", here, ruling.because, tuple(claim.notes))
