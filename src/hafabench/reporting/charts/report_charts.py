"""All charts of a report, and the figure files that contain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hafabench.config.experiment import Experiment, Scale
from hafabench.reporting import legend
from hafabench.reporting.charts.accuracy_cost import accuracy_cost_charts
from hafabench.reporting.charts.chart import Chart, compose_figure
from hafabench.reporting.charts.comparison_charts import comparison_charts
from hafabench.reporting.charts.learning_curves import learning_curve_charts
from hafabench.reporting.comparisons import Comparison
from hafabench.reporting.curves import Curve

_COLUMNS = 3  # in a figure file


@dataclass(frozen=True)
class ReportCharts:
    """The charts of a report.

    Attributes:
        learning_curves: One chart per task.
        accuracy_cost: For each task, one chart per cost.
        comparisons: One chart per task.
    """

    learning_curves: list[Chart]
    accuracy_cost: dict[str, list[Chart]]
    comparisons: list[Chart]


def draw_charts(
    experiment: Experiment, frame: pd.DataFrame, curves: Mapping[str, Curve], comparisons: Sequence[Comparison]
) -> ReportCharts:
    """Draw all charts.

    Args:
        experiment: The experiment.
        frame: The experiment's metrics, see `hafabench.reporting.frame`.
        curves: The learning curve of each run by run id.
        comparisons: The comparisons of models with their baselines.
    """
    return ReportCharts(
        learning_curve_charts(curves), accuracy_cost_charts(experiment, frame), comparison_charts(comparisons)
    )


def figure_files(experiment: Experiment, charts: ReportCharts, scale: Scale | None = None) -> dict[Path, str]:
    """Return the content of each figure file, by its path.

    Args:
        experiment: The experiment.
        charts: Its charts.
        scale: The scale that decides on the warning in the figures; None uses the experiment's.
    """
    subject = legend.WARNINGS.get(scale or experiment.config.scale)
    heading = f"{subject} ({experiment.name}), not comparable with the paper" if subject else ""
    figures = {
        "learning_curves": (_rows(charts.learning_curves), "No training has written a history yet."),
        "accuracy_vs_complexity": (
            [row for of_task in charts.accuracy_cost.values() for row in _rows(of_task)],
            "No evaluated model has a counted or timed cost yet.",
        ),
        "comparisons": (
            _rows(charts.comparisons),
            legend.NO_COMPARISON,
        ),
    }
    folder = experiment.reports / "figures"
    return {
        folder / f"{name}.svg": compose_figure(rows, heading=heading, empty=empty)
        for name, (rows, empty) in figures.items()
    }


def _rows(charts: list[Chart]) -> list[list[Chart]]:
    return [charts[first : first + _COLUMNS] for first in range(0, len(charts), _COLUMNS)]
