"""Verdicts on static claims (parameters and GFLOPs), by counting under different conventions.

There are 22 conventions and three rounding modes, so that some combination gives nearly any printed figure.
All combinations that give the figure of a claim are listed, but they do not settle it. A claim is *reproduced* if the
default convention, rounded, gives its figure, or if a row convention does. A row convention assigns a convention to a
set of rows in the claims file, with a reason. In each table, it has to give the figures of at least three in four of
these rows, because the rows of one table support nothing about those of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase

from hafabench.config.claims import (
    MIN_EXPLAINED_SHARE,
    ClaimsConfig,
    Convention,
    RoundingMode,
    RowConvention,
    StandIn,
)
from hafabench.config.verdicts import Verdict
from hafabench.formatting.numbers import format_fixed
from hafabench.measure.conventions import ROUNDING_MODES, count_row, printed
from hafabench.reporting.claims.paper_claims import Claim
from hafabench.reporting.claims.verdicts import ClaimVerdict, Match
from hafabench.results.counts import Counts


@dataclass(frozen=True)
class ConventionFit:
    """How well one row convention explains its rows of one table.

    Attributes:
        row_convention: The convention, the rounding mode, and the rows that they are assigned to.
        table: The table; None for a default convention, which is tried on all tables.
        rows: Locators of the claims of these rows in the table.
        explained: Those of them whose printed figure the convention gives.
        settled: Those that it settles because no simpler row convention does.
        holds: Whether it explains enough of its rows to settle any.
        everywhere: Number of figures in the whole paper that it gives, out of ``anywhere`` figures of its metric.
    """

    row_convention: RowConvention
    table: str | None
    rows: tuple[str, ...]
    explained: tuple[str, ...]
    settled: tuple[str, ...]
    holds: bool
    everywhere: int
    anywhere: int

    @property
    def fails_on(self) -> tuple[str, ...]:
        """The rows that it is assigned to but does not explain."""
        return tuple(row for row in self.rows if row not in self.explained)


class StaticClaims:
    """Static claims and every convention applied to them.

    Args:
        claims: The paper's claims; only static ones are used.
        config: The conventions and row conventions, the simplest first.
        counts: The parameters and operations of the models; None if they have not been counted.
    """

    def __init__(self, claims: Sequence[Claim], config: ClaimsConfig, counts: Counts | None):
        self.claims = {claim.locator: claim for claim in claims if claim.kind == "static"}
        self.config, self.counts = config, counts
        self._values: dict[tuple[str, str], Decimal | None] = {}

    def value(self, convention: Convention, claim: Claim) -> Decimal | None:
        """Return the count of a claim's row under a convention, in the claim's unit."""
        key = (convention.name, claim.locator)
        if key not in self._values:
            self._values[key] = self._count(convention, claim.column.task, claim.row.model)
        return self._values[key]

    def _count(self, convention: Convention, task: str, model: str) -> Decimal | None:
        return count_row(convention, self.counts, task, model) if self.counts else None

    def gives(self, convention: Convention, rounding_mode: RoundingMode, claim: Claim) -> bool:
        """Return whether a convention gives a claim's printed figure."""
        value = self.value(convention, claim)
        return value is not None and printed(value, claim.column.decimals, rounding_mode) == claim.text

    def matches(self, claim: Claim) -> tuple[Match, ...]:
        """Return all conventions that give the printed figure, the simplest and rounding first."""
        return tuple(
            Match(convention.name, rounding_mode)
            for convention in self.config.conventions
            if convention.metric == claim.metric
            for rounding_mode in ROUNDING_MODES
            if self.gives(convention, rounding_mode, claim)
        )

    def matches_by_rounding_mode(self, convention: Convention) -> dict[str, int]:
        """Return the number of figures in the whole paper that a convention gives, by rounding mode."""
        claims = self._of_metric(convention)
        return {
            rounding_mode: sum(self.gives(convention, rounding_mode, claim) for claim in claims)
            for rounding_mode in ROUNDING_MODES
        }

    def fits(self) -> list[ConventionFit]:
        """Return the fits of the default conventions, rounded, on all rows; then of the row conventions by table."""
        defaults = [
            RowConvention(convention=convention.name, rows=(f"*/{convention.metric}",), because="the plain count")
            for convention in self.config.conventions
            if convention is self.config.default_convention(convention.metric)
        ]
        found: list[ConventionFit] = []
        settled: set[str] = set()
        tables = list(dict.fromkeys(claim.table_layout.source for claim in self.claims.values()))
        tried: list[tuple[RowConvention, str | None]] = [(convention, None) for convention in defaults]
        tried += [(convention, table) for convention in self.config.row_conventions for table in tables]
        for row_convention, table in tried:
            fit = self._fit(row_convention, table, settled)
            if fit.rows or table is None:
                settled.update(fit.settled)
                found.append(fit)
        return found

    def _fit(self, row_convention: RowConvention, table: str | None, settled: set[str]) -> ConventionFit:
        convention = self.config.convention(row_convention.convention)
        claims = self._of_metric(convention)
        given = {claim.locator for claim in claims if self.gives(convention, row_convention.printed, claim)}
        of_table = [claim for claim in claims if table in (None, claim.table_layout.source)]
        rows = [
            c.locator for c in of_table if any(fnmatchcase(c.locator, pattern) for pattern in row_convention.rows)
        ]
        explained = [row for row in rows if row in given]
        # The default convention was not chosen to fit some rows, so it needs no other rows to support it.
        holds = table is None or len(explained) >= MIN_EXPLAINED_SHARE * len(rows)
        new = tuple(row for row in explained if holds and row not in settled)
        return ConventionFit(
            row_convention, table, tuple(rows), tuple(explained), new, holds, len(given), len(claims)
        )

    def _of_metric(self, convention: Convention) -> list[Claim]:
        return [claim for claim in self.claims.values() if claim.metric == convention.metric]

    def verdicts(self, fits: Sequence[ConventionFit]) -> list[ClaimVerdict]:
        """Return one verdict per static claim, in order, given the `fits` of the row conventions."""
        by_claim = {row: fit.row_convention for fit in fits for row in fit.settled}
        return [self._judge(claim, by_claim.get(claim.locator)) for claim in self.claims.values()]

    def _judge(self, claim: Claim, row_convention: RowConvention | None) -> ClaimVerdict:
        default = self.config.default_convention(claim.metric)
        counted = self.value(default, claim)
        if counted is None:
            return ClaimVerdict(claim, "not run", "not counted; run `hafabench count`")
        matches = self.matches(claim)
        value = None
        if row_convention is not None:
            convention = self.config.convention(row_convention.convention)
            value = self.value(convention, claim)
        if row_convention is None or value is None:
            because = self._contradiction(claim, counted, matches)
            return ClaimVerdict(claim, "contradicted", because, float(counted), origin="counted", matches=matches)
        match = Match(row_convention.convention, row_convention.printed)
        because = f"{format_fixed(value, 4)} {claim.unit} of {match}"
        is_default = convention is default and row_convention.printed == "rounded"
        verdict: Verdict = "reproduced" if is_default else "reproduced under a convention"
        return ClaimVerdict(
            claim, verdict, because, float(value), origin="counted", convention=match, matches=matches
        )

    def _contradiction(self, claim: Claim, counted: Decimal, matches: tuple[Match, ...]) -> str:
        text = f"{format_fixed(counted, 4)} {claim.unit} of {self.config.default_convention(claim.metric).name}"
        if not matches:
            text += "; no convention gives the printed figure"
        else:
            names = "; ".join(map(str, matches[:3])) + ("; ..." if len(matches) > 3 else "")
            text += f"; given only by conventions that do not hold for similar rows ({names})"
        others = [self._stand_in(claim, stand_in) for stand_in in self.config.stand_ins]
        return "; ".join([text, *filter(None, others)])

    def _stand_in(self, claim: Claim, stand_in: StandIn) -> str | None:
        if stand_in.claim != claim.locator:
            return None
        value = self._count(self.config.default_convention(claim.metric), claim.column.task, stand_in.model.name)
        if value is None or printed(value, claim.column.decimals, "rounded") != claim.text:
            return None
        return f"{claim.text} {claim.unit} is the count of {stand_in.says} ({format_fixed(value, 4)})"
