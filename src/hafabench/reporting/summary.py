"""The final numbers of an experiment for a console: every trained model with its accuracies, on one screen."""

from __future__ import annotations

from collections.abc import Iterator

from tabulate import tabulate

from hafabench.config.metrics import main_metric
from hafabench.config.recipes import TASKS
from hafabench.config.tables import Column
from hafabench.formatting.numbers import format_fixed
from hafabench.formatting.text import one_line
from hafabench.reporting.report import Report
from hafabench.reporting.table_metrics import TableMetrics
from hafabench.stats.paired import summarize


def final_numbers(report: Report) -> str:
    """Return a table with a row per trained model and a column per task; empty if nothing was evaluated.

    A cell contains the mean over the seeds of the task's main metric, and the difference from the baseline that the
    tables print.

    Args:
        report: The report of an experiment.
    """
    columns = {task: list(_columns(report, task)) for task in TASKS}
    labels: dict[str, str] = {}
    cells: dict[tuple[str, str], str] = {}
    seeds: dict[str, set[int]] = {}
    for task, found in columns.items():
        for metrics, column in found:
            for row in metrics.table_layout.rows:
                values = metrics.by_seed(column, row.model)
                if not values or (task, row.model) in cells:
                    continue
                labels.setdefault(row.model, row.label)
                seeds.setdefault(row.model, set()).add(len(values))
                cell = format_fixed(summarize(list(values.values())).mean, column.decimals)
                change = metrics.difference(column, row.model, row.baseline) if row.baseline else None
                if change is not None:
                    cell += f" ({format_fixed(change.value, column.decimals, signed=True)})"
                cells[task, row.model] = cell
    tasks = [task for task in TASKS if any(at == task for at, _ in cells)]
    if not tasks:
        return ""
    header = ["Model", *(main_metric(task).label for task in tasks), "seeds"]
    rows = [
        [one_line(text), *(cells.get((task, model), "") for task in tasks), _span(seeds[model])]
        for model, text in labels.items()
    ]
    table = tabulate(rows, header, tablefmt="simple", disable_numparse=True)
    return f"{_title(report)}\n\n{table}"


def _columns(report: Report, task: str) -> Iterator[tuple[TableMetrics, Column]]:
    """The columns of the tables that show the main metric of a task; those with differences come first."""
    found = [
        (metrics, column)
        for metrics in report.metrics.values()
        for column in metrics.table_layout.columns
        if column.verb == "evaluate" and column.task == task and column.metric_name == main_metric(task).name
    ]
    yield from sorted(found, key=lambda pair: not pair[1].delta)


def _title(report: Report) -> str:
    text = "Accuracy on the validation split: mean over seeds (difference from the baseline, common seeds)."
    return f"{text}\n{report.warning}" if report.warning else text


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"
