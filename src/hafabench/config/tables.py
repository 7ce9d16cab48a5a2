"""The layout of the tables as data: rows, columns, the baseline of each row (`configs/tables.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.metrics import Verb
from hafabench.config.recipes import Task
from hafabench.config.yaml_file import YamlFile

# Metrics that are properties of a model and its input size, counted without training.
COUNTED = ("params", "params_trainable", "gmacs")


class Column(StrictModel):
    """One column.

    Attributes:
        key: the metric's name in the paper's values (``params_m``, ``gflops``, ``top1``, ``box_ap``, ...).
        header: its heading, plain text.
        task: the task whose records fill it.
        metric: name of the record's metric, where it is not ``key``.
        factor: from the record's unit to the column's (1e-6 for millions of parameters).
        decimals: digits after the point, as the paper prints them.
        delta: whether rows with a baseline print their difference in brackets.
        latency: name of the latency measurement that fills it; ``{group}`` in it stands for the row's group.
        change: key of the paper's value where it prints the difference to the baseline alone.
        note: what a reader has to know about it, a clause for the legend.
    """

    key: str
    header: str
    task: Task
    metric: str | None = None
    factor: float = 1.0
    decimals: int = Field(1, ge=0, le=4)
    delta: bool = False
    latency: str | None = None
    change: str | None = None
    note: str | None = None

    @property
    def metric_name(self) -> str:
        """Name of the records' metric that fills it."""
        return self.metric or self.key

    @property
    def verb(self) -> Verb:
        """The verb whose records fill it."""
        if self.latency is not None:
            return "latency"
        return "complexity" if self.metric_name in COUNTED else "evaluate"

    @property
    def better(self) -> Literal["higher", "lower"] | None:
        """Which of two values is the better one; None for sizes and costs, which are no results."""
        return {"evaluate": "higher", "latency": "lower"}.get(self.verb)


class Row(StrictModel):
    """One row: a model under the paper's label, its group and the model that its deltas are against.

    Attributes:
        row: the row's name in the paper's values, where it is not ``model``.
    """

    model: str
    label: str
    group: str
    baseline: str | None = None
    row: str | None = None


class TableLayout(StrictModel):
    """One table of the paper, or the figures that one of its sections tells in its text.

    Attributes:
        id: ``table2``, ``section4_1``.
        cited_as: where the paper's values have it, where that is not ``id``.
    """

    id: str = Field(pattern=r"^(table[1-9]|section[1-9]_[1-9])$")
    title: str
    cited_as: str | None = None
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)

    @property
    def number(self) -> str:
        """The paper's number of the table or section: ``2``, ``4.1``."""
        return self.id.removeprefix("table").removeprefix("section").replace("_", ".")

    @property
    def source(self) -> str:
        """Its name in the paper's values."""
        return self.cited_as or self.id


class _LayoutFile(StrictModel):
    tables: list[TableLayout]


def load_table_layouts(path: Path) -> list[TableLayout]:
    """The tables of a layout file, in its order; raises `UserError` with every problem."""
    return YamlFile(path).validate(_LayoutFile).tables
