"""Figures: how the trainings went, and what accuracy costs.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart also by colour-blind readers; beyond
eight lines the line style changes too. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hafabench.config.catalog import CATALOG, GRID_ONLY, ModelSpec
from hafabench.config.metrics import main_metric
from hafabench.config.recipes import TASKS
from hafabench.errors import Problem, UserError
from hafabench.files import atomic_path
from hafabench.reporting.curves import Curve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
STYLES = ("-", "--", ":", "-.")
BASELINE, PLUGIN, OTHER = COLOURS[0], COLOURS[1], "#767676"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Element ids of an SVG are random unless salted.
    "svg.hashsalt": "hafabench",
}


def learning_curves(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw training loss and learning rate over optimiser steps, one row of panels per task.

    A model with several seeds gets a thin line per seed and a thick one for their mean.

    Args:
        curves: The learning curves by run id, each with at least one step.
        path: of the figure; its suffix (``.svg``, ``.png``, ``.pdf``) chooses the format.

    Raises:
        UserError: If the figure cannot be written.
    """
    tasks = [task for task in TASKS if any(_task(run) == task for run in curves)]
    # A model keeps its colour over all panels.
    looks = {model: i for i, model in enumerate(dict.fromkeys(_model(run) for run in curves))}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, max(1.6, 2.9 * len(tasks))), layout="constrained")
        if not tasks:
            say(figure, "no training has a history yet")
            return save(figure, path)
        panels = figure.subplots(len(tasks), 2, squeeze=False, width_ratios=[3, 2])
        for (loss, rate), task in zip(panels, tasks, strict=True):
            named = []
            for model, look in looks.items():
                of_model = {run: c for run, c in curves.items() if (_task(run), _model(run)) == (task, model)}
                style = {
                    "color": COLOURS[look % len(COLOURS)],
                    "linestyle": STYLES[look // len(COLOURS) % len(STYLES)],
                }
                if of_model:
                    named.append(_draw_model(loss, rate, of_model, style))
            loss.set_title(task, loc="left", fontweight="bold")
            loss.set_ylabel("training loss")
            rate.set_ylabel("learning rate")
            rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
            rate.legend(
                handles=named,
                loc="upper left",
                bbox_to_anchor=(1.02, 1.03),
                borderaxespad=0,
                fontsize=7.5,
                ncols=1 + len(named) // 16,
                labelspacing=0.35,
            )
            for axes in (loss, rate):
                axes.set_xlim(left=0)
                axes.set_ylim(bottom=0)
                axes.set_xlabel("optimiser step")
        save(figure, path)


def _draw_model(loss: Axes, rate: Axes, curves: Mapping[str, Curve], style: Mapping[str, Any]) -> Line2D:
    """Draw the curves of one model's seeds; returns the line that stands for the model in the legend."""
    # Seeds share their schedule: the longest history shows it.
    longest = max(curves.values(), key=lambda curve: curve["step"][-1])
    rate.plot(longest["step"], longest["lr"], linewidth=1.4, **style)
    if len(curves) == 1:
        ((run, curve),) = curves.items()
        (line,) = loss.plot(curve["step"], curve["loss"], linewidth=1.4, label=run.partition("/")[2], **style)
        return line
    for curve in curves.values():
        loss.plot(curve["step"], curve["loss"], linewidth=0.7, alpha=0.4, **style)
    label = f"{_model(next(iter(curves)))}, mean of {len(curves)} seeds"
    (line,) = loss.plot(*mean_curve(list(curves.values())), linewidth=2.2, label=label, **style)
    return line


def mean_curve(curves: Sequence[Curve]) -> tuple[list[float], list[float]]:
    """The steps that all the curves have, and the mean of their losses there."""
    losses = [dict(zip(curve["step"], curve["loss"], strict=True)) for curve in curves]
    steps = sorted(set.intersection(*map(set, losses)))
    return steps, [fmean(of_seed[step] for of_seed in losses) for step in steps]


def accuracy_vs_complexity(frame: pd.DataFrame, path: Path, models: Mapping[str, ModelSpec] = CATALOG) -> None:
    """Scatter each task's headline metric over multiply-accumulates, with arrows from a backbone to its variants.

    Args:
        frame: of `hafabench.reporting.frame`.
        path: as in `learning_curves`.
        models: what the frame's model names are; tells which models are variants of which.
    """
    points = {task: headline_points(frame, task, "gmacs") for task in TASKS}
    points = {task: found for task, found in points.items() if found}
    with mpl.rc_context(STYLE):
        rows = max([len(found) for found in points.values()], default=0)
        figure = Figure(figsize=(max(5, 4.6 * len(points)), max(3.4, 1.4 + 0.2 * rows)), layout="constrained")
        if not points:
            say(figure, "no evaluated model has its complexity counted yet")
            return save(figure, path)
        if set(frame["scale"]) == {"embedded"}:
            names = ", ".join(sorted(set(frame["experiment"])))
            figure.suptitle(f"EMBEDDED DATA ({names}), not comparable with the paper", fontsize=9, fontweight="bold")
        panels = figure.subplots(1, len(points), squeeze=False)[0]
        for axes, (task, found) in zip(panels, points.items(), strict=True):
            _scatter(axes, found, models)
            axes.set_title(task, loc="left", fontweight="bold")
            axes.set_xlabel("GMACs at the paper's input size")
            axes.set_ylabel(main_metric(task).label)
        figure.legend(handles=_key(), loc="outside lower center", ncols=3, fontsize=8)
        save(figure, path)


@dataclass(frozen=True)
class Point:
    """A model's headline metric (mean and standard deviation over ``n`` seeds) over what it costs."""

    model: str
    cost: float
    mean: float
    spread: float | None
    n: int


def headline_points(frame: pd.DataFrame, task: str, cost: str, source: str | None = None) -> list[Point]:
    """A task's measured models, by name, at the value of their metric ``cost``.

    Args:
        frame: of `hafabench.reporting.frame`.
        task: gives the headline metric.
        cost: name of a counted or timed metric: ``params``, ``gmacs``, ``latency_ms``.
        source: id of the record that holds it, where several do (``latency/table4``).
    """
    of_task = frame[(frame["task"] == task) & (frame["origin"] == "measured")]
    costs = of_task[(of_task["verb"] != "evaluate") & (of_task["name"] == cost)]
    if source is not None:
        costs = costs[costs["id"] == source]
    of_model = dict(zip(costs["model"], costs["value"], strict=True))
    measured = of_task[(of_task["verb"] == "evaluate") & (of_task["name"] == main_metric(task).name)]
    return [
        Point(
            model,
            float(of_model[model]),
            float(values.mean()),
            float(values.std()) if len(values) > 1 else None,
            len(values),
        )
        for model, values in measured.groupby("model")["value"]
        if model in of_model
    ]


def _scatter(axes: Axes, points: list[Point], models: Mapping[str, ModelSpec]) -> None:
    by_model = {point.model: point for point in points}
    bases = {point.model: base_of(point.model, models) for point in points}
    for point in points:
        plugin = bases[point.model] is not None
        base = by_model.get(bases[point.model] or "")
        colour = PLUGIN if plugin else BASELINE if point.model in bases.values() else OTHER
        if point.spread is not None:
            axes.errorbar(point.cost, point.mean, yerr=point.spread, color=colour, linewidth=1, capsize=2)
        axes.plot(point.cost, point.mean, "^" if plugin else "o", color=colour, markersize=6, zorder=3)
        if base is not None:
            arrow = {"arrowstyle": "->", "color": PLUGIN, "linewidth": 1.1, "shrinkA": 4, "shrinkB": 4}
            axes.annotate("", xy=(point.cost, point.mean), xytext=(base.cost, base.mean), arrowprops=arrow)
    axes.margins(x=0.12, y=0.12)
    low, high = axes.get_ylim()
    # Labels stand in a column beside the panel, spread so that none covers another, each tied to its point.
    ordered = sorted(points, key=lambda point: (point.mean, point.model))
    heights = spread_apart([(point.mean - low) / (high - low) for point in ordered], 1 / max(len(ordered), 14))
    for point, height in zip(ordered, heights, strict=True):
        axes.annotate(
            f"{point.model} {point.mean:.1f}",
            xy=(point.cost, point.mean),
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 4},
        )


