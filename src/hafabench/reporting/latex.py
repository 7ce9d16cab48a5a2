"""Tables as LaTeX: fragments with booktabs rules for a paper of one's own, and one document with all of them.

The fragments need the packages booktabs and graphicx; a table wider than the line is scaled down to it. The document
compiles with pdflatex and Debian's texlive-latex-recommended.
"""

from __future__ import annotations

from collections.abc import Sequence

from hafabench.config.tables import Column
from hafabench.reporting import legend
from hafabench.reporting.tables import Cell, Table

MINUS = "\u2212"
# A table of more columns stands on a page of its own, turned.
UPRIGHT_COLUMNS = 5
# There every letter counts; the footnotes give the words.
_SHORT = {"counted": "cnt.", "embedded": "emb.", "measured": "meas."}
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
    '"': "''",  # the default font encoding has no straight quote
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
    """One table as a floating environment, to be input by a document; the best of each group and column is bold."""
    # A difference stands in a column of its own, so that the numbers before it end in line.
    specification = "l" + "".join("r@{\\,}l" if column.delta else "r" for column in table.columns for _ in range(2))
    marks = _footnote_marks(table)
    upper, rules, lower, at = [], [], [], 2
    for column, word in zip(table.columns, table.words, strict=True):
        span = 4 if column.delta else 2
        upper.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(column.header)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        # Over a number and its difference the heading begins in line, or its own width would part them.
        place = "l" if column.delta else "r"
        words = (_SHORT[word] if _wide(table) else word) + marks[word], "paper" + marks["paper"]
        lower += [rf"\multicolumn{{{span // 2}}}{{{place}}}{{{text}}}" for text in words]
        at += span
    blocks = []
    for block in table.groups:
        lines = []
        for row in block:
            pairs = list(zip(table.columns, row.cells, strict=True))
            fields = [escape(row.label), *(field for pair in pairs for field in _fields(*pair))]
            lines.append("  " + " & ".join(fields) + r" \\")
            if any(cell.interval(column.decimals) for column, cell in pairs):
                lines.append("  " + "".join(_interval_fields(*pair) for pair in pairs) + r" \\")
        blocks.append("\n".join(lines))
    body = "\n  \\midrule\n".join(blocks)
    warning = rf"\textbf{{{escape(table.warning)}}} " if table.warning else ""
    return rf"""% {table.warning or table.scale + " scale"} Made by hafabench; do not edit.
% Needs \usepackage{{booktabs,graphicx}}.
\begin{{table}}[htbp]
  \centering
  \setlength{{\abovecaptionskip}}{{6pt}}
  \setlength{{\belowcaptionskip}}{{6pt}}
  \caption{{{warning}{escape(table.title)}, {table.as_printed}.}}
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


def document(tables: list[Table], *, experiment: str, title: str, scale: str) -> str:
    """One document with all the tables in it, numbered as in the paper."""
    placed = "".join(map(_placed, tables))
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
% A page of tables alone begins at its top.
\makeatletter\setlength{{\@fptop}}{{0pt}}\makeatother
\begin{{document}}
\section*{{\raggedright Tables of experiment {escape(experiment)}: {escape(title)} ({escape(scale)} scale)}}
{placed}\end{{document}}
"""


def _placed(table: Table) -> str:
    text = render(table)
    if table.is_table:
        text = f"\\setcounter{{table}}{{{int(table.number) - 1}}}\n{text}"
    else:
        renamed = rf"\renewcommand{{\tablename}}{{Section}}\renewcommand{{\thetable}}{{{table.number}}}"
        text = f"\\begingroup{renamed}\n{text}\\endgroup\n"
    return f"\\begin{{landscape}}\n{text}\\end{{landscape}}\n" if _wide(table) else text


def _wide(table: Table) -> bool:
    return len(table.columns) > UPRIGHT_COLUMNS


def _fields(column: Column, cell: Cell) -> list[str]:
    """The fields of one cell: this project's number and the paper's, each with its difference where there is room."""
    halves = (cell.ours(column.decimals), cell.best), (cell.cited(column.decimals), cell.paper_best)
    fields = []
    for (text, delta), best in halves:
        mean, sign, spread = text.partition(" ± ")
        mean = rf"\textbf{{{_number(mean)}}}" if best else _number(mean)
        fields.append(mean + (rf"{{\scriptsize\,$\pm$\,{_number(spread)}}}" if sign else ""))
        fields += [_number(delta)] if column.delta else []
    return fields


def _interval_fields(column: Column, cell: Cell) -> str:
    """The fields of one cell in the line under its own, where its difference's interval stands."""
    if not column.delta:
        return "& & "
    return rf"& \multicolumn{{2}}{{r}}{{\scriptsize {_number(cell.interval(column.decimals))}}} & & "


def _footnote_marks(table: Table) -> dict[str, str]:
    """What a legend's sentence explains -> its mark in the table: letters for kinds of columns, signs as they are."""
    kinds = [*dict.fromkeys(table.words), "paper"]
    letters = {kind: rf"\textsuperscript{{{letter}}}" for kind, letter in zip(kinds, "abcd", strict=False)}
    return letters | {sign: escape(sign) for sign in (legend.NOT_RUN, legend.IMPORTED)}


def _footnotes(table: Table, marks: dict[str, str]) -> str:
    footnotes, remarks = [], []
    for note in table.notes:
        subject, _, text = note.partition(": ")
        if text and subject in marks:
            named = subject not in _SHORT or not _wide(table) or text.startswith(subject)
            footnotes.append(f"{marks[subject]}~{'' if named else subject + ': '}{escape(text)}")
        else:
            remarks.append(escape(note))
    if any(cell.best or cell.paper_best for row in table.rows for cell in row.cells):
        footnotes.append("Bold: best of its group, as printed; sizes and costs are no results and never bold.")
    return f"  {_joined(footnotes)}\\par\\smallskip\n  {_joined(remarks)}"


def _joined(sentences: Sequence[str]) -> str:
    return "\n  ".join(sentences)


def _number(text: str) -> str:
    # A hyphen would print too short for a minus.
    return escape(text.replace("-", MINUS))
