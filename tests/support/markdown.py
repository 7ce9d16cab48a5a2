"""Reads the texts of the cells of Markdown tables, without their padding."""

from __future__ import annotations

import re


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of every row of every table, headings included and the rules below them left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if not all(re.fullmatch(":?-+:?", cell) for cell in row)]
