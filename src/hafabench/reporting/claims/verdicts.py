"""The verdict of an experiment on one claim of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from hafabench.formatting.numbers import format_fixed
from hafabench.reporting import legend
from hafabench.reporting.claims.paper_claims import Claim

Verdict = Literal["reproduced", "reproduced under a convention", "contradicted", "inconclusive", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Match:
    """A convention and a way of shortening that give the printed figure."""

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
        low, high: Confidence interval over seeds; None with fewer than two seeds.
        seeds: Number of seeds behind ``value``.
        origin: ``counted``, ``measured`` or ``imported``; empty without a value.
        convention: The convention under which a static figure is reproduced; None if it is not.
        matches: All conventions that give the printed figure, including those that settle nothing.
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

    @property
    def is_settled(self) -> bool:
        """Whether the claim was reproduced or contradicted."""
        return self.verdict in ("reproduced", "reproduced under a convention", "contradicted")

    @property
    def value_text(self) -> str:
        """The figure, with one digit more than the paper prints, so that rounding can be seen."""
        if self.value is None:
            return legend.NOT_RUN
        text = format_fixed(self.value, self.claim.column.decimals + 1, signed=self.claim.is_difference)
        return text + (legend.IMPORTED if self.origin == "imported" else "")

    def as_row(self) -> dict[str, Any]:
        """The claim and its verdict as plain values, for CSV and JSON."""
        claim = self.claim
        return {
            "locator": claim.locator,
            "table": claim.layout.source,
            "row": claim.row.row or claim.row.model,
            "metric": claim.metric,
            "kind": claim.kind,
            "unit": claim.unit,
            "printed": claim.text,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "seeds": self.seeds or None,
            "origin": self.origin,
            "verdict": self.verdict,
            "convention": self.convention.convention if self.convention else None,
            "shortened": self.convention.printed if self.convention else None,
            "tolerance": claim.tolerance,
            "tolerance_reason": claim.reason,
            "because": self.because,
            "matches": [str(match) for match in self.matches],
            "notes": list(claim.notes),
        }
