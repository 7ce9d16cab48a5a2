"""Tables as GitHub Markdown, aligned so that the raw text reads as a table too."""

from __future__ import annotations

from hafabench.reporting.tables import Cell, Table


def render(table: Table) -> str:
    """One table with its heading, warning and legend."""
    warning = f"**{table.warning}** " if table.warning else ""
    caption = f"{warning}{escape(table.title)}, {table.as_printed}."
    notes = "\n".join(f"- {escape(note)}" for note in table.notes)
    return f"## {table.place}\n\n{caption}\n\n{_of_table(table)}\n\n{notes}\n"


def overview(tables: list[Table], *, experiment: str, title: str, scale: str) -> str:
    """All tables, one after another."""
    head = f"# Tables of experiment {experiment}\n\n{escape(title)}, {scale} scale.\n"
    return "\n".join([head, *map(render, tables)])


def grid(lines: list[list[str]], left: list[bool]) -> str:
    """An aligned table of plain texts.

    Args:
        lines: the heading's fields, then those of every line.
        left: for each column whether its texts begin in line; else they end in line.
    """
    lines = [[escape(text) for text in line] for line in lines]
    # Three characters at least, or the rule under the heading is none.
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        (":" + "-" * (w - 1)) if at_left else ("-" * (w - 1) + ":") for w, at_left in zip(widths, left, strict=True)
    ]
    body = [[_pad(t, w, at) for t, w, at in zip(line, widths, left, strict=True)] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [body[0], rule, *body[1:]])


def escape(text: str) -> str:
    """``text`` so that Markdown shows it as it is."""
    for character in "\\|*_<>`":
        text = text.replace(character, "\\" + character)
    return text


def _of_table(table: Table) -> str:
    header, left = ["Model"], [True]
    for column, word in zip(table.columns, table.words, strict=True):
        header += [f"{column.header}, {word}", "paper"]
        # Numbers end in line; where a difference follows some of them, they begin in line.
        left += [column.delta, column.delta]
    lines: list[list[str]] = []
    for block in table.groups:
        if lines:
            lines.append([""] * len(header))  # GitHub's tables have no rules: an empty row parts the groups
        for row in block:
            pairs = zip(table.columns, row.cells, strict=True)
            lines.append([row.label, *(text for column, cell in pairs for text in _pair(cell, column.decimals))])
    return grid([header, *lines], left)


def _pair(cell: Cell, decimals: int) -> tuple[str, str]:
    ours = (*cell.ours(decimals), cell.interval(decimals))
    return " ".join(filter(None, ours)), " ".join(filter(None, cell.cited(decimals)))


def _pad(text: str, width: int, at_left: bool) -> str:
    return text.ljust(width) if at_left else text.rjust(width)
