"""Learning curves: training loss and learning rate over optimiser steps, one chart per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from hafabench.config.recipes import TASKS
from hafabench.formatting.numbers import format_fixed
from hafabench.reporting.charts.chart import LINE_STYLES, SERIES, Chart, make_chart, new_figure
from hafabench.reporting.curves import Curve

MOST_POINTS = 200  # per curve: more points cannot be distinguished and only make the file larger


def learning_curve_charts(curves: Mapping[str, Curve]) -> list[Chart]:
    """Draw the curves of each task: a thin line per seed, and a thick one for the mean of a model's seeds.

    Args:
        curves: The curve of each run by run id, each with at least one step.
    """
    by_task: dict[str, dict[str, list[Curve]]] = {}
    for run_id, curve in curves.items():
        task, model, _ = run_id.split("/")
        by_task.setdefault(task, {}).setdefault(model, []).append(curve)
    # A model has the same line in all charts.
    models = dict.fromkeys(model for of_task in by_task.values() for model in of_task)
    styles = {model: _line_style(number) for number, model in enumerate(models)}
    return [_draw(task, by_task[task], styles) for task in TASKS if task in by_task]


def _line_style(number: int) -> dict[str, Any]:
    style = LINE_STYLES[number // len(SERIES) % len(LINE_STYLES)]
    return {"color": SERIES[number % len(SERIES)], "linestyle": style}


def _draw(task: str, models: Mapping[str, Sequence[Curve]], styles: Mapping[str, Mapping[str, Any]]) -> Chart:
    tooltips: dict[str, str] = {}
    labels = []

    def plot(axes: Axes, steps: Sequence[float], values: Sequence[float], tooltip: str, **style: Any) -> None:
        (line,) = axes.plot(*thin_out(steps, values), gid=f"line{len(tooltips)}", **style)
        tooltips[str(line.get_gid())] = tooltip

    with new_figure(150, legend_rows=-(-len(models) // 2)) as figure:
        loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1], gridspec_kw={"hspace": 0.25})
        for model, seeds in models.items():
            style = styles[model]
            complete = most_advanced(seeds)
            steps, losses = mean_curve(complete)
            if len(seeds) > 1:
                for curve in seeds:
                    plot(loss, curve["step"], curve["loss"], f"{model}, one seed", linewidth=0.7, alpha=0.4, **style)
            name = f"{model}, mean of {len(complete)} seeds" if len(complete) > 1 else model
            labels.append(f"{model} {format_fixed(losses[-1], 2)}")
            plot(loss, steps, losses, name, linewidth=2.2 if len(seeds) > 1 else 1.4, label=labels[-1], **style)
            # All seeds have the same schedule.
            plot(rate, complete[0]["step"], complete[0]["lr"], f"{model}, learning rate", linewidth=1.4, **style)
        loss.set_title(task.capitalize())
        loss.set_ylabel("training loss")
        rate.set_ylabel("learning rate")
        rate.set_xlabel("optimiser step")
        rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        rate.locator_params(axis="y", nbins=3)
        rate.locator_params(axis="x", nbins=6)
        for axes in (loss, rate):
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
        figure.legend(ncols=2)
        last = "; ".join(labels)
        description = (
            f"{task.capitalize()}: training loss and learning rate over optimiser steps. Last losses: {last}"
        )
        return make_chart(f"curves-{task}", figure, description, tooltips)


def most_advanced(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves with the largest last step, so that a training that still runs does not shorten the mean."""
    last = max(curve["step"][-1] for curve in curves)
    return [curve for curve in curves if curve["step"][-1] == last]


def mean_curve(curves: Sequence[Curve]) -> tuple[list[float], list[float]]:
    """Return the steps that all curves have, and the mean of their losses at these steps."""
    losses = [dict(zip(curve["step"], curve["loss"], strict=True)) for curve in curves]
    steps = sorted(set.intersection(*map(set, losses)))
    return steps, [fmean(of_seed[step] for of_seed in losses) for step in steps]


def thin_out(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Average neighbouring points until at most `MOST_POINTS` are left."""
    size = -(-len(steps) // MOST_POINTS)
    parts = [slice(first, first + size) for first in range(0, len(steps), size)]
    return [steps[part][-1] for part in parts], [fmean(values[part]) for part in parts]
