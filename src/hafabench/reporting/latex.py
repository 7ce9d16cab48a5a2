"""The report's tables as LaTeX: fragments to include in a paper, and one document with all of them.

The fragments need the packages booktabs and graphicx. A table that is wider than the line is scaled down. The
document compiles with pdflatex and Debian's texlive-latex-recommended.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hafabench.config.tables import Column
from hafabench.formatting.latex import MINUS, escape_latex, escape_latex_row
from hafabench.formatting.text import one_line
from hafabench.reporting import legend
from hafabench.reporting.report import Report
from hafabench.reporting.tables import Table, TableCell

# A table with more columns is placed in landscape on a separate page, with abbreviated headings.
UPRIGHT_COLUMNS = 5
_SHORT = {"counted": "cnt.", "embedded": "emb.", "custom": "cust.", "measured": "meas."}


def files(report: Report) -> dict[Path, str]:
    """Return the LaTeX files of a report: each table, and a document with all of them."""
    folder = report.experiment.reports
    return {
        **{folder / "tables" / f"{table.id}.tex": render_table(table) for table in report.tables.values()},
        folder / "paper.tex": document(report),
    }


def render_table(table: Table) -> str:
    """Return one table as a floating environment; the best value of each group and column is bold."""
    # Differences have their own columns, so that the numbers before them can be aligned right.
    specification = "l" + "".join("r@{\\,}l" if column.delta else "r" for column in table.columns for _ in range(2))
    marks = _footnote_marks(table)
    upper, rules, lower, at = [], [], [], 2
    for column, kind in zip(table.columns, table.kinds, strict=True):
        span = 4 if column.delta else 2
        upper.append(rf"\multicolumn{{{span}}}{{c}}{{{escape_latex(column.header)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        # A heading over a number and its difference is aligned left, because its width would otherwise separate them.
        place = "l" if column.delta else "r"
        halves = (_SHORT[kind] if _wide(table) else kind) + marks[kind], "paper" + marks["paper"]
        lower += [rf"\multicolumn{{{span // 2}}}{{{place}}}{{{text}}}" for text in halves]
        at += span
    blocks = []
    for block in table.groups:
        lines = []
        for row in block:
            pairs = list(zip(table.columns, row.cells, strict=True))
            fields = [escape_latex_row(row.label), *(field for pair in pairs for field in _fields(*pair))]
            lines.append("  " + " & ".join(fields) + r" \\")
            if any(cell.interval(column.decimals) for column, cell in pairs):
                lines.append("  " + "".join(_interval_fields(*pair) for pair in pairs) + r" \\")
        blocks.append("\n".join(lines))
    body = "\n  \\midrule\n".join(blocks)
    warning = rf"\textbf{{{escape_latex(table.warning)}}} " if table.warning else ""
    scale = f" {escape_latex(table.model_scale)}" if table.model_scale else ""
    return rf"""% {one_line(table.warning) or table.scale + " scale"} Made by hafabench; do not edit.
% Needs \usepackage{{booktabs,graphicx}}.
\begin{{table}}[htbp]
  \centering
  \setlength{{\abovecaptionskip}}{{6pt}}
  \setlength{{\belowcaptionskip}}{{6pt}}
  \caption{{{warning}{escape_latex(table.title)}, {table.as_printed}.{scale}}}
  \label{{tab:{table.experiment}-{table.id}}}
  \small\setlength{{\tabcolsep}}{{{3.5 if _wide(table) else 6}pt}}
  \resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
  \begin{{tabular}}{{{specification}}}
  \toprule
  & {" & ".join(upper)} \\
  {" ".join(rules)}
  Model & {" & ".join(lower)} \\
  \midrule
{body}
  \bottomrule
  \end{{tabular}}}}
  \par\smallskip
  \begin{{minipage}}{{\linewidth}}\footnotesize\raggedright
{_footnotes(table, marks)}
  \end{{minipage}}
