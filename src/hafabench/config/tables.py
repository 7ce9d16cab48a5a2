"""The schema of the tables file (`configs/tables.yaml`): columns and rows of each table, and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.metrics import Verb
from hafabench.config.recipes import Task
from hafabench.config.yaml_file import YamlFile

COUNTED = ("params", "params_trainable", "gmacs")
"""Metrics that depend on a model and its input size alone. They are counted without training."""

_BETTER: dict[Verb, Literal["higher", "lower"]] = {"evaluate": "higher", "latency": "lower"}


class Column(StrictModel):
    """A column of a table."""

    key: str = Field(
        description="Name of the metric in the file of the paper's values: `params_m`, `top1`, `box_ap`."
    )
    header: str = Field(description="Heading of the column, plain text.")
    task: Task = Field(description="Task whose records fill the column.")
    metric: str | None = Field(None, description="Name of the metric in the records; null uses `key`.")
    factor: float = Field(
        1.0, description="Factor from the unit of the records to that of the column: 1e-6 for millions of parameters."
    )
    decimals: int = Field(1, ge=0, le=4, description="Decimal places, as in the paper.")
    delta: bool = Field(
        False, description="Whether rows with a baseline also show the difference from the baseline, in brackets."
    )
    latency: str | None = Field(
        None,
        description="Name of the latency measurement that fills the column. `{group}` in it is replaced by the "
        "`group` of the row.",
    )
    change: str | None = Field(
        None,
        description="Name of the metric in the file of the paper's values where the paper prints only the difference "
        "from the baseline.",
    )
    note: str | None = Field(None, description="Remark on the column in the table's legend.")

    @property
    def metric_name(self) -> str:
        """Name of the metric in the records that fill the column."""
        return self.metric or self.key

    @property
    def verb(self) -> Verb:
        """The verb whose records fill the column."""
        if self.latency is not None:
            return "latency"
        return "complexity" if self.metric_name in COUNTED else "evaluate"

    @property
    def better(self) -> Literal["higher", "lower"] | None:
        """Which of two values is better; None for parameters and GFLOPs, which are not results."""
        return _BETTER.get(self.verb)


class Row(StrictModel):
    """A row of a table: one model."""

    model: str = Field(description="Name of the model.")
    label: str = Field(description="Name of the model in the paper.")
    group: str = Field(description="Group of the row. Consecutive rows of a group form one block of the table.")
    baseline: str | None = Field(
        None, description="Model that the row is compared with; null for rows that are no comparison."
    )
    row: str | None = Field(None, description="Name of the row in the file of the paper's values; null uses `model`.")


class TableLayout(StrictModel):
    """The layout of one table of the paper, or of the numbers in the text of a section."""

    id: str = Field(
        pattern=r"^(table[1-9]|section[1-9]_[1-9])$", description="Identifier of the table: `table2`, `section4_1`."
    )
    title: str = Field(description="Title of the table.")
    cited_as: str | None = Field(
        None, description="Identifier of the table in the file of the paper's values; null uses `id`."
    )
    columns: list[Column] = Field(min_length=1, description="Columns from left to right.")
    rows: list[Row] = Field(min_length=1, description="Rows from top to bottom.")

    @property
    def number(self) -> str:
        """The paper's number of the table or section: ``2``, ``4.1``."""
        return self.id.removeprefix("table").removeprefix("section").replace("_", ".")

    @property
    def source(self) -> str:
        """Identifier of the table in the file of the paper's values."""
        return self.cited_as or self.id


class TablesFile(StrictModel):
    """The tables file."""

    tables: list[TableLayout] = Field(description="Layouts of the tables, in the order of the report.")


def load_table_layouts(path: Path) -> list[TableLayout]:
    """Read the layouts of a tables file, in its order.

    Raises:
        UserError: With every problem of the file.
    """
    return YamlFile(path).validate(TablesFile).tables
