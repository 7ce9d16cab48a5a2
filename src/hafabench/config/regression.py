"""The schema of the regression gate's limits (`configs/regression.yaml`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from hafabench.config.base import StrictModel
from hafabench.config.metrics import METRICS, Direction, unknown_metric
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError

# A text in quotes is not taken for a number.
_Number = Annotated[float, Strict()]
_Integer = Annotated[int, Strict()]


class Tolerance(StrictModel):
    """The largest change that does not matter: the larger of `absolute` and `relative`, or 0 if both are null."""

    absolute: _Number | None = Field(
        None, ge=0, description="Tolerance in the unit of the metric (points of accuracy, parameters)."
    )
    relative: _Number | None = Field(None, ge=0, le=100, description="Tolerance as a share of the baseline's value.")

    def at(self, baseline: float) -> float:
        """Return the tolerance in the metric's unit for a baseline's value."""
        return max(self.absolute or 0.0, (self.relative or 0.0) * abs(baseline))


class MetricLimits(Tolerance):
    """How one metric is judged."""

    better: Direction | None = Field(
        None, description="Which of two values is better. The key is optional, because every metric has a direction."
    )
    elsewhere: Tolerance | None = Field(
        None,
        description="Tolerance if baseline and candidate were made on different machines or with different versions "
        "of torch. It also applies to a latency that other processes disturbed. Null uses the tolerance above.",
    )

    def tolerance(self, baseline: float, *, elsewhere: bool) -> float:
        """Return the largest change that does not matter, in the metric's unit.

        Args:
            baseline: The baseline's value.
            elsewhere: Whether to use the tolerance ``elsewhere`` if there is one.
        """
        return (self.elsewhere if elsewhere and self.elsewhere else self).at(baseline)


class GateLimits(StrictModel):
    """Limits of the regression gate."""

    false_alarms: _Number = Field(
        0.01,
        ge=1e-6,
        lt=0.5,
        description="Probability that any metric of an unchanged candidate is called better or worse. It is divided "
        "equally among the comparisons that have a statistical error.",
    )
    min_seeds: _Integer = Field(
        3,
        ge=2,
        le=1000,
        description="Smallest number of common seeds with which retrained models are compared over seeds. With fewer "
        "seeds they are compared over images.",
    )
    resamples: _Integer = Field(
        500,
        ge=100,
        le=100_000,
        description="Number of resamples of the images, for average precision and mean IoU.",
    )
    disturbed: _Number = Field(
        10.0,
        ge=0,
        le=100,
        description="Largest share of the CPU time, in per cent, that other processes may use during a latency "
        "measurement. Above it, `elsewhere` applies.",
    )
    metrics: dict[str, MetricLimits] = Field(
        min_length=1, description="Limits by metric. Metrics without an entry are not judged."
    )


def load_limits(path: Path) -> GateLimits:
    """Read the limits of the regression gate.

    Raises:
        UserError: With every problem of the file, each with its line.
    """
    source = YamlFile(path)
    limits = source.validate(GateLimits)
    problems = [problem for name, metric in limits.metrics.items() for problem in _problems(source, name, metric)]
    if problems:
        raise UserError(problems)
    return limits


def _problems(source: YamlFile, name: str, limits: MetricLimits) -> Iterator[Problem]:
    metric = METRICS.get(name)
    if metric is None:
        yield source.problem(("metrics", name), unknown_metric(name))
        return
    if metric.better is None:
        yield source.problem(("metrics", name), f"neither higher nor lower values of {name} are better")
    elif limits.better not in (None, metric.better):
        message = f"{metric.better} values of {name} are better, found {limits.better!r}"
        yield source.problem(("metrics", name, "better"), message)
    for at, tolerance in (((), limits), (("elsewhere",), limits.elsewhere)):
        if tolerance is None:
            continue
        # Accuracies are percentages, and what is higher if it is better can only fall to 0.
        if metric.is_percentage and (tolerance.absolute or 0) >= 100:
            message = f"no change of {name} exceeds {tolerance.absolute:g} points; expected less than 100"
            yield source.problem(("metrics", name, *at, "absolute"), message)
        if metric.better == "higher" and (tolerance.relative or 0) >= 1:
            message = f"no loss of {name} exceeds {tolerance.relative:g} times its value; expected less than 1"
            yield source.problem(("metrics", name, *at, "relative"), message)
