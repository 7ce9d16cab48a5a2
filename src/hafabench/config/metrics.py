"""The registry of metrics: every number that a record can contain, registered once.

All other modules take a metric's properties from here: its units in records, imports and the paper, its scale and
decimals in tables, its label in figures, its direction, and its aggregation. A new metric is one entry of
`_REGISTERED`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from hafabench.config.base import shown
from hafabench.config.recipes import TASKS

Verb = Literal["evaluate", "complexity", "latency"]
"""The command that makes a record: the evaluation of a run, the counting of models, or the timing of models."""
Direction = Literal["higher", "lower"]
Aggregation = Literal["mean over seeds", "median over rounds", "exact"]
"""How the value of a model is obtained: from one value per seed, from timed rounds, or from a count without error."""


@dataclass(frozen=True)
class MetricSpec:
    """A registered metric.

    Attributes:
        name: Its name in records.
        verb: The verb that measures it.
        unit: The unit in records; ``1`` for numbers without a unit.
        better: Which of two values is better; None if neither is.
        aggregation: How the value of a model is obtained.
        label: The name on the axis of a figure, with the unit of the tables.
        tasks: The tasks that have it.
        paper_name: The key of its values in ``configs/paper_values.csv``.
        table_unit: The unit of the tables and of the paper.
        factor: The factor from the record's unit to the tables' unit.
        decimals: The digits after the decimal point in tables.
        is_main: Whether figures show it and imports choose the best epoch by it; one metric per task.
        import_units: The units that an imported number may have, each with its factor to the record's unit. Empty for
            metrics that cannot be imported.
        largest: The largest value that a record may contain. For numbers that are no percentages it is far beyond
            what any model has, so a larger number was damaged or has another unit.
        can_be_zero: Whether 0 is a possible value.
    """

    name: str
    verb: Verb
    unit: str
    better: Direction | None
    aggregation: Aggregation
    label: str
    tasks: tuple[str, ...]
    paper_name: str
    table_unit: str
    factor: float = 1.0
    decimals: int = 1
    is_main: bool = False
    import_units: Mapping[str, float] = field(default_factory=dict)
    largest: float = 100.0
    can_be_zero: bool = True

    @property
    def sign(self) -> int:
        """1 if higher values are better, -1 if lower ones are, 0 if neither are."""
        return {"higher": 1, "lower": -1, None: 0}[self.better]

    @property
    def is_percentage(self) -> bool:
        """Whether its values are between 0 and 100 %."""
        return self.unit == "%"

    def range_problem(self, value: float) -> str:
        """Return what is wrong with a value in the record's unit, as a clause; empty if it is in its range."""
        if not math.isfinite(value):
            return f"is {value}, expected a finite number"
        if 0 <= value <= self.largest and (value or self.can_be_zero):
            return ""
        unit = "" if self.unit == "1" else f" {self.unit}"
        limits = f"0 to {self.largest:g}" if self.can_be_zero else f"more than 0 and at most {self.largest:g}"
        return f"is {value:g}{unit}, expected {limits}{unit}"


def _percentage(
    name: str, label: str, task: str, *, is_main: bool = False, can_be_imported: bool = True
) -> MetricSpec:
    return MetricSpec(
        name,
        verb="evaluate",
        unit="%",
        better="higher",
        aggregation="mean over seeds",
        label=label,
        tasks=(task,),
        paper_name=name,
        table_unit="%",
        is_main=is_main,
        import_units={"%": 1.0, "fraction": 100.0} if can_be_imported else {},
    )


def _average_precision(kind: str, *, is_main: bool = False) -> list[MetricSpec]:
    sizes = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_s": "APs", "ap_m": "APm", "ap_l": "APl"}
    return [
        _percentage(f"{kind}_{size}", f"{kind} {label}", "detection", is_main=is_main and size == "ap")
        for size, label in sizes.items()
    ]


def _parameters(name: str, label: str, *, can_be_imported: bool = True) -> MetricSpec:
    return MetricSpec(
        name,
        verb="complexity",
        unit="1",
        better="lower",
        aggregation="exact",
        label=label,
        tasks=TASKS,
        paper_name="params_m",
        table_unit="M",
        factor=1e-6,
        import_units={"1": 1.0, "M": 1e6} if can_be_imported else {},
        largest=1e13,
        can_be_zero=name == "params_trainable",
    )


def _timing(name: str, label: str, unit: str, better: Direction) -> MetricSpec:
    return MetricSpec(
        name,
        verb="latency",
        unit=unit,
        better=better,
        aggregation="median over rounds",
        label=label,
        tasks=("classification",),
        paper_name=name,
        table_unit=unit,
        largest=1e9,
        can_be_zero=False,
    )


_REGISTERED = (
    _percentage("top1", "top-1 (%)", "classification", is_main=True),
    _percentage("top5", "top-5 (%)", "classification"),
    _percentage("top1_ema", "top-1 of averaged weights (%)", "classification", can_be_imported=False),
    _percentage("top5_ema", "top-5 of averaged weights (%)", "classification", can_be_imported=False),
    _percentage("miou", "mIoU (%)", "segmentation", is_main=True),
    _percentage("pixel_acc", "pixel accuracy (%)", "segmentation"),
    _percentage("mean_acc", "mean accuracy (%)", "segmentation"),
    *_average_precision("box", is_main=True),
    *_average_precision("mask"),
    _parameters("params", "parameters (M)"),
    _parameters("params_trainable", "trainable parameters (M)"),
    _parameters("params_with_dead_weights", "parameters with dead weights (M)", can_be_imported=False),
    MetricSpec(
        "gmacs",
        verb="complexity",
        unit="GMAC",
        better="lower",
        aggregation="exact",
        label="GMACs",
        tasks=TASKS,
        paper_name="gflops",  # The paper counts multiply-accumulates and calls them FLOPs.
        table_unit="G",
        import_units={"GMAC": 1.0, "MAC": 1e-9},
        largest=1e9,
        can_be_zero=False,
    ),
    _timing("latency_ms", "latency (ms)", "ms", "lower"),
    _timing("latency_ratio", "latency relative to the baseline", "1", "lower"),
    _timing("images_per_s", "images/s", "images/s", "higher"),
    _timing("throughput_ratio", "throughput relative to the baseline", "1", "higher"),
)
METRICS: dict[str, MetricSpec] = {metric.name: metric for metric in _REGISTERED}
"""Every metric by its name in records."""


def importable_metrics(task: str) -> dict[str, MetricSpec]:
    """Return the metrics of a task that may be imported, by name."""
    return {name: metric for name, metric in METRICS.items() if task in metric.tasks and metric.import_units}


def main_metric(task: str) -> MetricSpec:
    """Return the metric that figures show for a task, and by which imports choose the best epoch."""
    return next(metric for metric in METRICS.values() if metric.is_main and task in metric.tasks)


def metric_of_paper(paper_name: str) -> MetricSpec | None:
    """Return the first metric that the paper's values call ``paper_name``."""
    return next((metric for metric in METRICS.values() if metric.paper_name == paper_name), None)


def unknown_metric(name: str, known: Iterable[str] = METRICS, *, task: str | None = None) -> str:
    """Return the message for a name that is not one of ``known`` (of ``task``), with the nearest names."""
    known = list(known)
    near = get_close_matches(name, known, n=2)
    owner = f" of {task}" if task else ""
    return f"unknown metric {shown(name)}{owner}; expected {' or '.join(near) or 'one of ' + ', '.join(known)}"