\end{{table}}
"""


def document(report: Report) -> str:
    """Return one document with all tables, numbered as in the paper."""
    config = report.experiment.config
    experiment, title, scale = map(escape_latex, (config.experiment, config.title, config.scale))
    placed = "".join(map(_placed, report.tables.values()))
    return rf"""\documentclass[10pt]{{article}}
\usepackage[a4paper,margin=18mm]{{geometry}}
\usepackage{{booktabs,graphicx,pdflscape}}
\usepackage{{caption}}
\captionsetup{{font=small,labelfont=bf}}
% Several tables may share a page.
\renewcommand{{\topfraction}}{{0.95}}
\renewcommand{{\bottomfraction}}{{0.95}}
\renewcommand{{\textfraction}}{{0.02}}
\renewcommand{{\floatpagefraction}}{{0.7}}
% A page that contains only tables is filled from the top.
\makeatletter\setlength{{\@fptop}}{{0pt}}\makeatother
\begin{{document}}
\section*{{\raggedright Tables of experiment {experiment}: {title} ({scale} scale)}}
{placed}\end{{document}}
"""


def _placed(table: Table) -> str:
    text = render_table(table)
    if table.is_table:
        text = f"\\setcounter{{table}}{{{int(table.number) - 1}}}\n{text}"
    else:
        renamed = rf"\renewcommand{{\tablename}}{{Section}}\renewcommand{{\thetable}}{{{table.number}}}"
        text = f"\\begingroup{renamed}\n{text}\\endgroup\n"
    return f"\\begin{{landscape}}\n{text}\\end{{landscape}}\n" if _wide(table) else text


def _wide(table: Table) -> bool:
    return len(table.columns) > UPRIGHT_COLUMNS


def _fields(column: Column, cell: TableCell) -> list[str]:
    """Return the fields of one cell: this project's number and the paper's, with differences if there are any."""
    halves = (cell.ours(column.decimals), cell.best), (cell.cited(column.decimals), cell.paper_best)
    fields = []
    for (text, delta), best in halves:
        mean, sign, spread = text.partition(" ± ")
        mean = rf"\textbf{{{_number(mean)}}}" if best else _number(mean)
        fields.append(mean + (rf"{{\scriptsize\,$\pm$\,{_number(spread)}}}" if sign else ""))
        fields += [_number(delta)] if column.delta else []
    return fields


def _interval_fields(column: Column, cell: TableCell) -> str:
    """Return the fields of one cell in the line below, which contains the intervals of the differences."""
    if not column.delta:
        return "& & "
    return rf"& \multicolumn{{2}}{{r}}{{\scriptsize {_number(cell.interval(column.decimals))}}} & & "


def _footnote_marks(table: Table) -> dict[str, str]:
    """Return the footnote marks by the subject of their sentence in the legend: letters for columns, or signs."""
    kinds = [*dict.fromkeys(table.kinds), "paper"]
    letters = {kind: rf"\textsuperscript{{{letter}}}" for kind, letter in zip(kinds, "abcd", strict=False)}
    return letters | {sign: escape_latex(sign) for sign in legend.MARKS}


def _footnotes(table: Table, marks: dict[str, str]) -> str:
    footnotes, remarks = [], []
    for note in table.notes:
        subject, _, text = note.partition(": ")
        if text and subject in marks:
            named = subject not in _SHORT or not _wide(table) or text.startswith(subject)
            footnotes.append(f"{marks[subject]}~{'' if named else subject + ': '}{escape_latex(text)}")
        else:
            remarks.append(escape_latex(note))
    if any(cell.best or cell.paper_best for row in table.rows for cell in row.cells):
        footnotes.append("Bold: best of its group, as printed. Sizes and costs are never bold.")
    return f"  {_joined(footnotes)}\\par\\smallskip\n  {_joined(remarks)}"


def _joined(sentences: Sequence[str]) -> str:
    return "\n  ".join(sentences)


def _number(text: str) -> str:
    # A hyphen is too short for a minus sign.
    return escape_latex(text.replace("-", MINUS))
