"""Markdown tables and escaping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from hafabench.formatting.text import one_line

_ALIGNMENTS = {"l": "left", "r": "right"}
# GitHub also reads formulas between dollar signs. A bracket ends a link only in front of its target.
_SPECIAL = re.compile(r"[\\|*_<`~$]|\](?=[(\[:])|&(?=#?\w+;)")
# What begins a heading, a list, a rule, a task or a definition.
_BLOCK = re.compile(r"^(\d*)([-#+=>\[]|(?<=\d)[.)])")


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
    escape = _escape_pipes if is_markdown else escape_inline
    return tabulate(
        [[escape(text) for text in row] for row in rows],
        headers=[escape(text) for text in header],
        tablefmt="pipe",
        colalign=[_ALIGNMENTS[letter] for letter in align],
        disable_numparse=True,
    )


def escape_markdown(text: str) -> str:
    """Escape a text so that GitHub Markdown shows it as it is, on one line, also at the beginning of a line."""
    return _BLOCK.sub(r"\1\\\2", escape_inline(text))


def escape_inline(text: str) -> str:
    """Escape a text as `escape_markdown` does, but for a place within a line, such as a cell of a table."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))


def markdown_code(text: str) -> str:
    """Return a text as code within a line. In a table, pipes have to be escaped as well, as `markdown_table` does."""
    text = one_line(text)
    if not text:
        return ""
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def markdown_block(lines: Sequence[str]) -> str:
    """Return lines as a block of code, as they are."""
    fence = "`" * max(3, *(_longest_run(line) + 1 for line in lines), 3)
    return "\n".join([fence, *lines, fence])


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _escape_pipes(text: str) -> str:
    return text.replace("|", "\\|")
