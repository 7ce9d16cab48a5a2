"""The schema of the regression gate's limits (`configs/regression.yaml`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.metrics import METRICS, Direction, unknown_metric
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import UserError


class Tolerance(StrictModel):
    """The largest change that does not matter: the larger of `absolute` and `relative`, or 0 if both are null."""

    absolute: float | None = Field(
        None, ge=0, description="Tolerance in the unit of the metric (points of accuracy, parameters)."
    )
    relative: float | None = Field(None, ge=0, description="Tolerance as a share of the baseline's value.")

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

    false_alarms: float = Field(
        0.01,
        gt=0,
        lt=0.5,
        description="Probability that any metric of an unchanged candidate is called better or worse. It is divided "
        "equally among the metrics that have a statistical error.",
    )
    min_seeds: int = Field(
        3,
        ge=2,
        description="Smallest number of common seeds with which retrained models are compared over seeds. With fewer "
        "seeds they are compared over images.",
    )
    resamples: int = Field(
        500, ge=100, description="Number of resamples of the images, for average precision and mean IoU."
    )
    disturbed: float = Field(
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
    problems = []
    for name, metric in limits.metrics.items():
        if name not in METRICS:
            problems.append(source.problem(("metrics", name), unknown_metric(name)))
        elif METRICS[name].better is None:
            problems.append(
                source.problem(("metrics", name), f"neither higher nor lower values of {name} are better")
            )
        elif metric.better not in (None, METRICS[name].better):
            message = f"{METRICS[name].better} values of {name} are better, found {metric.better!r}"
            problems.append(source.problem(("metrics", name, "better"), message))
    if problems:
        raise UserError(problems)
    return limits
