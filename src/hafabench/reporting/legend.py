"""The texts around a table: the warning in front of it and the legend below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hafabench.config.tables import Column
from hafabench.reporting.provenance import commit_text

NOT_RUN = "\u2013"  # en dash
IMPORTED = "†"
FROM_WEIGHTS = "‡"
# The signs of numbers by their mark; other marks have none.
SIGNS: dict[str, str] = {"imported": IMPORTED, "measured from published weights": FROM_WEIGHTS}
COLLAPSED = "\u2014"  # em dash, as in Table 4 of the paper
FAILED = "failed"
STALE = "stale"
NOT_YET = "not run yet"
FEWER_SEEDS = "¶"
DERIVED = "§"
MARKS = (NOT_RUN, COLLAPSED, IMPORTED, FROM_WEIGHTS, FEWER_SEEDS, DERIVED)
"""Every sign of a cell that the legend explains. A sentence of the legend begins with its sign and a colon."""
NO_COMPARISON = "No model has at least two seeds in common with its baseline, so that no comparison is possible."

_MEANING = {
    "counted": "counted here on the full-size models, comparable with the paper",
    "embedded": "trained and evaluated here on the embedded data",
    "custom": "trained and evaluated here with data, image sizes or schedules that are not the paper's",
    "measured": "evaluated or timed here",
}

WARNINGS: dict[str, str] = {"embedded": "EMBEDDED DATA", "custom": "CUSTOM DATA OR SCHEDULE"}


def warning(title: str, scale: str) -> str:
    """Return the warning in front of a table that is not comparable with the paper; empty at full scale."""
    return f"{WARNINGS[scale]} ({title}), not comparable with the paper's columns." if scale in WARNINGS else ""


def notes(
    columns: Sequence[Column],
    kinds: Sequence[str],
    sources: Sequence[Sequence[Any]],
    rows: Sequence[Any],
    marks: set[str],
    *,
    experiment: str,
    scale: str,
) -> list[str]:
    """Return the legend: the meaning of each column and mark, and the origin of the numbers.

    Args:
        columns: The table's columns.
        kinds: The kind of each column, see `hafabench.reporting.tables.Table`.
        sources: For each column, the rows of the frame that fill it.
        rows: The table's rows.
        marks: The marks of the table's cells.
        experiment: Name of the experiment.
        scale: Scale of the experiment.
    """
    cells = [cell for row in rows for cell in row.cells]
    labels = {row.model: row.label for row in rows}
    sentences = []
    for kind in dict.fromkeys(kinds):
        same = (column for column, own in zip(columns, kinds, strict=True) if own == kind)
        sentences.append(f"{kind}: {_MEANING[kind]} ({_headers(same)}).")
    is_blank = any(cell.paper is None and not cell.paper_is_collapsed for cell in cells)
    blank = "; blank if it prints no number" if is_blank else ""
    sentences.append(f"paper: cited from the paper{blank}.")
    if "not run" in marks:
        sentences.append(f"{NOT_RUN}: not run in this experiment.")
    if "collapsed" in marks or any(cell.paper_is_collapsed for cell in cells):
        sentences.append(f"{COLLAPSED}: the training collapsed.")
    if "failed" in marks:
        sentences.append(f"{FAILED}: the last attempt ended with an error; the next run of the workflow repeats it.")
    if "stale" in marks:
        sentences.append(
            f"{STALE}: the record was made under another configuration or from other data; "
            "the next run of the workflow makes it again."
        )
    sentences += outcome_notes(columns, rows)
    if "imported" in marks:
        sentences.append(f"{IMPORTED}: imported: the numbers or their weights come from outside this project.")
    sentences += _from_weights(rows)
    if any(cell.paper_is_derived for cell in cells):
        sentences.append(f"{DERIVED}: not printed in the paper, but derived from a figure and a difference that are.")
    if any(cell.has_fewer_seeds or cell.delta_has_fewer_seeds for cell in cells):
        sentences.append(f"{FEWER_SEEDS}: over fewer seeds than the experiment has ({_fewer_seeds(columns, rows)}).")
    if any(cell.delta is not None or cell.paper_delta is not None for cell in cells):
        against = ", ".join(dict.fromkeys(labels.get(row.baseline, row.baseline) for row in rows if row.baseline))
        sentences.append(f"In round brackets: difference from the baseline ({against}), between unrounded means.")
    if any(cell.delta_low is not None for cell in cells):
        sentences.append("In square brackets with signs: the difference's 95 % confidence interval, paired by seed.")
    if any(cell.spread is not None for cell in cells):
        sentences.append(f"±: standard deviation over {_seed_counts(columns, rows)}.")
    if any(cell.low is not None for cell in cells):
        sentences.append("In square brackets: first and third quartile of the repeats.")
    sentences += _column_notes(columns, sources)
    sentences.append(_provenance(sources, experiment, scale))
    return sentences


def _from_weights(rows: Sequence[Any]) -> list[str]:
    """Return the sentence on cells whose trainings started from published weights, if there are any."""
    weights = {(row.label, text): None for row in rows for cell in row.cells for text in cell.starting_weights}
    if not weights:
        return []
    named = "; ".join(f"{label}: {text}" for label, text in weights)
    return [
        f"{FROM_WEIGHTS}: the training started from published ImageNet weights instead of a classification run of "
        f"this experiment ({named})."
    ]


def outcome_notes(columns: Sequence[Column], rows: Sequence[Any]) -> list[str]:
    """Return a sentence for each reason why there are no numbers: ``PVT-Tiny, seed 3 (mIoU (%)): failed: ...``.

    Runs that have not been started yet are left out.

    Args:
        columns: The table's columns.
        rows: The table's rows.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for column, cell in zip(columns, row.cells, strict=True):
            for outcome in cell.outcomes:
                if outcome.clause == NOT_YET:
                    continue
                subject = row.label if outcome.seed is None else f"{row.label}, seed {outcome.seed}"
                found.setdefault((subject, outcome.clause), []).append(column.header)
    texts: dict[str, list[str]] = {}
    for (subject, clause), headers in found.items():
        texts.setdefault(clause, []).append(f"{subject} ({', '.join(headers)})")
    return [f"{'; '.join(subjects)}: {clause}." for clause, subjects in texts.items()]


