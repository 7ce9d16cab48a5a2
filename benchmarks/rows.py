"""A row of the benchmark table: a performance goal and its measured value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.formatting.markdown import markdown_table
from hafabench.stats.intervals import Interval

BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


@dataclass(frozen=True)
class Row:
    """One measured value.

    Attributes:
        benchmark: The benchmark that measured the value.
        what: A clause that describes what is measured.
        value: The value in ``unit``; None if it could not be measured, in which case ``note`` gives the reason.
        low, high: Confidence interval of the value, which is a median; None if it is unknown.
        at_most, at_least: The goal; both are None if the value is only reported.
        unit: The unit; ``x`` for a ratio.
        note: A remark for readers.
        failure: The reason why the benchmark failed; empty if it did not.
    """

    benchmark: str
    what: str
    value: float | None
    low: float | None = None
    high: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"
    note: str = ""
    failure: str = ""

    @classmethod
    def of(cls, benchmark: str, what: str, interval: Interval, **about) -> Row:
        """Return a row whose value is a median with its interval."""
        bounds = {"low": interval.low, "high": interval.high} if interval.is_bounded else {}
        return cls(benchmark, what, interval.value, **bounds, **about)

    @property
    def goal(self) -> str:
        """The goal as text; empty if there is none."""
        if self.at_most is not None:
            return f"<= {_number(self.at_most)}"
        return f">= {_number(self.at_least)}" if self.at_least is not None else ""

    @property
    def verdict(self) -> str:
        """``met`` or ``missed``, with ``?`` if the interval contains the goal; empty if there is no goal."""
        if not self.goal:
            return ""
        if self.value is None:
            return "not measured"
        limit = self.at_most if self.at_most is not None else self.at_least
        met = self.value <= limit if self.at_most is not None else self.value >= limit
        unsure = self.low is not None and self.low < limit < self.high
        return ("met" if met else "missed") + ("?" if unsure else "")

    @property
    def figure(self) -> str:
        """The value with its unit."""
        if self.value is None:
            return "-"
        return _number(self.value) if self.unit == "x" else f"{_number(self.value)} {self.unit}"

    @property
    def interval(self) -> str:
        """The interval of the value; empty if it is unknown."""
        return "" if self.low is None else f"{_number(self.low)} to {_number(self.high)}"

    def as_json(self) -> dict:
        """Return the row as plain data."""
        return {**asdict(self), "verdict": self.verdict}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(rows: Iterable[Row], about: str) -> str:
    """Return a table of goals and values below ``about``, a description of the machine and the software."""
    lines = []
    for row in rows:
        remarks = "; ".join(filter(None, (row.note, row.failure.replace("\n", " "))))
        what = f"{row.what} ({remarks})" if remarks else row.what
        lines.append((what, row.goal, row.figure, row.interval, row.verdict))
    header = ("what", "goal", "measured", "interval", "")
    return f"{about}\n\n{markdown_table(header, lines, 'lllll', is_markdown=True)}\n"


def update_page(page: Path, table: str) -> None:
    """Write ``table`` between the markers in ``page``.

    Raises:
        UserError: If the page does not contain the markers.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise UserError(Problem(str(page), "", f"no markers for the table; expected {BEGIN} and {END}"))
    write_text(page, pattern.sub(lambda _: f"{BEGIN}\n{table}{END}", text))