def spread_apart(heights: list[float], gap: float) -> list[float]:
    """Ascending heights moved apart to at least ``gap``, kept within 0 and 1 where they fit."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    ceiling = 1.0
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def base_of(model: str, models: Mapping[str, ModelSpec]) -> str | None:
    """The plain architecture that ``model`` is a variant of; None for plain and unknown models."""
    spec = models.get(model)
    if spec is None or not spec.has_mergers:
        return None
    plain = (name for name, s in models.items() if s.mergers == GRID_ONLY and s.architecture == spec.architecture)
    return next(plain, None)


def _key() -> list[Line2D]:
    looks = (("o", BASELINE, "backbone"), ("^", PLUGIN, "with HAFA mergers"), ("o", OTHER, "other model"))
    return [Line2D([], [], marker=m, color=c, linestyle="none", label=text) for m, c, text in looks]


def _task(run: str) -> str:
    return run.split("/")[0]


def _model(run: str) -> str:
    return run.split("/")[1]


def say(figure: Figure, text: str) -> None:
    """Fill a figure that has nothing to show with a sentence."""
    figure.text(0.5, 0.5, text, ha="center", va="center")


def save(figure: Figure, path: Path) -> None:
    """Write a figure, the same bytes every time; its suffix chooses the format.

    Raises:
        UserError: for an unknown kind of figure, or one that cannot be written.
    """
    kind = Path(path).suffix.removeprefix(".")
    known = sorted(figure.canvas.get_supported_filetypes())
    if kind not in known:
        raise UserError(
            Problem(str(path), "", f"unknown kind of figure {kind!r}; expected one of {', '.join(known)}")
        )
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
