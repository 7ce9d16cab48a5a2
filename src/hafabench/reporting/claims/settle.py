"""All claims of the paper settled as far as an experiment can."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.reporting.claims.ledger import paper_claims
from hafabench.reporting.claims.measured import Measured
from hafabench.reporting.claims.static import Forensics, Standing
from hafabench.reporting.claims.verdicts import VERDICTS, Ruling
from hafabench.reporting.frame import collect, read_frame
from hafabench.results.counts import Counts


@dataclass(frozen=True)
class Ledger:
    """The outcome of an experiment.

    Attributes:
        experiment, title, scale: of the experiment.
        rulings: one per claim, in the paper's order.
        standings: how well each row convention of the static claims holds.
        spreads: per convention how many cells it prints in the whole paper, by way of shortening; and of how many.
    """

    experiment: str
    title: str
    scale: str
    rulings: tuple[Ruling, ...]
    standings: tuple[Standing, ...]
    spreads: dict[str, tuple[dict[str, int], int]]

    def tally(self) -> dict[str, int]:
        """Number of claims by verdict, in the order of `VERDICTS`."""
        found = Counter(ruling.verdict for ruling in self.rulings)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def settle(experiment: Experiment, counts: Counts | None, frame: pd.DataFrame | None = None) -> Ledger:
    """Settle every claim of the paper.

    Args:
        experiment: full or embedded; static claims are settled by either.
        counts: its models taken apart; None where that has not been done.
        frame: its measurements; None settles static claims alone and leaves the others out.

    Raises:
        UserError: for paper values or a claims file that cannot be read.
    """
    claims = paper_claims(experiment)
    forensics = Forensics(claims, experiment.claims_config, counts)
    static = {ruling.claim.locator: ruling for ruling in forensics.rulings()}
    measured = Measured(experiment, frame) if frame is not None else None
    rulings = [
        static[claim.locator] if claim.kind == "static" else measured.rule(claim)
        for claim in claims
        if claim.kind == "static" or measured is not None
    ]
    cells = Counter(claim.metric for claim in claims if not claim.is_difference)
    return Ledger(
        experiment=experiment.name,
        title=experiment.config.title,
        scale=experiment.config.scale,
        rulings=tuple(rulings),
        standings=tuple(forensics.standings()),
        spreads={c.name: (forensics.spread(c), cells[c.metric]) for c in experiment.claims_config.conventions},
    )


def frame_of(experiment: Experiment) -> pd.DataFrame:
    """The experiment's collected frame; one without rows where nothing was collected yet."""
    path = experiment.results / "frame.parquet"
    return read_frame(path) if path.is_file() else collect([])
