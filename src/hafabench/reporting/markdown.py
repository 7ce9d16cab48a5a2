"""The report's pages as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hafabench.config.claims import MIN_EXPLAINED_SHARE
from hafabench.config.tables import TableLayout
from hafabench.formatting.markdown import escape_inline, escape_markdown, markdown_code, markdown_table
from hafabench.reporting import legend, merger_facts
from hafabench.reporting.claims.ledger import Ledger
from hafabench.reporting.claims.static import ConventionFit
from hafabench.reporting.claims.verdicts import ClaimVerdict
from hafabench.reporting.comparisons import COMPARISON_HEADER, how_to_read
from hafabench.reporting.outcomes import Outcomes
from hafabench.reporting.report import Report
from hafabench.reporting.tables import Table, TableCell
from hafabench.reporting.trained_sizes import ALIGN, HEADER, SIZES_NOTE
from hafabench.results.findings import audit_lines


def files(report: Report) -> dict[Path, str]:
    """Return the Markdown files of a report: each table, all tables, the comparisons and the claims."""
    folder = report.experiment.reports
    return {
        **{folder / "tables" / f"{table.id}.md": render_table(table) for table in report.tables.values()},
        folder / "tables.md": tables_page(report),
        folder / "comparisons.md": comparisons_page(report),
        folder / "claims.md": claims_page(report.ledger, report.ledger.verdicts),
    }


def tables_page(report: Report) -> str:
    """Return all tables on one page."""
    name, missing = report.experiment.name, _without_numbers(report)
    head = f"# Tables of experiment {name}\n\n{_subtitle(report)}\n{missing}{_audit(report)}"
    return "\n".join([head, *map(render_table, report.tables.values()), *_trained_sizes(report), *_mergers(report)])


def _trained_sizes(report: Report) -> list[str]:
    """The section on the sizes of the trained models, if they are smaller than the paper's."""
    if not report.trained_sizes:
        return []
    table = markdown_table(HEADER, [size.fields for size in report.trained_sizes], ALIGN)
    return [f"## Sizes of the trained models\n\n{escape_markdown(report.model_scale)} {SIZES_NOTE}\n\n{table}\n"]


def _mergers(report: Report) -> list[str]:
    """The section on what the mergers of the models do, if it was measured."""
    if not report.merger_rows:
        return []
    table = markdown_table(merger_facts.HEADER, [row.fields for row in report.merger_rows], merger_facts.ALIGN)
    return [f"## What the mergers do\n\n{merger_facts.NOTE}\n\n{table}\n"]


def _audit(report: Report) -> str:
    """The summary of the audit of the report's numbers; empty without an audit."""
    if not report.audit:
        return ""
    lines = [f"- {escape_markdown(line)}" for line in audit_lines(report.audit)]
    return "\n".join(["", _AUDIT, "", *lines, ""])


def without_audit(text: str) -> str:
    """Return a page without the summary of the audit, which may differ from one machine to another."""
    return _AUDIT_SUMMARY.sub("", text)


def _without_numbers(report: Report) -> str:
    """Name the trainings that collapsed and the records that are missing; empty if there are none."""
    parts = []
    named = {"Trainings that collapsed": report.outcomes.recorded, "Missing records": report.outcomes.missing}
    for heading, found in named.items():
        if found:
            grouped = Outcomes.by_clause(found).items()
            lines = [f"- {escape_markdown(f'{clause}: ' + ', '.join(ids))}" for clause, ids in grouped]
            parts.append("\n".join(["", f"**{heading}**", "", *lines, ""]))
    return "".join(parts)


def render_table(table: Table) -> str:
    """Return one table with its heading, warning and legend."""
    warning = f"**{escape_inline(table.warning)}** " if table.warning else ""
    scale = f" {escape_markdown(table.model_scale)}" if table.model_scale else ""
    caption = f"{warning}{escape_markdown(table.title)}, {table.as_printed}.{scale}"
    notes = "\n".join(f"- {escape_markdown(note)}" for note in table.notes)
    return f"## {table.place}\n\n{caption}\n\n{_table_grid(table)}\n\n{notes}\n"


