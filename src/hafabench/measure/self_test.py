"""The self-test of the latency measurement: a model timed against itself has to show no difference (A/A)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scipy import stats

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import LatencyConfig
from hafabench.measure.latency import latency_timer
from hafabench.stats.intervals import Interval

REQUIRED_RATE = 0.95


@dataclass(frozen=True)
class SelfTest:
    """The result of a number of A/A trials.

    Attributes:
        intervals: The interval of the ratio of two copies of one model, for each trial.
    """

    intervals: tuple[Interval, ...]

    @property
    def agreed(self) -> int:
        """Number of trials whose interval contains the true ratio 1, or which have no interval."""
        return sum(not interval.excludes(1.0) for interval in self.intervals)

    @property
    def rate(self) -> float:
        """Share of the trials that agreed."""
        return self.agreed / len(self.intervals)

    @property
    def passed(self) -> bool:
        """Whether enough trials agreed."""
        return self.rate >= REQUIRED_RATE

    def __str__(self) -> str:
        bounds = stats.binomtest(self.agreed, len(self.intervals)).proportion_ci(0.95)
        widths = sorted(100 * interval.half_width for interval in self.intervals if interval.is_bounded)
        typical = f", ratios known to {widths[len(widths) // 2]:.1f} % (median)" if widths else ""
        return (
            f"A/A: no difference in {self.agreed} of {len(self.intervals)} trials, {100 * self.rate:.0f} % "
            f"(95 % interval {100 * bounds.low:.0f} to {100 * bounds.high:.0f} %){typical}"
        )


def trials(group: LatencyConfig, spec: ModelSpec, number: int, device: str | None = None) -> Iterator[Interval]:
    """Measure the ratio of two copies of a model several times.

    Args:
        group: Gives the protocol and the image size.
        spec: The model.
        number: Number of trials.
        device: Name of torch's device; None uses the first GPU, or the CPU if there is none.

    Yields:
        The interval of the ratio, for each trial.
    """
    with latency_timer(group, device) as timer:
        for trial in range(number):
            times = timer.time_models({"a": spec, "b": spec}, "a", group.batch_size, seed=trial, quiet=True)
            yield times.ratio("b")
