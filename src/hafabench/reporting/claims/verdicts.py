"""The verdict of an experiment on one claim of the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hafabench.config.verdicts import Verdict
from hafabench.formatting.numbers import format_fixed
from hafabench.reporting import legend
from hafabench.reporting.claims.paper_claims import Claim

IMPORTED_TALLY = ", imported numbers"


@dataclass(frozen=True)
class Match:
    """A convention and a rounding mode that give the printed figure."""

    convention: str
    printed: str

    def __str__(self) -> str:
        return f"{self.convention}, {self.printed}"


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict on one claim.

    Attributes:
        claim: The printed figure or difference.
        verdict: ``not run`` if nothing in the experiment can settle the claim.
        because: The reason, one sentence without its full stop.
        value: This project's figure in the claim's unit, unrounded; None if there is none. For a static claim it is
            the count by ``convention``, or by the default convention.
        low, high: Confidence interval of a measured figure (`hafabench.stats.moderated`); None for a static claim.
        seeds: Number of seeds behind ``value``.
        origin: ``counted``, ``measured``, ``measured from published weights`` or ``imported``; empty without a value.
        convention: The convention under which a static figure is reproduced; None if it is not.
        matches: All conventions that give the printed figure, including those that settle nothing.
        is_collapsed: Whether there is no figure because every training collapsed.
    """

    claim: Claim
    verdict: Verdict
    because: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    origin: str = ""
    convention: Match | None = None
    matches: tuple[Match, ...] = ()
    is_collapsed: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether the claim was reproduced or contradicted."""
        return self.verdict in ("reproduced", "reproduced under a convention", "contradicted")

    @property
    def is_imported(self) -> bool:
        """Whether the verdict rests on imported numbers."""
        return self.origin == "imported"

    @property
    def tally(self) -> str:
        """The heading under which it is counted: its verdict, marked if it rests on imported numbers."""
        return f"{self.verdict}{IMPORTED_TALLY if self.is_imported else ''}"

    @property
    def value_text(self) -> str:
        """The figure, with one digit more than the paper prints, so that rounding is visible."""
        if self.value is None:
            return legend.COLLAPSED if self.is_collapsed else legend.NOT_RUN
        text = format_fixed(self.value, self.claim.column.decimals + 1, signed=self.claim.is_difference)
        return text + legend.SIGNS.get(self.origin, "")

    def as_row(self) -> dict[str, Any]:
        """Return the claim and its verdict as plain values, for CSV and JSON."""
        return {name: value_of(self) for name, value_of in CLAIM_COLUMNS.items()}


CLAIM_COLUMNS: dict[str, Callable[[ClaimVerdict], Any]] = {
    "locator": lambda v: v.claim.locator,
    "table": lambda v: v.claim.table_layout.source,
    "row": lambda v: v.claim.row.row or v.claim.row.model,
    "metric": lambda v: v.claim.metric,
    "kind": lambda v: v.claim.kind,
    "unit": lambda v: v.claim.unit,
    "printed": lambda v: v.claim.text,
    "value": lambda v: v.value,
    "low": lambda v: v.low,
    "high": lambda v: v.high,
    "seeds": lambda v: v.seeds or None,
    "origin": lambda v: v.origin,
    "verdict": lambda v: v.verdict,
    "convention": lambda v: v.convention.convention if v.convention else None,
    "shortened": lambda v: v.convention.printed if v.convention else None,
    "tolerance": lambda v: v.claim.tolerance,
    "tolerance_reason": lambda v: v.claim.reason,
    "because": lambda v: v.because,
    "matches": lambda v: [str(match) for match in v.matches],
    "notes": lambda v: list(v.claim.notes),
    "in_paper": lambda v: "derived" if v.claim.is_derived else "collapsed" if v.claim.is_collapse else "printed",
}
"""The columns of `ClaimVerdict.as_row`."""