def _table_grid(table: Table) -> str:
    header, align = ["Model"], "l"
    for column, kind in zip(table.columns, table.kinds, strict=True):
        header += [f"{column.header}, {kind}", "paper"]
        # Numbers are aligned right, or left if a difference follows some of them.
        align += "ll" if column.delta else "rr"
    lines: list[list[str]] = []
    for block in table.groups:
        if lines:
            lines.append([""] * len(header))  # an empty row separates the groups
        for row in block:
            pairs = zip(table.columns, row.cells, strict=True)
            lines.append([row.label, *(text for column, cell in pairs for text in _pair(cell, column.decimals))])
    return markdown_table(header, lines, align)


def _pair(cell: TableCell, decimals: int) -> tuple[str, str]:
    ours = (*cell.ours(decimals), cell.interval(decimals))
    return " ".join(filter(None, ours)), " ".join(filter(None, cell.cited(decimals)))


def comparisons_page(report: Report) -> str:
    """Return the page of comparisons: a sentence for each, the numbers, and how to read them."""
    head = f"# Comparisons of experiment {report.experiment.name}\n\n{_subtitle(report)}\n\n"
    if not report.comparisons:
        return f"{head}{legend.NO_COMPARISON}\n"
    subject = legend.WARNINGS.get(report.shown_scale)
    warning = f"**{subject}: these verdicts hold for these data and budgets, not for the paper's.**\n\n"
    warning = warning if subject else ""
    sentences = "\n".join(f"- {escape_markdown(comparison.sentence)}" for comparison in report.comparisons)
    figure = "![Differences per seed with their intervals](figures/comparisons.svg)"
    table = markdown_table(COMPARISON_HEADER, [c.fields for c in report.comparisons], "lllrrrrrrl")
    notes = "\n".join(f"- {escape_markdown(note)}" for note in how_to_read(len(report.comparisons)))
    omitted = ""
    if report.uncompared:
        pairs = escape_markdown("; ".join(report.uncompared))
        omitted = f"\n- Not compared, because there are fewer than two common seeds: {pairs}."
    # The comparisons are over the seeds whose trainings gave numbers.
    collapsed = [outcome for outcome in report.outcomes.recorded if outcome.kind == "collapsed"]
    for clause, ids in Outcomes.by_clause(collapsed).items():
        omitted += f"\n- Not part of the comparisons: {escape_markdown(', '.join(ids) + ', ' + clause)}."
    return f"{head}{warning}{sentences}\n\n{figure}\n\n{table}\n\n{notes}{omitted}\n"


