"""The instrument measures itself: a model against itself has to come out as no difference (A/A)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scipy import stats

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import LatencyConfig
from hafabench.measure.latency import timing
from hafabench.stats.intervals import Interval

WANTED = 0.95


@dataclass(frozen=True)
class SelfTest:
    """What came of a number of A/A trials.

    Attributes:
        intervals: of the ratio of two copies of one model, one per trial.
    """

    intervals: tuple[Interval, ...]

    @property
    def agreed(self) -> int:
        """Trials whose interval holds 1: no difference, as is the truth. One without an interval claims nothing."""
        return sum(not interval.excludes(1.0) for interval in self.intervals)

    @property
    def rate(self) -> float:
        """Share of the trials that agreed."""
        return self.agreed / len(self.intervals)

    @property
    def passed(self) -> bool:
        """Whether it is what is wanted of the instrument, 95 %."""
        return self.rate >= WANTED

    def __str__(self) -> str:
        bounds = stats.binomtest(self.agreed, len(self.intervals)).proportion_ci(0.95)
        widths = sorted(100 * interval.half_width for interval in self.intervals if interval.is_bounded)
        typical = f", ratios known to {widths[len(widths) // 2]:.1f} % (median)" if widths else ""
        return (
            f"A/A: no difference in {self.agreed} of {len(self.intervals)} trials, {100 * self.rate:.0f} % "
            f"(95 % interval {100 * bounds.low:.0f} to {100 * bounds.high:.0f} %){typical}"
        )


def trials(group: LatencyConfig, spec: ModelSpec, number: int, device: str | None = None) -> Iterator[Interval]:
    """The interval of the ratio of two copies of ``spec``, measured ``number`` times under the group's protocol."""
    with timing(group, device) as clock:
        for trial in range(number):
            found = clock.compare({"a": spec, "b": spec}, "a", group.batch_size, seed=trial, quiet=True)
            yield found.ratio("b")
