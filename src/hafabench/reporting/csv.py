"""The report's tables, comparisons and claims as CSV, with unrounded numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hafabench.formatting.numbers import format_unrounded
from hafabench.reporting.claims.ledger import Ledger
from hafabench.reporting.claims.verdicts import ClaimVerdict
from hafabench.reporting.report import Report
from hafabench.reporting.tables import Table

TABLE_COLUMNS = [
    "table",
    "row",
    "label",
    "group",
    "column",
    "ours",
    "spread",
    "seeds",
    "delta",
    "mark",
    "paper",
    "paper_delta",
    "scale",
    "experiment",
    "low",
    "high",
    "paper_mark",
    "delta_low",
    "delta_high",
]
COMPARISON_COLUMNS = [
    "table",
    "task",
    "metric",
    "model",
    "baseline",
    "seeds",
    "n",
    "baseline_mean",
    "baseline_sd",
    "candidate_mean",
    "candidate_sd",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "family",
    "detectable",
    "verdict",
    "differences",
    "scale",
    "experiment",
]
CLAIM_COLUMNS = [
    "locator",
    "table",
    "row",
    "metric",
    "kind",
    "unit",
    "printed",
    "value",
    "low",
    "high",
    "seeds",
    "origin",
    "verdict",
    "convention",
    "shortened",
    "tolerance",
    "tolerance_reason",
    "because",
    "matches",
    "notes",
    "scale",
    "experiment",
]


def files(report: Report) -> dict[Path, str]:
    """The CSV files of a report: each table, the comparisons and the claims."""
    folder = report.experiment.reports
    return {
        **{folder / "tables" / f"{table.id}.csv": render_table(table) for table in report.tables.values()},
        folder / "comparisons.csv": render_comparisons(report),
        folder / "claims.csv": render_claims(report.ledger, report.ledger.verdicts),
    }


def render_table(table: Table) -> str:
    """One line per cell, with its mark and the paper's value; ``seeds`` is the number of seeds behind ``ours``."""
    return _render(
        TABLE_COLUMNS,
        (
            {
                "table": table.number,
                "row": row.key,
                "label": row.label,
                "group": row.group,
                "column": column.key,
                "ours": cell.value,
                "spread": cell.spread,
                "seeds": cell.n,
                "delta": cell.delta,
                "mark": cell.mark,
                "paper": cell.paper,
                "paper_delta": cell.paper_delta,
                "scale": table.scale,
                "experiment": table.experiment,
                "low": cell.low,
                "high": cell.high,
                "paper_mark": cell.paper_mark,
                "delta_low": cell.delta_low,
                "delta_high": cell.delta_high,
            }
            for row in table.rows
            for column, cell in zip(table.columns, row.cells, strict=True)
        ),
    )


def render_comparisons(report: Report) -> str:
    """One line per comparison; ``seeds`` and ``differences`` are lists separated by spaces."""
    experiment = report.experiment
    return _render(
        COMPARISON_COLUMNS,
        (
            {
                "table": c.table,
                "task": c.task,
                "metric": c.metric,
                "model": c.model,
                "baseline": c.baseline,
                "seeds": " ".join(map(str, c.paired.seeds)),
                "n": c.paired.n,
                "baseline_mean": c.reference.mean,
                "baseline_sd": c.reference.sd,
                "candidate_mean": c.candidate.mean,
                "candidate_sd": c.candidate.sd,
                "difference": c.paired.difference,
                "low": c.paired.low,
                "high": c.paired.high,
                "p": c.paired.p,
                "p_holm": c.p_holm,
                "family": c.family,
                "detectable": c.paired.detectable,
                "verdict": c.verdict,
                "differences": " ".join(map(format_unrounded, c.paired.differences)),
                "scale": experiment.config.scale,
                "experiment": experiment.name,
            }
            for c in report.comparisons
        ),
    )


def render_claims(ledger: Ledger, verdicts: Sequence[ClaimVerdict]) -> str:
    """One line per claim; several matches or notes are separated by ``; ``."""
    return _render(
        CLAIM_COLUMNS,
        (
            {**row, "matches": "; ".join(row["matches"]), "notes": "; ".join(row["notes"])}
            for row in ledger.rows(verdicts)
        ),
    )


def _render(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _text(value: Any) -> Any:
    return format_unrounded(value) if isinstance(value, float) else value
