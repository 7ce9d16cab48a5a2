"""CSV in which no text is a formula.

Spreadsheets evaluate a cell that begins with ``=``, ``+``, ``-`` or ``@``, or with a tab or carriage return. Such
texts get an apostrophe in front, as https://owasp.org/www-community/attacks/CSV_Injection recommends.
Numbers, and lists of numbers that are separated by spaces, are left as they are. Some readers take a carriage return
for the end of a line even in quotes, so each text is written on one line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hafabench.formatting.numbers import format_unrounded
from hafabench.formatting.text import one_line

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(f"{_NUMBER}(?: {_NUMBER})*")
# Some spreadsheets also take the full-width forms for operators.
_FORMULA = re.compile("'*[\\s\0]*[-=+@\uff1d\uff0b\uff0d\uff20]|'*[\t\r]")


def csv_text(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula. `text_of_csv` is the inverse."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBERS.fullmatch(text) else text


def text_of_csv(text: str) -> str:
    """Return the text that `csv_text` has changed or left as it was."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def render_csv(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a CSV file. Floats are unrounded, and the items of lists are separated by ``; ``.

    Args:
        columns: The headings.
        rows: The cells of each row.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(value)
    if isinstance(value, str):
        return csv_text(one_line(value))
    return format_unrounded(value) if isinstance(value, float) else value
