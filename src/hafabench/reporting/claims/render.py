"""The ledger as text for a terminal, as a page (Markdown), as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hafabench.config.claims import MIN_EXPLAINED_SHARE
from hafabench.config.tables import TableLayout
from hafabench.formatting.markdown import escape_markdown, markdown_table
from hafabench.formatting.numbers import format_fixed, format_unrounded
from hafabench.reporting import legend
from hafabench.reporting.claims.settle import Ledger
from hafabench.reporting.claims.static import Standing
from hafabench.reporting.claims.verdicts import Ruling

COLUMNS = [
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


def text(ledger: Ledger, rulings: Sequence[Ruling]) -> str:
    """Lines for a terminal: one per ruling, then the sum.

    Args:
        ledger: what the rulings are of.
        rulings: those to show.
    """
    widths = [max((len(field(ruling)) for ruling in rulings), default=0) for field in (_locator, _printed, _verdict)]
    lines = [
        f"{_locator(r):{widths[0]}}  {_printed(r):>{widths[1]}}  {_verdict(r):{widths[2]}}  {r.because}"
        for r in rulings
    ]
    settled = sum(ruling.is_settled for ruling in ledger.rulings)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in ledger.tally().items())
    return "\n".join([*lines, f"{settled} of {len(ledger.rulings)} claims settled: {verdicts}"])


def _locator(ruling: Ruling) -> str:
    return ruling.claim.locator


def _printed(ruling: Ruling) -> str:
    return f"{ruling.claim.text} {ruling.claim.unit}"


def _verdict(ruling: Ruling) -> str:
    return ruling.verdict


def markdown(ledger: Ledger, rulings: Sequence[Ruling] | None = None) -> str:
    """The page: verdicts in numbers, every claim with its reason, and how well each counting convention holds.

    Args:
        ledger: what to show.
        rulings: those of its rulings to list; all unless given.
    """
    rulings = ledger.rulings if rulings is None else rulings
    sums = markdown_table(["Verdict", "Claims"], ([v, str(n)] for v, n in ledger.tally().items()), "lr")
    parts = [
        f"# Claims of the paper, by experiment {ledger.experiment}",
        f"{escape_markdown(ledger.title)}, {ledger.scale} scale. {_scale_note(ledger)}",
        sums,
    ]
    for layout in dict.fromkeys(ruling.claim.layout.id for ruling in rulings):
        of_layout = [ruling for ruling in rulings if ruling.claim.layout.id == layout]
        parts += [f"## {_heading(of_layout[0].claim.layout)}", _table(of_layout)]
    parts += [_notes(rulings), _standings(ledger), _spreads(ledger), _legend()]
    return "\n\n".join(filter(None, parts)) + "\n"


def _scale_note(ledger: Ledger) -> str:
    if ledger.scale == "embedded":
        return (
            "Parameters and operations are those of the full-size models and are settled here; numbers on embedded "
            "data settle nothing that the paper says of ImageNet, COCO and ADE20K."
        )
    return "Parameters and operations are counted, accuracies and latencies measured."


def _heading(layout: TableLayout) -> str:
    return f"{'Table' if layout.id.startswith('table') else 'Section'} {layout.number}"


def _table(rulings: Sequence[Ruling]) -> str:
    header = ["Claim", "Paper", "Here", "Verdict", "Because"]
    lines = [[r.claim.locator.split("/", 1)[1], _printed(r), _here(r), r.verdict, r.because] for r in rulings]
    return markdown_table(header, lines, "lrrll")


def _here(ruling: Ruling) -> str:
    if ruling.value is None:
        return legend.NOT_RUN
    # One digit more than the paper prints shows what was rounded off.
    mark = legend.IMPORTED if ruling.origin == "imported" else ""
    decimals = ruling.claim.column.decimals + 1
    return format_fixed(ruling.value, decimals, signed=ruling.claim.is_difference) + mark


def _notes(rulings: Sequence[Ruling]) -> str:
    subjects: dict[str, list[str]] = {}
    for ruling in rulings:
        for note in ruling.claim.notes:
            subjects.setdefault(note, []).append(ruling.claim.locator)
    lines = [f"- {escape_markdown(note)} ({escape_markdown(', '.join(names))})." for note, names in subjects.items()]
    return "\n".join(["## What is known besides", "", *lines]) if lines else ""


def _standings(ledger: Ledger) -> str:
    header = ["Convention", "Shortened", "Rows", "Prints", "Settles", "Fails on"]
    rows = [[s.row_convention.convention, s.row_convention.printed, *_shares(s)] for s in ledger.standings]
    because = [
        "- " + escape_markdown(f"{c.convention}, {c.printed} ({', '.join(c.rows)}): {c.because}.")
        for c in (standing.row_convention for standing in ledger.standings)
    ]
    return "\n\n".join(
        [
            "## How static figures were counted",
            "A convention is said to hold for a set of rows, for a reason that stands below. *Prints*: how many of "
            "these rows it gives. *Settles*: how many of them no plainer one gives. One that prints fewer than "
            f"{MIN_EXPLAINED_SHARE:.0%} of its rows settles none; the plain counts are tried on every row.",
            markdown_table(header, rows, "llrrrl"),
            "\n".join(because),
        ]
    )


def _shares(standing: Standing) -> list[str]:
    fails = standing.fails_on if len(standing.fails_on) <= 4 else (f"{len(standing.fails_on)} rows",)
    return [
        str(len(standing.rows)),
        str(len(standing.explained)),
        str(len(standing.settled)),
        ", ".join(fails) or "none",
    ]


def _spreads(ledger: Ledger) -> str:
    header = ["Convention", "Rounded", "Rounded twice", "Truncated", "Of"]
    rows = [[name, *map(str, spread.values()), str(cells)] for name, (spread, cells) in ledger.spreads.items()]
    return "\n\n".join(
        [
            "### Every convention on every cell",
            "How many printed figures of the whole paper each convention gives, whether or not it is said to hold "
            "there: with so many ways to count, single hits mean nothing.",
            markdown_table(header, rows, "lrrrr"),
        ]
    )


def _legend() -> str:
    return (
        "## Legend\n\n"
        "- reproduced: counted plainly, or measured within the tolerance of the printed figure.\n"
        "- reproduced under a convention: printed by another way to count, which holds for like rows.\n"
        "- contradicted: counted, and no convention that holds for like rows prints it; or measured beyond the "
        "tolerance.\n"
        "- inconclusive: measured, and the runs cannot tell.\n"
        f"- not run: nothing here can settle it. {legend.IMPORTED}: imported, made outside this project.\n"
        "- Tolerances and their reasons, conventions and notes: `configs/claims.yaml`."
    )


def to_csv(ledger: Ledger, rulings: Sequence[Ruling] | None = None) -> str:
    """One line per claim, unrounded; several matches or notes are parted by ``; ``."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(ledger, ledger.rulings if rulings is None else rulings):
        lists = {key: "; ".join(row[key]) for key in ("matches", "notes")}
        writer.writerow({k: format_unrounded(v) if isinstance(v, float) else v for k, v in {**row, **lists}.items()})
    return buffer.getvalue()


