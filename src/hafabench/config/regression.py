"""What counts as a regression: `configs/regression.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.yaml_file import YamlFile


class Tolerance(StrictModel):
    """The largest change that does not matter; of both, the larger one holds, and without any, nothing is tolerated.

    Attributes:
        absolute: in the metric's unit (points of accuracy, a ratio's 1, parameters).
        relative: part of the baseline's value.
    """

    absolute: float | None = Field(None, ge=0)
    relative: float | None = Field(None, ge=0)

    def at(self, baseline: float) -> float:
        """In the metric's unit, for a baseline's value."""
        return max(self.absolute or 0.0, (self.relative or 0.0) * abs(baseline))


class MetricLimits(Tolerance):
    """Of one metric.

    Attributes:
        better: which way.
        elsewhere: takes the place of the tolerance where the two sides were made on different machines or versions of
            torch: short trainings and ratios of latencies differ there without any change to the code. For a latency
            also where one of the sides was timed beside other work, which slows some models more than others.
    """

    better: Literal["higher", "lower"]
    elsewhere: Tolerance | None = None

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.better == "higher" else -1

    def tolerance(self, baseline: float, *, elsewhere: bool) -> float:
        """The largest change that does not matter, in the metric's unit."""
        return (self.elsewhere if elsewhere and self.elsewhere else self).at(baseline)


class GateLimits(StrictModel):
    """The file.

    Attributes:
        false_alarms: probability that a candidate without any change is called worse, or better, somewhere; shared
            out equally among the comparisons that have an error.
        min_seeds: from this number of common seeds on, retrained models are compared over seeds.
        resamples: of the images, for average precision and mean IoU.
        disturbed: per cent of all CPU time that may go to others while something is timed.
        metrics: what is judged; a metric that is not here is not.
    """

    false_alarms: float = Field(0.01, gt=0, lt=0.5)
    min_seeds: int = Field(3, ge=2)
    resamples: int = Field(500, ge=100)
    disturbed: float = Field(10.0, ge=0, le=100)
    metrics: dict[str, MetricLimits] = Field(min_length=1)


def load_limits(path: Path) -> GateLimits:
    """Read the file; raises `UserError` with every problem and its line."""
    return YamlFile(path).validate(GateLimits)
