"""The paper's printed values (`configs/paper_values.csv`). They are cited and never used in a computation."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from hafabench.config.base import shown
from hafabench.config.text_file import parse_number, read_text
from hafabench.errors import Problem, UserError

_MISSING = "no such file; expected the paper's values as CSV"
COLUMNS = ["table", "row", "label", "group", "baseline", "metric", "value", "printed_delta"]
ORIGIN = "origin"
"""An optional column: ``derived`` for a value that the paper does not print, but that follows from printed ones."""


@dataclass(frozen=True)
class PaperValue:
    """One printed cell.

    Attributes:
        table: ``table1`` ... ``table6``, or another part of the paper (``latency``, ``text4.4``).
        row: Name of the row.
        metric: Name of the metric.
        label: Label of the row.
        group: Group of the row.
        baseline: Baseline of the row, if it has one.
        value: The printed value; None if the cell is empty in the paper.
        delta: The difference that the paper prints in brackets, if there is one.
        is_derived: Whether the paper does not print the value itself, but others from which it follows.
        is_collapsed: Whether the paper prints an em dash because the training collapsed.
    """

    table: str
    row: str
    metric: str
    label: str
    group: str
    baseline: str | None
    value: float | None
    delta: float | None
    is_derived: bool = False
    is_collapsed: bool = False


_LARGEST = 1e9

PaperValues = dict[tuple[str, str, str], PaperValue]


def _number(text: str) -> float:
    number = parse_number(text)
    if not abs(number) <= _LARGEST:
        raise ValueError(f"expected a number of at most {_LARGEST:g}, found {shown(text)}")
    return number


def load_paper_values(path: Path) -> PaperValues:
    """Read the paper's values by (table, row, metric).

    Raises:
        UserError: With every problem: a missing file, other columns, a value that is not a number, a repeated cell.
    """
    try:
        with io.StringIO(read_text(path, missing=_MISSING), newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            header, lines = reader.fieldnames, [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise UserError(Problem(str(path), "", f"cannot be read as CSV: {error}")) from None
    if header not in (COLUMNS, [*COLUMNS, ORIGIN]):
        message = f"expected the columns {','.join(COLUMNS)}; found {shown(','.join(header or []) or 'none')}"
        raise UserError(Problem(str(path), "", message, 1))
    values: PaperValues = {}
    problems: list[Problem | str] = []
    for number, line in lines:
        if None in line or None in line.values():
            problems.append(Problem(str(path), "", f"expected {len(header)} fields", number))
            continue
        numbers = {}
        for column in ("value", "printed_delta"):
            try:
                numbers[column] = _number(line[column]) if line[column] else None
            except ValueError as error:
                problems.append(Problem(str(path), column, str(error), number))
        if (origin := line.get(ORIGIN, "")) not in ("", "derived", "collapsed"):
            message = f"expected 'derived', 'collapsed' or nothing, found {shown(origin)}"
            problems.append(Problem(str(path), ORIGIN, message, number))
        if origin == "collapsed" and any(found is not None for found in numbers.values()):
            problems.append(Problem(str(path), ORIGIN, "a training that collapsed has no number", number))
        if len(numbers) < 2:
            continue
        table = f"table{line['table']}" if line["table"].isdecimal() else line["table"]
        key = (table, line["row"], line["metric"])
        if key in values:
            problems.append(Problem(str(path), "/".join(key), "cell given twice", number))
        values[key] = PaperValue(
            table=table,
            row=line["row"],
            metric=line["metric"],
            label=line["label"],
            group=line["group"],
            baseline=line["baseline"] or None,
            value=numbers["value"],
            delta=numbers["printed_delta"],
            is_derived=origin == "derived",
            is_collapsed=origin == "collapsed",
        )
    if problems:
        raise UserError(problems)
    return values
