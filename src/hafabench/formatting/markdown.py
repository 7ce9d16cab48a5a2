"""Markdown tables and escaping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tabulate import tabulate

_ALIGNMENTS = {"l": "left", "r": "right"}


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], align: str, *, is_markdown: bool = False
) -> str:
    """Return a GitHub Markdown table whose source is aligned too.

    Args:
        header: The column headings.
        rows: The texts of each row, one per column.
        align: One letter per column, ``l`` (left) or ``r`` (right).
        is_markdown: Whether the texts are Markdown already. Other texts are escaped, so that they show as they are.
    """
    escape = _escape_pipes if is_markdown else escape_markdown
    return tabulate(
        [[escape(text) for text in row] for row in rows],
        headers=[escape(text) for text in header],
        tablefmt="pipe",
        colalign=[_ALIGNMENTS[letter] for letter in align],
        disable_numparse=True,
    )


def escape_markdown(text: str) -> str:
    """Escape the characters of ``text`` that Markdown would interpret."""
    for character in "\\|*_<>`":
        text = text.replace(character, "\\" + character)
    return text


def _escape_pipes(text: str) -> str:
    return text.replace("|", "\\|")
