"""The report's tables, comparisons and claims as CSV, with unrounded numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hafabench.formatting.csv import render_csv
from hafabench.formatting.numbers import format_unrounded
from hafabench.reporting.claims.ledger import Ledger
from hafabench.reporting.claims.verdicts import CLAIM_COLUMNS, ClaimVerdict
from hafabench.reporting.comparisons import Comparison
from hafabench.reporting.report import Report
from hafabench.reporting.tables import Table

_TABLE_COLUMNS = (
    *("table", "row", "label", "group", "column", "ours", "spread", "seeds", "delta", "mark", "paper", "paper_delta"),
    *("scale", "experiment", "low", "high", "paper_mark", "delta_low", "delta_high"),
    "starting_weights",
    "delta_seeds",
)
_COMPARISON_COLUMNS = (
    *("table", "task", "metric", "model", "baseline", "seeds", "n", "baseline_mean", "baseline_sd"),
    *("candidate_mean", "candidate_sd", "difference", "low", "high", "p", "p_holm", "family", "detectable"),
    *("verdict", "differences", "starting_weights", "scale", "experiment"),
)


def files(report: Report) -> dict[Path, str]:
    """Return the CSV files of a report: each table, the comparisons and the claims."""
    folder = report.experiment.reports
    return {
        **{folder / "tables" / f"{table.id}.csv": render_table(table) for table in report.tables.values()},
        folder / "comparisons.csv": render_comparisons(report),
        folder / "claims.csv": render_claims(report.ledger, report.ledger.verdicts),
    }


def render_table(table: Table) -> str:
    """Return one line per cell, with its mark and the paper's value; ``seeds`` is the number of seeds of ``ours``.

    ``delta_seeds`` is the number of seeds that the row shares with its baseline.
    """
    rows = []
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            place = (table.number, row.key, row.label, row.group, column.key)
            ours = (cell.value, cell.spread, cell.n, cell.delta, cell.mark)
            about = (cell.paper, cell.paper_delta, table.scale, table.experiment)
            more = (cell.low, cell.high, cell.paper_mark, cell.delta_low, cell.delta_high)
            rows.append((*place, *ours, *about, *more, list(cell.starting_weights), len(cell.delta_seeds) or None))
    return render_csv(_TABLE_COLUMNS, rows)


def render_comparisons(report: Report) -> str:
    """Return one line per comparison; ``seeds`` and ``differences`` are lists separated by spaces."""
    about = (report.experiment.config.scale, report.experiment.name)
    return render_csv(_COMPARISON_COLUMNS, [(*_comparison(found), *about) for found in report.comparisons])


def _comparison(found: Comparison) -> tuple[Any, ...]:
    paired, reference, candidate = found.paired, found.reference, found.candidate
    return (
        *(found.table, found.task, found.metric, found.model, found.baseline),
        *(" ".join(map(str, paired.seeds)), paired.n, reference.mean, reference.sd, candidate.mean, candidate.sd),
        *(paired.difference, paired.low, paired.high, paired.p, found.p_holm, found.family, paired.detectable),
        *(found.verdict, " ".join(map(format_unrounded, paired.differences)), list(found.starting_weights)),
    )


def render_claims(ledger: Ledger, verdicts: Sequence[ClaimVerdict]) -> str:
    """Return one line per claim; several matches or notes are separated by ``; ``."""
    columns = (*CLAIM_COLUMNS, "scale", "experiment")
    return render_csv(columns, [row.values() for row in ledger.rows(verdicts)])
