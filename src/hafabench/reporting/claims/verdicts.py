"""A claim and what an experiment says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hafabench.reporting.claims.ledger import Claim

Verdict = Literal["reproduced", "reproduced under a convention", "contradicted", "inconclusive", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Match:
    """A way to count and to shorten that gives the printed figure."""

    convention: str
    printed: str

    def __str__(self) -> str:
        return f"{self.convention}, {self.printed}"


@dataclass(frozen=True)
class Ruling:
    """What was found of one claim.

    Attributes:
        claim: the printed figure.
        verdict: ``not run`` where nothing here can settle it.
        value: this project's figure in the claim's unit, unrounded; for a static claim that of the convention named,
            or of the plainest one. None where there is none.
        low, high: confidence interval over seeds, where there are several.
        seeds: how many seeds enter.
        origin: ``counted``, ``measured`` or ``imported``; empty where there is no figure.
        convention: how a static figure is reproduced, or None.
        matches: every way to count that gives the printed figure, also those that settle nothing.
        because: the reason for the verdict, one sentence without its full stop.
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