def _fewer_seeds(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Name the values and differences that lack seeds, each with the seeds behind it."""
    places = []
    for row in rows:
        for column, cell in zip(columns, row.cells, strict=True):
            if cell.has_fewer_seeds:
                places.append(f"{row.label}, {column.header}: {_listed(cell.seeds)}")
            # A value and a difference over the same seeds are named once.
            if cell.delta_has_fewer_seeds and not (cell.has_fewer_seeds and cell.delta_seeds == cell.seeds):
                places.append(f"difference of {row.label}, {column.header}: {_listed(cell.delta_seeds)}")
    return "; ".join(places)


def _listed(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _seed_counts(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return the number of seeds, ``5 seeds``; cells with fewer seeds are named."""
    counts: dict[int, list[str]] = {}
    for row in rows:
        for column, cell in zip(columns, row.cells, strict=True):
            if cell.n is not None:
                counts.setdefault(cell.n, []).append(f"{row.label}, {column.header}")
    if not counts:
        return "the imported values"
    most = max(counts)
    fewer = [f"{place}: {n}" for n in sorted(counts) if n < most for place in counts[n]]
    return f"{most} seeds" + (f" ({'; '.join(fewer)})" if fewer else "")


def _column_notes(columns: Sequence[Column], sources: Sequence[Sequence[Any]]) -> list[str]:
    """Describe how the columns were counted or measured; columns with the same convention share a sentence."""
    shared: dict[str, list[Column]] = {}
    for column, metrics in zip(columns, sources, strict=True):
        clauses = sorted({metric.convention for metric in metrics if metric.convention})
        clauses += [column.note] if column.note else []
        if clauses:
            shared.setdefault("; ".join(clauses), []).append(column)
    return [f"{_headers(group)}: {text}." for text, group in shared.items()]


def _provenance(sources: Sequence[Sequence[Any]], experiment: str, scale: str) -> str:
    metrics = [metric for column in sources for metric in column]
    parts = [f"Experiment {experiment}, {scale} scale"]
    seeds = sorted({metric.seed for metric in metrics if metric.seed is not None})
    if seeds:
        parts.append(f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})")
    # Counting does not depend on a device.
    devices = sorted({metric.device for metric in metrics if metric.device and metric.verb != "complexity"})
    if devices:
        parts.append(f"device {', '.join(devices)}")
    commits = sorted(
        {
            commit_text(metric.git_commit, metric.git_dirty, metric.experiment_tracked, metric.version) or "unknown"
            for metric in metrics
        }
    )
    if commits:
        parts.append(f"git commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}")
    return "; ".join(parts) + "."


def _headers(columns: Iterable[Column]) -> str:
    return ", ".join(column.header for column in columns)
