"""Tables as GitHub Markdown."""

from __future__ import annotations

from hafabench.formatting.markdown import escape_markdown, markdown_table
from hafabench.reporting.tables import Cell, Table


def render(table: Table) -> str:
    """One table with its heading, warning and legend."""
    warning = f"**{table.warning}** " if table.warning else ""
    caption = f"{warning}{escape_markdown(table.title)}, {table.as_printed}."
    notes = "\n".join(f"- {escape_markdown(note)}" for note in table.notes)
    return f"## {table.place}\n\n{caption}\n\n{_of_table(table)}\n\n{notes}\n"


def overview(tables: list[Table], *, experiment: str, title: str, scale: str) -> str:
    """All tables, one after another."""
    head = f"# Tables of experiment {experiment}\n\n{escape_markdown(title)}, {scale} scale.\n"
    return "\n".join([head, *map(render, tables)])


def _of_table(table: Table) -> str:
    header, align = ["Model"], "l"
    for column, word in zip(table.columns, table.words, strict=True):
        header += [f"{column.header}, {word}", "paper"]
        # Numbers end in line; where a difference follows some of them, they begin in line.
        align += "ll" if column.delta else "rr"
    lines: list[list[str]] = []
    for block in table.groups:
        if lines:
            lines.append([""] * len(header))  # GitHub's tables have no rules: an empty row parts the groups
        for row in block:
            pairs = zip(table.columns, row.cells, strict=True)
            lines.append([row.label, *(text for column, cell in pairs for text in _pair(cell, column.decimals))])
    return markdown_table(header, lines, align)


def _pair(cell: Cell, decimals: int) -> tuple[str, str]:
    ours = (*cell.ours(decimals), cell.interval(decimals))
    return " ".join(filter(None, ours)), " ".join(filter(None, cell.cited(decimals)))