def claims_page(ledger: Ledger, verdicts: Sequence[ClaimVerdict]) -> str:
    """Return the page of claims: totals by verdict, every claim with its reason, and the fit of each convention.

    Args:
        ledger: All claims.
        verdicts: Those to list.
    """
    totals = markdown_table(["Verdict", "Claims"], [[name, str(n)] for name, n in ledger.totals().items()], "lr")
    parts = [
        f"# Claims of the paper: verdicts of experiment {ledger.experiment}",
        f"{escape_markdown(ledger.title)}, {ledger.scale} scale. {_SCOPE}",
        f"The {len(ledger.verdicts)} claims are {ledger.composition}. {ledger.settled} are settled here.",
        totals,
    ]
    for table_id in dict.fromkeys(verdict.claim.table_layout.id for verdict in verdicts):
        of_table = [verdict for verdict in verdicts if verdict.claim.table_layout.id == table_id]
        parts += [f"## {_heading(of_table[0].claim.table_layout)}", _claims_grid(of_table)]
    parts += [_claim_notes(verdicts), _convention_fits(ledger), _convention_matches(ledger), _claims_legend(ledger)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _heading(table_layout: TableLayout) -> str:
    return f"{'Table' if table_layout.id.startswith('table') else 'Section'} {table_layout.number}"


def _claims_grid(verdicts: Sequence[ClaimVerdict]) -> str:
    header = ["Claim", "Paper", "Here", "Verdict", "Reason"]
    lines = [
        [v.claim.locator.split("/", 1)[1], v.claim.text_with_unit, v.value_text, v.verdict, v.because]
        for v in verdicts
    ]
    return markdown_table(header, lines, "lrrll")


def _claims_legend(ledger: Ledger) -> str:
    file = ledger.claims_file.as_posix()
    return f"{_CLAIMS_LEGEND}- Tolerances and their reasons, conventions and notes: {markdown_code(file)}."


def _claim_notes(verdicts: Sequence[ClaimVerdict]) -> str:
    subjects: dict[str, list[str]] = {}
    for verdict in verdicts:
        for note in verdict.claim.notes:
            subjects.setdefault(note, []).append(verdict.claim.locator)
    lines = [f"- {escape_markdown(note)} ({escape_markdown(', '.join(names))})." for note, names in subjects.items()]
    return "\n".join(["## Notes", "", *lines]) if lines else ""


def _convention_fits(ledger: Ledger) -> str:
    header = ["Convention", "Rounding", "Table", "Rows", "Gives", "Settles", "Fails on"]
    rows = [
        [fit.row_convention.convention, fit.row_convention.printed, fit.table or "all", *_shares(fit)]
        for fit in ledger.fits
    ]
    conventions = [fit.row_convention for fit in ledger.fits]
    because = dict.fromkeys(
        "- " + escape_markdown(f"{found.convention}, {found.printed} ({', '.join(found.rows)}): {found.because}.")
        for found in conventions
    )
    return "\n\n".join(
        [
            "## How static figures were counted",
            "Each convention is assigned to a set of rows, for the reason given below the table. *Gives* is the "
            "number of these rows whose printed figure the convention gives, and *Settles* the number of those that "
            f"no simpler convention gives. Every table is considered separately. A convention that gives fewer than "
            f"{MIN_EXPLAINED_SHARE:.0%} of its rows of a table settles none of them. The plain counts are applied to "
            "every row.",
            markdown_table(header, rows, "lllrrrl"),
            "\n".join(because),
        ]
    )


def _shares(fit: ConventionFit) -> list[str]:
    fails = fit.fails_on if len(fit.fails_on) <= 4 else (f"{len(fit.fails_on)} rows",)
    return [str(len(fit.rows)), str(len(fit.explained)), str(len(fit.settled)), ", ".join(fails) or "none"]


def _convention_matches(ledger: Ledger) -> str:
    header = ["Convention", "Rounded", "Rounded twice", "Truncated", "Of"]
    rows = [[name, *map(str, matches.values()), str(total)] for name, (matches, total) in ledger.matches.items()]
    return "\n\n".join(
        [
            "### Every convention on every figure",
            "The number of printed figures in the whole paper that each convention gives, whether or not it is "
            "assigned to their rows. There are so many ways to count that a single match is no evidence.",
            markdown_table(header, rows, "lrrrr"),
        ]
    )


_AUDIT = "**Audit**"
_AUDIT_SUMMARY = re.compile(r"\n\*\*Audit\*\*\n\n(- .*\n)+")
_SCOPE = (
    "Parameters and operations are those of the full-size models. A measured figure is compared with the paper's "
    "only if data set, input size, schedule and recipe are the paper's."
)
_CLAIMS_LEGEND = (
    "## Legend\n\n"
    "- reproduced: given by the plain count, or measured within the tolerance of the printed figure.\n"
    "- reproduced under a convention: given by another way to count, which holds for similar rows.\n"
    "- contradicted: counted, and no convention that holds for similar rows gives the figure; or measured beyond the "
    "tolerance.\n"
    "- inconclusive: measured, but the interval of the figure allows no verdict; or trainings collapsed.\n"
    "- not comparable: measured with another data set, input size, schedule, recipe or device than the paper's.\n"
    f"- not run: not counted or measured here. {legend.IMPORTED}: imported, made outside this project. Verdicts on "
    "imported numbers are counted separately.\n"
    f"- {legend.FROM_WEIGHTS}: trained from published ImageNet weights.\n"
    f"- {legend.DERIVED}: not printed in the paper, but derived from a figure and a difference that are.\n"
)


def _subtitle(report: Report) -> str:
    config = report.experiment.config
    warnings = "".join(f"\n\n**{escape_inline(sentence)}.**" for sentence in report.different_data)
    return f"{escape_markdown(config.title)}, {config.scale} scale.{warnings}"