def to_json(ledger: Ledger, rulings: Sequence[Ruling] | None = None) -> str:
    """Claims, sums by verdict, and how well each row convention holds."""
    content = {
        "experiment": ledger.experiment,
        "scale": ledger.scale,
        "verdicts": ledger.tally(),
        "claims": list(_rows(ledger, ledger.rulings if rulings is None else rulings)),
        "readings": [
            {
                **standing.row_convention.model_dump(mode="json"),
                **{k: v for k, v in asdict(standing).items() if k != "row_convention"},
            }
            for standing in ledger.standings
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _rows(ledger: Ledger, rulings: Sequence[Ruling]) -> Iterator[dict[str, Any]]:
    for ruling in rulings:
        claim, way = ruling.claim, ruling.convention
        yield {
            "locator": claim.locator,
            "table": claim.layout.source,
            "row": claim.row.row or claim.row.model,
            "metric": claim.metric,
            "kind": claim.kind,
            "unit": claim.unit,
            "printed": claim.text,
            "value": ruling.value,
            "low": ruling.low,
            "high": ruling.high,
            "seeds": ruling.seeds or None,
            "origin": ruling.origin,
            "verdict": ruling.verdict,
            "convention": way.convention if way else None,
            "shortened": way.printed if way else None,
            "tolerance": claim.tolerance,
            "tolerance_reason": claim.reason,
            "because": ruling.because,
            "matches": [str(match) for match in ruling.matches],
            "notes": list(claim.notes),
            "scale": ledger.scale,
            "experiment": ledger.experiment,
        }


FORMATS: dict[str, Callable[[Ledger, Sequence[Ruling]], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": to_csv,
    "json": to_json,
}
