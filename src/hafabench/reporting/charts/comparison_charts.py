"""Charts of comparisons: the difference of every seed, the mean with its interval, and undetectable differences."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hafabench.config.recipes import TASKS
from hafabench.formatting.text import one_line
from hafabench.reporting.charts.chart import PALETTE, Chart, make_chart, new_figure
from hafabench.reporting.comparisons import Comparison

_MEAN, _SEED, _BAND = PALETTE["merger"], PALETTE["baseline"], PALETTE["faint"]


def comparison_charts(comparisons: Sequence[Comparison]) -> list[Chart]:
    """Draw the comparisons of each task, one row per comparison."""
    by_task = {task: [comparison for comparison in comparisons if comparison.task == task] for task in TASKS}
    return [_draw(task, of_task) for task, of_task in by_task.items() if of_task]


def _draw(task: str, comparisons: Sequence[Comparison]) -> Chart:
    tooltips = {f"row{number}": comparison.sentence for number, comparison in enumerate(comparisons)}
    with new_figure(54 * len(comparisons), legend_rows=3, left=8) as figure:
        axes = figure.subplots()
        axes.use_sticky_edges = False
        axes.set_title(f"{task.capitalize()}: difference from the baseline")
        axes.set_xlabel("difference, in points of the metric")
        for number, comparison in enumerate(comparisons):
            _draw_row(axes, number, comparison)
        axes.axvline(0, color=PALETTE["ink"], linewidth=0.9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.06)
        axes.locator_params(axis="x", nbins=6)
        axes.set_ylim(len(comparisons) - 0.5, -0.55)
        figure.legend(handles=_legend())
        description = " ".join(comparison.sentence for comparison in comparisons)
        return make_chart(f"comparisons-{task}", figure, description, tooltips)


def _draw_row(axes: Axes, row: int, comparison: Comparison) -> None:
    paired = comparison.paired
    if paired.detectable is not None:
        axes.barh(row + 0.2, 2 * paired.detectable, left=-paired.detectable, height=0.46, color=_BAND, zorder=0)
    # Seeds are drawn above their mean at slightly different heights, so that equal ones stay visible.
    heights = [row + 0.14 - min(0.03, 0.15 / paired.n) * index for index in range(paired.n)]
    axes.plot(paired.differences, heights, "o", color=_SEED, markersize=3.5, alpha=0.8, markeredgewidth=0)
    if paired.low is not None and paired.high is not None:
        error = [[paired.difference - paired.low], [paired.high - paired.difference]]
        axes.errorbar(paired.difference, row + 0.3, xerr=error, color=_MEAN, linewidth=2, capsize=3)
    axes.plot(paired.difference, row + 0.3, "D", color=_MEAN, markersize=5.5, gid=f"row{row}")
    models = one_line(f"{comparison.label} against {comparison.baseline_label}")
    label = f"{models}\n{one_line(comparison.header)}: {comparison.verdict}"
    background = {"facecolor": PALETTE["bg"], "edgecolor": "none", "pad": 1}
    axes.text(0, row - 0.26, label, transform=axes.get_yaxis_transform(), va="center", bbox=background)


def _legend() -> list[Line2D | Patch]:
    return [
        Line2D([], [], marker="o", color=_SEED, linestyle="none", markersize=3.5, label="one seed"),
        Line2D([], [], marker="D", color=_MEAN, markersize=5.5, label="mean with its 95 % interval"),
        Patch(color=_BAND, label="differences too small to detect with 80 % power"),
    ]
