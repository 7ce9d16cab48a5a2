"""All claims of the paper with their verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hafabench.config.experiment import Experiment
from hafabench.config.paper_values import PaperValues
from hafabench.config.verdicts import VERDICTS
from hafabench.reporting.claims.comparability import Comparability
from hafabench.reporting.claims.measured import judge_measured
from hafabench.reporting.claims.paper_claims import paper_claims
from hafabench.reporting.claims.static import ConventionFit, StaticClaims
from hafabench.reporting.claims.verdicts import IMPORTED_TALLY, ClaimVerdict
from hafabench.reporting.outcomes import Outcomes
from hafabench.reporting.table_metrics import TableMetrics
from hafabench.results.counts import Counts


@dataclass(frozen=True)
class Ledger:
    """The verdicts of one experiment on the paper's claims.

    Attributes:
        experiment, title, scale: Name, title and scale of the experiment.
        claims_file: The file with the conventions, tolerances and notes.
        verdicts: One per claim, in the paper's order.
        fits: How well each row convention explains the static claims.
        matches: For each convention, two values: the number of printed figures in the whole paper that it gives, by
            rounding mode, and the number of figures of its metric.
    """

    experiment: str
    title: str
    scale: str
    claims_file: Path
    verdicts: tuple[ClaimVerdict, ...]
    fits: tuple[ConventionFit, ...]
    matches: dict[str, tuple[dict[str, int], int]]

    @cached_property
    def by_locator(self) -> dict[str, ClaimVerdict]:
        """The verdicts by the locators of their claims."""
        return {verdict.claim.locator: verdict for verdict in self.verdicts}

    @property
    def settled(self) -> int:
        """Number of claims that were reproduced or contradicted here, without those settled by imported numbers."""
        return sum(verdict.is_settled and not verdict.is_imported for verdict in self.verdicts)

    @property
    def composition(self) -> str:
        """What the claims are: ``198 printed figures, 3 derived from printed ones, 22 printed differences, and ...``.

        A difference is one that the paper prints beside a figure. A difference without a figure counts as a figure.
        Kinds without a claim are left out.
        """
        claims = [verdict.claim for verdict in self.verdicts]
        differences, derived = sum(c.is_beside_figure for c in claims), sum(c.is_derived for c in claims)
        collapses = sum(c.is_collapse for c in claims)
        figures = len(claims) - differences - derived - collapses
        kinds = {
            "printed figures": figures,
            "derived from printed ones": derived,
            "printed differences": differences,
            f"collapsed training{'' if collapses == 1 else 's'}": collapses,
        }
        *others, last = [f"{count} {kind}" for kind, count in kinds.items() if count] or ["no claims"]
        return f"{', '.join(others)}, and {last}" if others else last

    def totals(self) -> dict[str, int]:
        """Return the number of claims by verdict, in the order of `VERDICTS`, those of imported numbers last."""
        found = Counter(verdict.tally for verdict in self.verdicts)
        order = [*VERDICTS, *(f"{verdict}{IMPORTED_TALLY}" for verdict in VERDICTS)]
        return {tally: found[tally] for tally in order if found[tally]}

    def rows(self, verdicts: Iterable[ClaimVerdict]) -> list[dict[str, Any]]:
        """Return verdicts of this ledger as plain values, for CSV and JSON."""
        about = {"scale": self.scale, "experiment": self.experiment}
        return [verdict.as_row() | about for verdict in verdicts]

    def static_only(self) -> Ledger:
        """Return the ledger of the static claims alone."""
        return replace(self, verdicts=tuple(v for v in self.verdicts if v.claim.kind == "static"))


def settle_claims(
    experiment: Experiment,
    paper: PaperValues,
    counts: Counts | None,
    metrics: Mapping[str, TableMetrics],
    comparability: Comparability,
    outcomes: Outcomes,
) -> Ledger:
    """Judge every claim of the paper.

    Args:
        experiment: The experiment.
        paper: The paper's printed values.
        counts: The parameters and operations of the models; None if they have not been counted.
        metrics: The metrics that fill each table, by the id of its table layout.
        comparability: What makes measured figures incomparable with the paper's. Static claims need no measurement.
        outcomes: The trainings that collapsed, and other outcomes that are no numbers.

    Raises:
        UserError: If the claims file names something that the paper does not print.
    """
    claims = paper_claims(experiment, paper)
    static = StaticClaims(claims, experiment.claims_config, counts)
    fits = static.fits()
    verdicts = {verdict.claim.locator: verdict for verdict in static.verdicts(fits)}
    for claim in claims:
        if claim.kind != "static":
            verdicts[claim.locator] = judge_measured(claim, metrics[claim.table_layout.id], comparability, outcomes)
    figures = Counter(claim.metric for claim in claims if not claim.is_difference)
    conventions = experiment.claims_config.conventions
    return Ledger(
        experiment=experiment.name,
        title=experiment.config.title,
        scale=experiment.config.scale,
        claims_file=experiment.claims_file,
        verdicts=tuple(verdicts[claim.locator] for claim in claims),
        fits=tuple(fits),
        matches={c.name: (static.matches_by_rounding_mode(c), figures[c.metric]) for c in conventions},
    )
