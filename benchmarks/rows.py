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
    """One figure.

    Attributes:
        benchmark: that measured it.
        what: is measured, a clause.
        value: the figure, in ``unit``; None where it could not be measured, and ``note`` says why.
        low, high: where its median lies with the instrument's confidence; None where it is not known.
        at_most, at_least: the goal; neither where the figure is only reported.
        unit: ``x`` for a ratio.
        note: what a reader has to know besides.
        failure: why a benchmark that should have measured this did not end.
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
        """A row whose figure is a median with its interval."""
        bounds = {"low": interval.low, "high": interval.high} if interval.is_bounded else {}
        return cls(benchmark, what, interval.value, **bounds, **about)

    @property
    def goal(self) -> str:
        """The goal in words; empty where there is none."""
        if self.at_most is not None:
            return f"<= {_number(self.at_most)}"
        return f">= {_number(self.at_least)}" if self.at_least is not None else ""

    @property
    def verdict(self) -> str:
        """``met`` or ``missed``, with ``?`` where the interval holds the goal; empty for what is only reported."""
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
        """The figure with its unit."""
        if self.value is None:
            return "-"
        return _number(self.value) if self.unit == "x" else f"{_number(self.value)} {self.unit}"

    @property
    def interval(self) -> str:
        """Bounds of the figure; empty where they are not known."""
        return "" if self.low is None else f"{_number(self.low)} to {_number(self.high)}"

    def as_json(self) -> dict:
        """All of it as plain data."""
        return {**asdict(self), "verdict": self.verdict}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(rows: Iterable[Row], about: str) -> str:
    """A table of goals and figures, with ``about`` (the machine, the moment) above it."""
    lines = []
    for row in rows:
        remarks = "; ".join(filter(None, (row.note, row.failure.replace("\n", " "))))
        what = f"{row.what} ({remarks})" if remarks else row.what
        lines.append((what, row.goal, row.figure, row.interval, row.verdict))
    header = ("what", "goal", "measured", "interval", "")
    return f"{about}\n\n{markdown_table(header, lines, 'lllll', is_markdown=True)}\n"


def update_page(page: Path, table: str) -> None:
    """Put ``table`` between the page's markers.

    Raises:
        UserError: for a page without them.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise UserError(Problem(str(page), "", f"no place for the figures; expected {BEGIN} and {END} in it"))
    write_text(page, pattern.sub(lambda _: f"{BEGIN}\n{table}{END}", text))
