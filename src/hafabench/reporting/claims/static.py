"""Static claims (parameters, GFLOPs) settled by counting: which convention gives the printed figure, if any does.

With twenty conventions and three ways to shorten a count, some combination prints nearly any figure. Hence two
questions are kept apart. *Which ways give the printed figure* is answered for every cell and decides nothing. A cell
is *reproduced* by the simplest convention, rounded, or else by a row convention: the claims file names a convention
for a set of rows, with a reason, and the convention has to hold for at least three in four of these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase

from hafabench.config.claims import MIN_EXPLAINED_SHARE, ClaimsConfig, Convention, Printing, RowConvention, StandIn
from hafabench.measure.conventions import PRINTINGS, count_row, printed
from hafabench.reporting.claims.ledger import Claim
from hafabench.reporting.claims.verdicts import Match, Ruling
from hafabench.results.counts import Counts


@dataclass(frozen=True)
class Standing:
    """How well one row convention holds.

    Attributes:
        row_convention: the convention, how it is shortened, and the rows said to be printed so.
        rows: locators of these.
        explained: those of them that it prints.
        settled: those that it settles: no plainer row convention does.
        holds: whether it explains enough of its rows to settle any.
        everywhere: how many cells of the metric it prints in the whole paper, of how many (``anywhere``).
    """

    row_convention: RowConvention
    rows: tuple[str, ...]
    explained: tuple[str, ...]
    settled: tuple[str, ...]
    holds: bool
    everywhere: int
    anywhere: int

    @property
    def fails_on(self) -> tuple[str, ...]:
        """Rows that it is said to hold for and does not print."""
        return tuple(row for row in self.rows if row not in self.explained)


class Forensics:
    """Every convention applied to every static claim.

    Args:
        claims: of the paper; others than static ones are left alone.
        config: the conventions and row conventions, the simplest first.
        counts: the models taken apart; None where that has not been done.
    """

    def __init__(self, claims: Sequence[Claim], config: ClaimsConfig, counts: Counts | None):
        self.claims = {claim.locator: claim for claim in claims if claim.kind == "static"}
        self.config, self.counts = config, counts
        self._values: dict[tuple[str, str], Decimal | None] = {}

    def value(self, convention: Convention, claim: Claim) -> Decimal | None:
        """What a convention counts of a claim's row, in its unit."""
        key = (convention.name, claim.locator)
        if key not in self._values:
            self._values[key] = self._count(convention, claim.column.task, claim.row.model)
        return self._values[key]

    def _count(self, convention: Convention, task: str, model: str) -> Decimal | None:
        return count_row(convention, self.counts, task, model) if self.counts else None

    def prints(self, convention: Convention, printing: Printing, claim: Claim) -> bool:
        """Whether a convention gives a claim's printed figure."""
        value = self.value(convention, claim)
        return value is not None and printed(value, claim.column.decimals, printing) == claim.text

    def matches(self, claim: Claim) -> tuple[Match, ...]:
        """Every way to count that gives the printed figure, plainest first; rounding before other shortenings."""
        return tuple(
            Match(convention.name, printing)
            for convention in self._of(claim.metric)
            for printing in PRINTINGS
            if self.prints(convention, printing, claim)
        )

    def spread(self, convention: Convention) -> dict[Printing, int]:
        """How many cells of its metric a convention prints in the whole paper, by way of shortening."""
        cells = [claim for claim in self.claims.values() if claim.metric == convention.metric]
        return {way: sum(self.prints(convention, way, claim) for claim in cells) for way in PRINTINGS}

    def standings(self) -> list[Standing]:
        """The plainest convention of each metric, rounded, on all rows; then every row convention on its own."""
        plain = [
            RowConvention(convention=convention.name, rows=(f"*/{convention.metric}",), because="the plain count")
            for convention in self.config.conventions
            if convention is self.config.default_convention(convention.metric)
        ]
        found: list[Standing] = []
        taken: set[str] = set()
        for index, row_convention in enumerate([*plain, *self.config.row_conventions]):
            standing = self._standing(row_convention, taken, is_plain=index < len(plain))
            taken.update(standing.settled)
            found.append(standing)
        return found

    def _standing(self, row_convention: RowConvention, taken: set[str], *, is_plain: bool) -> Standing:
        convention = self.config.convention(row_convention.convention)
        cells = [claim for claim in self.claims.values() if claim.metric == convention.metric]
        hit = {claim.locator for claim in cells if self.prints(convention, row_convention.printed, claim)}
        rows = [c.locator for c in cells if any(fnmatchcase(c.locator, pattern) for pattern in row_convention.rows)]
        explained = [row for row in rows if row in hit]
        # The plain count is no explanation that could be picked to fit: it needs no further rows to back it.
        holds = is_plain or len(explained) >= MIN_EXPLAINED_SHARE * len(rows)
        settled = tuple(row for row in explained if holds and row not in taken)
        return Standing(row_convention, tuple(rows), tuple(explained), settled, holds, len(hit), len(cells))

    def _of(self, metric: str) -> list[Convention]:
        return [convention for convention in self.config.conventions if convention.metric == metric]

    def rulings(self) -> list[Ruling]:
        """One ruling per static claim, in order."""
        by_claim = {row: standing.row_convention for standing in self.standings() for row in standing.settled}
        return [self._rule(claim, by_claim.get(claim.locator)) for claim in self.claims.values()]

    def _rule(self, claim: Claim, row_convention: RowConvention | None) -> Ruling:
        plainest = self.config.default_convention(claim.metric)
        counted = self.value(plainest, claim)
        if counted is None:
            return Ruling(claim, "not run", "not counted; `hafabench count` does it")
        matches = self.matches(claim)
        if row_convention is None:
            because = self._contradiction(claim, counted, matches)
            return Ruling(claim, "contradicted", because, float(counted), origin="counted", matches=matches)
        convention = self.config.convention(row_convention.convention)
        value = self.value(convention, claim)
        way = Match(row_convention.convention, row_convention.printed)
        because = f"{value:.4f} {claim.unit} of {convention.name}, {row_convention.printed}"
        plain = convention is plainest and row_convention.printed == "rounded"
        verdict = "reproduced" if plain else "reproduced under a convention"
        return Ruling(claim, verdict, because, float(value), origin="counted", convention=way, matches=matches)

    def _contradiction(self, claim: Claim, counted: Decimal, matches: tuple[Match, ...]) -> str:
        text = f"{counted:.4f} {claim.unit} of {self.config.default_convention(claim.metric).name}"
        if not matches:
            text += "; no convention prints the figure"
        else:
            ways = "; ".join(map(str, matches[:3])) + ("; ..." if len(matches) > 3 else "")
            text += f"; printed only by conventions that do not hold for like rows ({ways})"
        others = [self._stand_in(claim, stand_in) for stand_in in self.config.stand_ins]
        return "; ".join([text, *filter(None, others)])

    def _stand_in(self, claim: Claim, stand_in: StandIn) -> str | None:
        if stand_in.claim != claim.locator:
            return None
        value = self._count(self.config.default_convention(claim.metric), claim.column.task, stand_in.model.name)
        if value is None or printed(value, claim.column.decimals, "rounded") != claim.text:
            return None
        return f"{claim.text} {claim.unit} is what {stand_in.says} counts ({value:.4f})"
