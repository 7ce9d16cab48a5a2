"""The schema of the tables file (`configs/tables.yaml`): columns and rows of each table, and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from hafabench.config.base import StrictModel
from hafabench.config.metrics import METRICS, Direction, MetricSpec, Verb, metric_of_paper, unknown_metric
from hafabench.config.names import Name, name_problem, same_folded
from hafabench.config.recipes import Task
from hafabench.config.yaml_file import YamlFile


def _without_default(schema: dict[str, Any]) -> None:
    """Remove the default from a JSON Schema. The true default is that of the metric."""
    del schema["default"]


class Column(StrictModel):
    """A column of a table."""

    key: str = Field(
        description="Name of the metric in the file of the paper's values: `params_m`, `top1`, `box_ap`."
    )
    header: str = Field(description="Heading of the column, plain text.")
    task: Task = Field(description="Task whose records fill the column.")
    metric: str | None = Field(
        None, description="Name of the metric in the records, if several metrics have the name `key`."
    )
    factor: float = Field(
        1.0,
        gt=0,
        le=1e12,
        description="Factor from the unit of the records to that of the column; by default the metric's.",
        json_schema_extra=_without_default,
    )
    decimals: int = Field(
        1,
        ge=0,
        le=4,
        description="Decimal places; by default the metric's.",
        json_schema_extra=_without_default,
    )
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
        description="Name of the difference from the baseline in the file of the paper's values, if the paper prints "
        "the difference without the value.",
    )
    note: str | None = Field(None, description="Remark on the column in the table's legend.")

    @model_validator(mode="before")
    @classmethod
    def _use_defaults_of_metric(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        name, key = content.get("metric"), content.get("key")
        if not (isinstance(name, str | None) and isinstance(key, str | None)):
            return content
        metric = METRICS.get(name or "") or metric_of_paper(key or "")
        return {"factor": metric.factor, "decimals": metric.decimals, **content} if metric else content

    @field_validator("key")
    @classmethod
    def _key_is_registered(cls, key: str) -> str:
        if metric_of_paper(key) is None:
            raise ValueError(unknown_metric(key, dict.fromkeys(metric.paper_name for metric in METRICS.values())))
        return key

    @field_validator("metric")
    @classmethod
    def _metric_is_registered(cls, metric: str | None) -> str | None:
        if metric is not None and metric not in METRICS:
            raise ValueError(unknown_metric(metric))
        return metric

    @model_validator(mode="after")
    def _task_has_metric(self) -> Column:
        if self.task not in self.registered.tasks:
            raise ValueError(f"{self.metric_name} is not a metric of {self.task}")
        return self

    def latency_group(self, group: str) -> str | None:
        """Return the name of the latency measurement that fills the column in rows of ``group``, if one does."""
        return self.latency and self.latency.replace("{group}", group)

    @property
    def registered(self) -> MetricSpec:
        """The metric that fills the column."""
        metric = METRICS[self.metric] if self.metric else metric_of_paper(self.key)
        assert metric is not None
        return metric

    @property
    def metric_name(self) -> str:
        """Name of the metric in the records that fill the column."""
        return self.registered.name

    @property
    def verb(self) -> Verb:
        """The verb whose records fill the column."""
        return self.registered.verb

    @property
    def better(self) -> Direction | None:
        """Which of two values is better; None for counted metrics, which are costs and not results."""
        return None if self.verb == "complexity" else self.registered.better


class Row(StrictModel):
    """A row of a table: one model."""

    model: str = Field(description="Name of the model.")
    label: str = Field(description="Name of the model in the paper.")
    group: str = Field(description="Group of the row. Consecutive rows of a group form one block of the table.")
    baseline: str | None = Field(
        None, description="Model that the row is compared with; null for a row without comparison."
    )
    row: Name | None = Field(
        None, description="Name of the row in the file of the paper's values; null uses `model`."
    )


class TableLayout(StrictModel):
    """A table layout: the rows and columns of a table of the paper, or of the numbers in the text of a section."""

    id: str = Field(
        pattern=r"^(table[1-9]|section[1-9]_[1-9])$", description="Identifier of the table: `table2`, `section4_1`."
    )
    title: str = Field(description="Title of the table.")
    cited_as: str | None = Field(
        None, description="Identifier of the table in the file of the paper's values; null uses `id`."
    )
    columns: list[Column] = Field(min_length=1, description="Columns from left to right.")
    rows: list[Row] = Field(min_length=1, description="Rows from top to bottom.")

    @model_validator(mode="after")
    def _each_row_and_column_once(self) -> TableLayout:
        for section, names in (
            ("rows", [row.row or row.model for row in self.rows]),
            ("columns", [f"{column.key} of {column.task} in {column.latency}" for column in self.columns]),
        ):
            twice = next((index for index, name in enumerate(names) if name in names[:index]), None)
            if twice is not None:
                raise ValueError(f"{section}.{twice}: the same as {section}[{names.index(names[twice])}]")
        return self

    @model_validator(mode="after")
    def _measurements_have_names(self) -> TableLayout:
        for column in self.columns:
            for row in self.rows:
                group = column.latency_group(row.group)
                problem = group is not None and name_problem(group)
                if problem:
                    raise ValueError(f"latency {column.latency!r} of column {column.header!r}: {problem}")
        return self

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

    tables: list[TableLayout] = Field(description="Table layouts, in the order of the report.")

    @field_validator("tables")
    @classmethod
    def _no_table_twice(cls, tables: list[TableLayout]) -> list[TableLayout]:
        for one, _ in same_folded(table.id for table in tables):
            raise ValueError(f"expected different identifiers, found {one} twice")
        return tables


def load_table_layouts(path: Path) -> list[TableLayout]:
    """Read the table layouts of a tables file, in its order.

    Raises:
        UserError: With every problem of the file.
    """
    return YamlFile(path).validate(TablesFile).tables
