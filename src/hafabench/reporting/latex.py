"""Tables as LaTeX: fragments with booktabs rules, and a document that inputs them all.

The fragments need the packages booktabs and graphicx; a table wider than the line is scaled down to it.
"""

from __future__ import annotations

from hafabench.reporting.tables import Table

MINUS = "\u2212"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u2013": "--",
    "±": r"$\pm$",
    "\u00d7": r"$\times$",
    "†": r"$^\dagger$",
    MINUS: "$-$",
}


def escape(text: str) -> str:
    """``text`` so that pdflatex prints it as it is; a character that its fonts lack becomes its code point."""
    return "".join(_SPECIAL.get(character) or _letter(character) for character in text)


def _letter(character: str) -> str:
    if character.isascii() or (character.isalpha() and ord(character) < 0x180):
        return character
    return f"\\texttt{{U+{ord(character):04X}}}"


def render(table: Table) -> str:
    """One table as a floating environment, to be input by a document."""
    # A difference stands in a column of its own, so that the numbers before it end in line.
    widths = [2 if column.delta else 1 for column in table.columns for _ in ("ours", "paper")]
    specification = "l" + "".join("r@{\\,}l" if width == 2 else "r" for width in widths)
    upper, rules, lower, at = [], [], [], 2
    for column, word in zip(table.columns, table.words, strict=True):
        span = 4 if column.delta else 2
        upper.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(column.header)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        lower += [rf"\multicolumn{{{span // 2}}}{{c}}{{{text}}}" for text in (word, "paper")]
        at += span
    blocks = []
    for block in table.groups:
        lines = []
        for row in block:
            fields = [escape(row.label)]
            for column, cell in zip(table.columns, row.cells, strict=True):
                for number, delta in (cell.ours(column.decimals), cell.cited(column.decimals)):
                    fields += [_number(number), _number(delta)] if column.delta else [_number(number)]
            lines.append("  " + " & ".join(fields) + r" \\")
        blocks.append("\n".join(lines))
    body = "\n  \\midrule\n".join(blocks)
    warning = rf"\textbf{{{escape(table.warning)}}} " if table.warning else ""
    notes = " ".join(escape(note) for note in table.notes)
    return rf"""% {table.warning or table.scale + " scale"} Made by hafabench; do not edit.
% Needs \usepackage{{booktabs,graphicx}}.
\begin{{table}}[htbp]
  \centering
  \setlength{{\abovecaptionskip}}{{6pt}}
  \setlength{{\belowcaptionskip}}{{6pt}}
  \caption{{{warning}{escape(table.title)}, laid out as Table {table.number} of the paper.}}
  \label{{tab:{table.experiment}-{table.id}}}
  \small
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
  \begin{{minipage}}{{\linewidth}}\footnotesize {notes}\end{{minipage}}
\end{{table}}
"""


def document(tables: list[Table], *, experiment: str, title: str, scale: str) -> str:
    """A document that inputs the fragments beside it and compiles with pdflatex."""
    inputs = "\n".join(rf"\input{{{table.id}}}" for table in tables)
    return rf"""\documentclass[10pt]{{article}}
\usepackage[a4paper,landscape,margin=15mm]{{geometry}}
\usepackage{{booktabs,graphicx}}
\usepackage{{caption}}
\captionsetup{{font=small,labelfont=bf}}
% Several tables may share a page.
\renewcommand{{\topfraction}}{{0.95}}
\renewcommand{{\bottomfraction}}{{0.95}}
\renewcommand{{\textfraction}}{{0.02}}
\renewcommand{{\floatpagefraction}}{{0.7}}
\begin{{document}}
\section*{{Tables of experiment {escape(experiment)}: {escape(title)} ({escape(scale)} scale)}}
{inputs}
\end{{document}}
"""


def _number(text: str) -> str:
    # A hyphen would print too short for a minus.
    return escape(text.replace("-", MINUS))
