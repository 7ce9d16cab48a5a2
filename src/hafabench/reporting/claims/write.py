"""Writing the ledger of an experiment beside its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.files import write_text
from hafabench.reporting.claims.render import markdown, to_csv
from hafabench.reporting.claims.settle import settle
from hafabench.results.counts import read_current
from hafabench.runs.paths import counts_record
from hafabench.runs.static_models import counts_fingerprint


def write_claims(experiment: Experiment, frame: pd.DataFrame) -> list[Path]:
    """Write ``claims.md`` and ``claims.csv`` into the experiment's reports folder.

    Args:
        experiment: with its record of counts, if that is there; without it static claims are not run.
        frame: of `hafabench.reporting.frame`.

    Raises:
        UserError: for a record of counts that cannot be read or is another configuration's, or a bad claims file.
    """
    counts = read_current(counts_record(experiment), counts_fingerprint(experiment))
    ledger = settle(experiment, counts, frame)
    page = experiment.reports / "claims.md"
    write_text(page, markdown(ledger))
    write_text(page.with_suffix(".csv"), to_csv(ledger))
    return [page, page.with_suffix(".csv")]
