"""Charts as geometry: what stands where, in the units of an SVG's view box. Templates draw them.

Drawn natively rather than by matplotlib so that colours follow the reader's light or dark theme and letters keep
their size on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from matplotlib.ticker import MaxNLocator

from hafabench.config.catalog import ModelSpec
from hafabench.reporting.comparisons import Comparison
from hafabench.reporting.figures import Point, base_of, spread_apart

WIDTH, HEIGHT = 420.0, 280.0
TOP, BOTTOM, LEFT = 14.0, 42.0, 46.0
RIGHT = 12.0
LOOKS = 8  # colours that the style sheet has
MOST_VERTICES = 200  # of a curve
_ROW = 15.0  # height of a label
_LETTER = 6.6  # its width per letter, at most
_FOREST_ROW = 52.0  # height of a comparison

Role = Literal["baseline", "plugin", "other"]
Histories = Mapping[str, Sequence[Mapping[str, list[float]]]]
"""Model -> ``step`` and ``loss`` of each of its trainings."""


@dataclass(frozen=True)
class Scale:
    """An axis: values from ``low`` to ``high`` on view-box units from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value stands."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """(place, text) of at most ``most`` + 1 round values within the axis."""
        values = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        return [
            (self.at(value), f"{value:,.10g}")
            for value in map(float, values)
            if self.low - slack <= value <= self.high + slack
        ]


@dataclass(frozen=True)
class Dot:
    """A model in a scatter chart: its place, its error bar, its label and where that stands."""

    x: float
    y: float
    role: Role
    title: str
    label: str
    label_y: float
    bar: tuple[float, float] | None


@dataclass(frozen=True)
class Line:
    """A curve: ``look`` is the number of its colour, ``dash`` of its line style; thin ones are single seeds."""

    vertices: str
    look: int
    dash: int
    thin: bool
    title: str


@dataclass(frozen=True)
class Chart:
    """One panel.

    Attributes:
        title: of the panel.
        summary: what it shows in a sentence, for readers who do not see it.
        x, y: axes, with their labels.
        arrows: (x1, y1, x2, y2) from a backbone to its variant.
        key: (look, dash, text) of the legend below.
    """

    title: str
    summary: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    dots: tuple[Dot, ...] = ()
    arrows: tuple[tuple[float, float, float, float], ...] = ()
    lines: tuple[Line, ...] = ()
    key: tuple[tuple[int, int, str], ...] = field(default=())


def scatter(
    title: str,
    points: Sequence[Point],
    models: Mapping[str, ModelSpec],
    *,
    x_label: str,
    y_label: str,
    factor: float = 1.0,
) -> Chart:
    """Accuracy over cost, arrows from a backbone to its variants, labels in a column at the right.

    Args:
        title: of the panel.
        points: at least one; their ``cost`` times ``factor`` is the x axis.
        models: what the points' model names are.
        x_label, y_label: of the axes, with units.
    """
    costs = [point.cost * factor for point in points]
    lows = [point.mean - (point.spread or 0) for point in points]
    highs = [point.mean + (point.spread or 0) for point in points]
    labels = {point.model: f"{point.model} {point.mean:.1f}" for point in points}
    x = Scale(*_padded(costs), LEFT, WIDTH - 12 - _LETTER * max(map(len, labels.values())))
    y = Scale(*_padded([*lows, *highs]), HEIGHT - BOTTOM, TOP)
    bases = {point.model: base_of(point.model, models) for point in points}
    ordered = sorted(points, key=lambda point: (point.mean, point.model))
    span = y.start - y.end
    gap = min(_ROW / span, 1 / max(len(points) - 1, 1))
    heights = spread_apart([(y.start - y.at(point.mean)) / span for point in ordered], gap)
    dots = {
        point.model: Dot(
            x=x.at(point.cost * factor),
            y=y.at(point.mean),
            role="plugin" if bases[point.model] else "baseline" if point.model in bases.values() else "other",
            title=f"{point.model}: {_value(point)}, {x_label} {point.cost * factor:.4g}",
            label=labels[point.model],
            label_y=round(y.start - height * span, 2),
            bar=(y.at(low), y.at(high)) if point.spread is not None else None,
        )
        for point, low, high, height in (
            (point, point.mean - (point.spread or 0), point.mean + (point.spread or 0), height)
            for point, height in zip(ordered, heights, strict=True)
        )
    }
    arrows = [
        (dots[base].x, dots[base].y, dots[model].x, dots[model].y) for model, base in bases.items() if base in dots
    ]
    best = ordered[-1]
    return Chart(
        title=title,
        summary=f"{title}: {len(points)} models; highest {best.model} with {_value(best)}",
        x=x,
        y=y,
        x_label=x_label,
        y_label=y_label,
        dots=tuple(dots.values()),
        arrows=tuple(arrows),
    )


def curves(title: str, histories: Histories, looks: Mapping[str, int]) -> Chart:
    """Training loss over optimiser steps: thin lines for single seeds, a thick one for each model.

    The thick one is the mean over those seeds that came farthest: one that still runs does not cut it short.

    Args:
        title: of the panel.
        histories: one per seed, each with at least one entry.
        looks: model -> number of its look.
    """
    every = [curve for of_model in histories.values() for curve in of_model]
    x = Scale(0, max(curve["step"][-1] for curve in every), LEFT, WIDTH - RIGHT)
    y = Scale(0, max(max(curve["loss"]) for curve in every) * 1.04, HEIGHT - BOTTOM, TOP)
    lines, key = [], []
    for model, of_model in histories.items():
        look, dash = looks[model] % LOOKS, looks[model] // LOOKS
        if len(of_model) > 1:
            lines += [
                _line(x, y, c["step"], c["loss"], look, dash, f"{model}, one seed", thin=True) for c in of_model
            ]
        longest = [curve for curve in of_model if curve["step"][-1] == max(c["step"][-1] for c in of_model)]
        steps, losses = _mean(longest)
        seeds = f", mean of {len(longest)} seeds" if len(longest) > 1 else ""
        lines.append(_line(x, y, steps, losses, look, dash, f"{model}{seeds}"))
        key.append((look, dash, f"{model} {losses[-1]:.2f}"))
    return Chart(
        title=title,
        summary=f"{title}: training loss over optimiser steps; last values: {'; '.join(text for _, _, text in key)}",
        x=x,
        y=y,
        x_label="optimiser step",
        y_label="training loss",
        lines=tuple(sorted(lines, key=lambda line: not line.thin)),
        key=tuple(key),
    )


@dataclass(frozen=True)
class ForestRow:
    """One comparison: its words, and where its mean, interval, seeds and smallest detectable difference stand."""

    label: str
    verdict: str
    y: float
    mean: float
    interval: tuple[float, float] | None
    seeds: tuple[float, ...]
    band: tuple[float, float] | None
    title: str


@dataclass(frozen=True)
class Forest:
    """Differences to baselines, one line each; ``zero`` is where no difference stands."""

    x: Scale
    zero: float
    height: float
    rows: tuple[ForestRow, ...]
    summary: str


def forest(found: Sequence[Comparison]) -> Forest:
    """Differences with their intervals around zero.

    Args:
        found: at least one, of `hafabench.reporting.comparisons.comparisons`.
    """
    values = [0.0]
    for c in found:
        values += [value for value in (*c.paired.differences, c.paired.low, c.paired.high) if value is not None]
    x = Scale(*_padded(values), RIGHT, WIDTH - RIGHT)
    rows = []
    for number, c in enumerate(found):
        low, high, seen = c.paired.low, c.paired.high, c.paired.detectable
        rows.append(
            ForestRow(
                label=f"{c.label} against {c.baseline_label}, {c.header}",
                verdict=c.verdict,
                y=TOP + number * _FOREST_ROW,
                mean=x.at(c.paired.difference),
                interval=(x.at(low), x.at(high)) if low is not None and high is not None else None,
                seeds=tuple(x.at(value) for value in c.paired.differences),
                band=(x.at(max(-seen, x.low)), x.at(min(seen, x.high))) if seen is not None else None,
                title=c.sentence,
            )
        )
    height = TOP + len(found) * _FOREST_ROW + BOTTOM - 6
    return Forest(x, x.at(0), height, tuple(rows), " ".join(c.sentence for c in found))


def _line(
    x: Scale, y: Scale, steps: Sequence[float], losses: Sequence[float], look: int, dash: int, title: str, thin=False
) -> Line:
    # More vertices than pixels only make the file larger: neighbours are averaged.
    size = -(-len(steps) // MOST_VERTICES)
    parts = [slice(first, first + size) for first in range(0, len(steps), size)]
    means = [(steps[part][-1], sum(losses[part]) / len(losses[part])) for part in parts]
    return Line(" ".join(f"{x.at(step):.1f},{y.at(loss):.1f}" for step, loss in means), look, dash, thin, title)


def _mean(histories: Sequence[Mapping[str, list[float]]]) -> tuple[list[float], list[float]]:
    """Mean loss at the steps that all histories have."""
    of_step = [dict(zip(curve["step"], curve["loss"], strict=True)) for curve in histories]
    steps = [step for step in of_step[0] if all(step in losses for losses in of_step)]
    if not steps:
        return list(of_step[0]), list(of_step[0].values())
    return steps, [sum(losses[step] for losses in of_step) / len(of_step) for step in steps]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _value(point: Point) -> str:
    if point.spread is None:
        return f"{point.mean:.1f}"
    return f"{point.mean:.1f} ± {point.spread:.1f} over {point.n} seeds"
