"""The comparisons drawn: every seed's difference, their mean with its interval, and what could have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hafabench.config.recipes import TASKS
from hafabench.reporting import legend
from hafabench.reporting.comparisons import Comparison
from hafabench.reporting.figures import BASELINE, PLUGIN, STYLE, save, say

MEAN, SEED, BAND = PLUGIN, BASELINE, "#e3e3e3"


def draw_comparisons(found: Sequence[Comparison], path: Path, *, experiment: str, scale: str) -> None:
    """Draw one line per comparison, one panel per task.

    Args:
        found: of `hafabench.reporting.comparisons.comparisons`.
        path: of the figure; its suffix chooses the format.
        experiment, scale: of the experiment.

    Raises:
        UserError: for an unknown kind of figure, or one that cannot be written.
    """
    by_task = {task: [comparison for comparison in found if comparison.task == task] for task in TASKS}
    tasks = [(task, members) for task, members in by_task.items() if members]
    with mpl.rc_context(STYLE):
        heights = [len(members) + 1.0 for _, members in tasks]
        figure = Figure(figsize=(9, max(1.6, 0.9 + 0.62 * sum(heights))), layout="constrained")
        if not tasks:
            say(figure, legend.NO_COMPARISON.replace(", so ", ",\nso "))
            return save(figure, path)
        if scale == "embedded":
            figure.suptitle(f"EMBEDDED DATA ({experiment})", fontsize=9, fontweight="bold")
        panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (task, members) in zip(panels, tasks, strict=True):
            _panel(axes, members)
            axes.set_title(task, loc="left", fontweight="bold")
        panels[-1].set_xlabel("difference to the baseline, in the metric's points")
        figure.legend(handles=_key(), loc="outside lower center", ncols=3, fontsize=8)
        save(figure, path)


def _panel(axes: Axes, members: Sequence[Comparison]) -> None:
    axes.use_sticky_edges = False
    for at, c in enumerate(members):
        if c.paired.detectable is not None:
            axes.barh(at, 2 * c.paired.detectable, left=-c.paired.detectable, height=0.62, color=BAND, zorder=0)
        # Seeds stand above their mean, spread a little so that equal ones stay visible.
        heights = [at - 0.12 - min(0.05, 0.25 / c.paired.n) * index for index in range(c.paired.n)]
        axes.plot(c.paired.differences, heights, "o", color=SEED, markersize=3.5, alpha=0.8)
        if c.paired.low is not None and c.paired.high is not None:
            error = [[c.paired.difference - c.paired.low], [c.paired.high - c.paired.difference]]
            axes.errorbar(c.paired.difference, at + 0.12, xerr=error, color=MEAN, linewidth=2, capsize=4)
        axes.plot(c.paired.difference, at + 0.12, "D", color=MEAN, markersize=5.5)
        axes.annotate(
            c.verdict,
            xy=(1.01, at),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            fontweight="normal" if c.verdict == "cannot tell" else "bold",
            annotation_clip=False,
        )
    axes.axvline(0, color="black", linewidth=0.9)
    axes.set_yticks(range(len(members)), [f"{c.label}\nagainst {c.baseline_label}, {c.header}" for c in members])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(members) - 0.4, -0.6)


def _key() -> list[Line2D | Patch]:
    return [
        Line2D([], [], marker="o", color=SEED, linestyle="none", markersize=3.5, label="one seed"),
        Line2D([], [], marker="D", color=MEAN, markersize=5.5, label="mean with its 95 % interval"),
        Patch(color=BAND, label="less than these runs would show four times in five"),
    ]
