"""Latency of several models side by side: one process, interleaved round robin, paired with a baseline.

The machine's speed drifts (clock, neighbours, heat). Rounds in which every model runs once, in an order drawn afresh,
let the drift fall on all of them alike, and the ratio to the baseline is taken round by round. The protocol and its
limits: docs/measurement.md.
"""

from __future__ import annotations

import gc
import math
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hafabench.catalog import ModelSpec
from hafabench.config import LatencyConfig, unknown_model
from hafabench.errors import UserError
from hafabench.measure.complexity import count_model
from hafabench.results.record import Metric

# Weights, input and the order within rounds follow from this seed.
SEED = 0
NUM_CLASSES = 1000
SECONDS_BETWEEN_REPORTS = 5.0


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in their unit."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of the values, quartiles interpolated linearly between order statistics."""
        low, median, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(median, low, high, len(values))


def _nothing_to_wait_for() -> None:
    """The CPU has done its work when a call returns."""


def measure(group: LatencyConfig, models: Mapping[str, ModelSpec], device: str | None = None) -> list[Metric]:
    """Time the models of a group against their baseline.

    A repeat is one forward pass of one batch in inference mode and float32, with freshly initialised weights (see
    `_perturb_offsets` for the one exception) and an input of normal noise.

    Args:
        group: what is timed, and how.
        models: specifications by name; more than the group's are ignored.
        device: torch's name of it; None takes the first GPU, or the CPU where there is none.

    Returns:
        Per model, the baseline first: ``latency_ms`` (ms per batch), and but for the baseline ``latency_ratio`` (unit
        1), the median of the ratios to the baseline round by round. Both carry their quartiles.

    Raises:
        UserError: for names that are unknown or not built yet, an image size that a model cannot take, or a batch
            that does not fit into the GPU's memory.
    """
    specs = _specs(group, models)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    synchronize = partial(torch.cuda.synchronize, place) if place.type == "cuda" else _nothing_to_wait_for
    progress = _Progress(group.name, group.warmup + group.repeats)
    try:
        subjects = {spec.name: _subject(spec, group, place) for spec in specs}
        with _cpu_threads(group.threads) as threads, _no_garbage_collection(), torch.inference_mode():
            seconds = time_interleaved(
                subjects, group.warmup, group.repeats, synchronize=synchronize, on_round=progress
            )
    except torch.OutOfMemoryError:
        message = f"{len(specs)} models at batch size {group.batch_size} do not fit into the memory of {place}"
        raise UserError(f"latency group {group.name!r}: {message}; lower batch_size or split the group") from None
    size = f"{group.image_size}x{group.image_size}"
    convention = (
        f"one forward pass of a batch of {group.batch_size} at {size}, float32, inference mode, random weights and "
        f"input (seed {SEED}), {group.repeats} interleaved rounds after {group.warmup} of warm-up; "
        f"{device_name(place)}, CPU threads {threads}"
    )
    return _metrics(seconds, group.baseline, convention)


def time_interleaved(
    subjects: Mapping[str, Callable[[], object]],
    warmup: int,
    repeats: int,
    *,
    seed: int = SEED,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], None] = _nothing_to_wait_for,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Call every subject once a round, in an order drawn afresh for each round.

    Args:
        subjects: what is timed, by name.
        warmup, repeats: rounds discarded and rounds kept.
        seed: of the orders.
        clock: gives seconds.
        synchronize: waits until the device is idle; called before each reading of the clock.
        on_round: told the number of rounds done, outside of what is timed.

    Returns:
        ``repeats`` seconds per subject; equal positions come from the same round.
    """
    draw = random.Random(seed)
    order = list(subjects)
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for done in range(warmup + repeats):
        draw.shuffle(order)
        for name in order:
            synchronize()
            start = clock()
            subjects[name]()
            synchronize()
            elapsed = clock() - start
            if done >= warmup:
                seconds[name].append(elapsed)
        on_round(done + 1)
    return seconds


def paired_ratio(seconds: list[float], baseline: list[float]) -> Spread:
    """Spread of the ratios to the baseline, taken round by round."""
    return Spread.of([own / base for own, base in zip(seconds, baseline, strict=True)])


def device_name(place: torch.device) -> str:
    """What a device is, for people: the GPU's or the CPU's model name."""
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({names[0] if names else platform.processor() or platform.machine()})"


def _specs(group: LatencyConfig, models: Mapping[str, ModelSpec]) -> list[ModelSpec]:
    names = list(dict.fromkeys([group.baseline, *group.models]))
    problems = [unknown_model(name, dict(models)) for name in names if name not in models]
    specs = [models[name] for name in names if name in models]
    problems += [f"model {s.name!r} is listed in the tables but not built yet" for s in specs if not s.available]
    if problems:
        raise UserError([f"latency group {group.name!r}: {problem}" for problem in problems])
    for spec in specs:
        # A forward pass without weights or data: refuses an image size before anything is allocated and timed.
        count_model(spec, "classification", (group.image_size, group.image_size), NUM_CLASSES)
    return specs


def _subject(spec: ModelSpec, group: LatencyConfig, place: torch.device) -> Callable[[], object]:
    from hafabench.models import create

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        image = torch.randn(group.batch_size, 3, group.image_size, group.image_size)
        model = create(spec, num_classes=NUM_CLASSES).eval()
        _perturb_offsets(model)
    return partial(model.to(place), image.to(place))


def _perturb_offsets(model: nn.Module) -> None:
    """Let LAA sample off the grid, as it does after training.

    Its offsets start at zero, where sampling reads memory in the best of all orders. Weights of variance 1 / fan-in
    move the points by about the magnitude of the features: around a pixel.
    """
    from hafabench.models.hafa.laa import OffsetConv

    for module in model.modules():
        if isinstance(module, OffsetConv):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=1 / math.sqrt(fan_in))


def _metrics(seconds: Mapping[str, list[float]], baseline: str, convention: str) -> list[Metric]:
    found = []
    for name, own in seconds.items():
        found.append(_metric(name, "latency_ms", "ms", Spread.of([1e3 * s for s in own]), convention))
        if name != baseline:
            ratio = paired_ratio(own, seconds[baseline])
            against = f"{convention}; ratio to {baseline} round by round"
            found.append(_metric(name, "latency_ratio", "1", ratio, against))
    return found


def _metric(model: str, name: str, unit: str, spread: Spread, convention: str) -> Metric:
    return Metric(
        task="classification",
        model=model,
        name=name,
        value=spread.median,
        unit=unit,
        low=spread.low,
        high=spread.high,
        repeats=spread.repeats,
        convention=convention,
    )


class _Progress:
    """Lines on standard error: rounds done and time left, at most one every few seconds."""

    def __init__(self, label: str, total: int):
        self._label, self._total = label, total
        self._start: float | None = None
        self._shown = 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self._start is None:
            # The first round pays for lazy initialisation and would spoil the estimate.
            self._start = self._shown = now
        elif now - self._shown >= SECONDS_BETWEEN_REPORTS or done == self._total:
            self._shown = now
            left = (self._total - done) * (now - self._start) / (done - 1)
            line = f"latency/{self._label} round {done}/{self._total} left {left:.0f} s"
            print(line, file=sys.stderr, flush=True)


@contextmanager
def _cpu_threads(number: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect now, and not while the clock runs."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
