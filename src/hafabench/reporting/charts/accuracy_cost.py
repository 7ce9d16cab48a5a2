"""Charts of accuracy against cost: the main metric of each task over parameters, multiply-accumulates and latency."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hafabench.config.catalog import GRID_ONLY, ModelSpec
from hafabench.config.experiment import Experiment
from hafabench.config.metrics import METRICS, main_metric
from hafabench.config.recipes import TASKS
from hafabench.formatting.numbers import format_fixed, format_significant
from hafabench.reporting.charts.chart import PALETTE, Chart, make_chart, new_figure

_LETTER_WIDTH = 4.2  # points, in the labels beside the axes
_MARKERS = {"baseline": "o", "merger": "^", "other": "o"}


@dataclass(frozen=True)
class Point:
    """The main metric of a model (mean and standard deviation over ``n`` seeds) at its cost."""

    model: str
    cost: float
    decimals: int
    mean: float
    spread: float | None
    n: int

    @property
    def text(self) -> str:
        """``77.5`` or ``77.5 ± 0.2 over 5 seeds``."""
        if self.spread is None:
            return self.printed_mean
        return f"{self.printed_mean} ± {format_fixed(self.spread, self.decimals)} over {self.n} seeds"

    @property
    def printed_mean(self) -> str:
        """``77.5``, with the decimals of the tables."""
        return format_fixed(self.mean, self.decimals)


@dataclass(frozen=True)
class Cost:
    """A metric on the x axis of a chart.

    Attributes:
        name: The name of the chart.
        title: The title of the chart.
        label: The label of the axis, with the unit.
        metric: The name of the counted or timed metric: ``params``, ``gmacs`` or ``latency_ms``.
        record: The id of the record that holds it, if several do (``latency/table4``).
        factor: The factor from the record's unit to the axis's unit.
    """

    name: str
    title: str
    label: str
    metric: str
    record: str | None = None
    factor: float = 1.0


def accuracy_cost_charts(experiment: Experiment, frame: pd.DataFrame) -> dict[str, list[Chart]]:
    """Draw a chart for each task and cost with at least one evaluated model, and return the charts by task.

    Args:
        experiment: The experiment, which names the latency groups and models.
        frame: The experiment's metrics, see `hafabench.reporting.frame`.
    """
    costs = [
        Cost("params", "parameters", METRICS["params"].label, "params", factor=METRICS["params"].factor),
        Cost("gmacs", "multiply-accumulates", METRICS["gmacs"].label, "gmacs", factor=METRICS["gmacs"].factor),
    ]
    for group in experiment.config.latency:
        images = f"{group.batch_size} image{'s' if group.batch_size > 1 else ''} of {group.image_size} pixels"
        name, title = f"latency-{group.name}", f"latency, group {group.name}"
        costs.append(Cost(name, title, f"ms for {images}", "latency_ms", f"latency/{group.name}"))
    by_task: dict[str, list[Chart]] = {}
    for task in TASKS:
        points = {cost: main_metric_points(frame, task, cost) for cost in costs}
        charts = [draw_scatter(task, cost, found, experiment.models) for cost, found in points.items() if found]
        if charts:
            by_task[task] = charts
    return by_task


def main_metric_points(frame: pd.DataFrame, task: str, cost: Cost) -> list[Point]:
    """Return a point for every measured model of a task with a known cost, sorted by name."""
    of_task = frame[(frame["task"] == task) & (frame["origin"] == "measured")]
    costs = of_task[(of_task["verb"] != "evaluate") & (of_task["name"] == cost.metric)]
    if cost.record is not None:
        costs = costs[costs["id"] == cost.record]
    metric = main_metric(task)
    of_model = dict(zip(costs["model"], costs["value"] * cost.factor, strict=True))
    measured = of_task[(of_task["verb"] == "evaluate") & (of_task["name"] == metric.name)]
    return [
        Point(
            str(model),
            float(of_model[model]),
            metric.decimals,
            float(values.mean()),
            float(values.std()) if len(values) > 1 else None,
            len(values),
        )
        for model, values in measured.groupby("model")["value"]
        if model in of_model
    ]


def draw_scatter(task: str, cost: Cost, points: Sequence[Point], models: Mapping[str, ModelSpec]) -> Chart:
    """Draw the models as points, with arrows from a baseline to the models with HAFA's mergers.

    Args:
        task: The task, which determines the y axis.
        cost: The x axis.
        points: The models; at least one.
        models: The specifications of the models by name.
    """
    baselines = {point.model: baseline_of(point.model, models) for point in points}
    kinds = {model: _kind(model, baselines) for model in baselines}
    tooltips: dict[str, str] = {}
    labels = {point: f"{point.model} {point.printed_mean}" for point in points}
    right = 12 + _LETTER_WIDTH * max(map(len, labels.values()))
    with new_figure(max(120, 11.5 * len(points)), legend_rows=1, right=right) as figure:
        axes = figure.subplots()
        title = f"{task.capitalize()}: {cost.title}"
        axes.set_title(title)
        axes.set_xlabel(cost.label)
        axes.set_ylabel(main_metric(task).label)
        for number, point in enumerate(points):
            kind = kinds[point.model]
            if point.spread is not None:
                axes.errorbar(point.cost, point.mean, yerr=point.spread, color=PALETTE[kind], linewidth=1, capsize=2)
            axes.plot(
                point.cost,
                point.mean,
                _MARKERS[kind],
                color=PALETTE[kind],
                markersize=6.5,
                markeredgecolor=PALETTE["bg"],
                markeredgewidth=0.7,
                zorder=3,
                gid=f"point{number}",
            )
            tooltips[f"point{number}"] = (
                f"{point.model}: {point.text}, {cost.label}: {format_significant(point.cost)}"
            )
        _draw_arrows(axes, points, baselines)
        axes.margins(x=0.12, y=0.12)
        axes.locator_params(axis="x", nbins=4)
        _label_points(axes, labels)
        figure.legend(handles=_legend(set(kinds.values())), ncols=3)
        best = max(points, key=lambda point: point.mean)
        description = f"{title}, {len(points)} models. The best is {best.model} with {best.text}"
        return make_chart(f"accuracy-{task}-{cost.name}", figure, description, tooltips)


def _draw_arrows(axes: Axes, points: Sequence[Point], baselines: Mapping[str, str | None]) -> None:
    by_model = {point.model: point for point in points}
    for point in points:
        baseline = by_model.get(baselines[point.model] or "")
        if baseline is not None:
            style = {"arrowstyle": "->", "color": PALETTE["merger"], "linewidth": 1.1, "shrinkA": 4, "shrinkB": 4}
            start, end = (baseline.cost, baseline.mean), (point.cost, point.mean)
            axes.annotate("", xy=end, xytext=start, arrowprops=style | {"linestyle": "--"})


def _label_points(axes: Axes, labels: Mapping[Point, str]) -> None:
    """Write the labels in a column beside the axes without overlap, each with a line to its point."""
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda point: (point.mean, point.model))
    heights = spread_apart([(point.mean - low) / (high - low) for point in ordered], 1 / max(len(ordered), 12))
    for point, height in zip(ordered, heights, strict=True):
        axes.annotate(
            labels[point],
            xy=(point.cost, point.mean),
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            fontsize=7.5,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": PALETTE["line"], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4},
        )


def spread_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights at least ``gap`` apart. They stay between 0 and 1 if there is enough space."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    ceiling = 1.0
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def baseline_of(model: str, models: Mapping[str, ModelSpec]) -> str | None:
    """Return the plain model of the same architecture, or None for plain and unknown models."""
    spec = models.get(model)
    if spec is None or not spec.has_mergers:
        return None
    plain = (name for name, s in models.items() if s.mergers == GRID_ONLY and s.architecture == spec.architecture)
    return next(plain, None)


def _kind(model: str, baselines: Mapping[str, str | None]) -> str:
    if baselines[model]:
        return "merger"
    return "baseline" if model in baselines.values() else "other"


def _legend(kinds: Collection[str]) -> list[Line2D]:
    names = {"baseline": "baseline", "merger": "with HAFA's mergers", "other": "other"}
    return [
        Line2D([], [], marker=_MARKERS[kind], color=PALETTE[kind], linestyle="none", label=name)
        for kind, name in names.items()
        if kind in kinds
    ]
