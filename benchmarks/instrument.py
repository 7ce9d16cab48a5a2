"""A/A trials: timing a model against itself must show no difference."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.rows import Row
from benchmarks.timing import THREADS
from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import LatencyConfig
from hafabench.measure.self_test import REQUIRED_RATE, SelfTest, trials


def instrument(quick: bool) -> Iterator[Row]:
    """Run A/A trials of the latency protocol."""
    number = 10 if quick else 100
    group = LatencyConfig(
        name="aa", baseline="pvt_tiny", models=["pvt_tiny"], image_size=64, warmup=3, repeats=64, threads=THREADS
    )
    test = SelfTest(tuple(trials(group, CATALOG["pvt_tiny"], number, "cpu")))
    what = f"A/A: share of {number} trials without a difference"
    yield Row("instrument", what, 100 * test.rate, at_least=100 * REQUIRED_RATE, unit="%", note=str(test))
