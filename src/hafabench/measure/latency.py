"""Latency and throughput of several models side by side, relative to a baseline.

`hafabench.measure.timing` does the timing; this module contributes models, inputs, metrics and warnings.
docs/measurement.md describes the protocol and its limits.
"""

from __future__ import annotations

import copy
import gc
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import Experiment, LatencyConfig, unknown_model
from hafabench.config.metrics import METRICS
from hafabench.errors import UserError
from hafabench.formatting.names import join_names
from hafabench.measure.complexity import count_model
from hafabench.measure.timing import SEED, Functions, InterleavedTimes, Protocol, time_against_baseline
from hafabench.results.machine import MachineWatch, cpu_name
from hafabench.results.provenance import Stopwatch, device_fields
from hafabench.results.record import Machine, Metric, Record, write_record
from hafabench.runs.fingerprints import latency_fingerprint
from hafabench.runs.paths import latency_record
from hafabench.stats.intervals import Interval

NUM_CLASSES = 1000
SECONDS_BETWEEN_REPORTS = 5.0
# If the group does not set an interval, a ratio whose interval has a larger relative half width causes a warning.
TOO_WIDE = 0.05


@dataclass(frozen=True)
class Measurement:
    """The result of a latency group.

    Attributes:
        metrics: Metrics per model, the baseline first.
        machine: The state of the machine during the measurement.
        warnings: Sentences about numbers that are less certain than configured.
    """

    metrics: list[Metric]
    machine: Machine
    warnings: list[str]


def measure(group: LatencyConfig, models: Mapping[str, ModelSpec], device: str | None = None) -> Measurement:
    """Time the models of a group against their baseline.

    Every time is that of one forward pass of one batch in inference mode and float32, with random weights (see
    `_perturb_offsets` for an exception) and normal noise as input.

    Args:
        group: The models and the protocol.
        models: Specifications by name; those that the group does not name are ignored.
        device: Name of torch's device; None uses the first GPU, or the CPU if there is none.

    Returns:
        Metrics per model, the baseline first: ``latency_ms`` (ms per batch), and for all but the baseline
        ``latency_ratio`` (unit 1), the median of the ratios to the baseline in every round. With ``throughput_batch``
        also ``images_per_s`` and ``throughput_ratio``. All have quartiles and the interval of the median.

    Raises:
        UserError: If names are unknown, a model does not accept the image size, or a batch does not fit into the
            memory of the GPU.
    """
    specs = _specs(group, models)
    by_name = {spec.name: spec for spec in specs}
    watch = MachineWatch()
    metrics: list[Metric] = []
    warnings: list[str] = []
    with latency_timer(group, device) as timer:
        for batch_size in filter(None, (group.batch_size, group.throughput_batch)):
            metrics_of = _throughput_metrics if batch_size == group.throughput_batch else _latency_metrics
            times = timer.time_models(by_name, group.baseline, batch_size)
            metrics += metrics_of(times, timer.convention(times, batch_size), batch_size)
            warnings += _warnings(group, times, batch_size)
    machine = watch.state()
    if warnings:
        warnings.append(_describe(machine))
    return Measurement(metrics, machine, warnings)


@contextmanager
def latency_timer(group: LatencyConfig, device: str | None = None) -> Iterator[LatencyTimer]:
    """Make a `LatencyTimer`; in this context the group's threads are set and no garbage is collected.

    Args:
        group: Gives the protocol, the image size and the number of threads.
        device: Name of torch's device; None uses the first GPU, or the CPU if there is none.
    """
    torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with _cpu_threads(group.threads) as threads, _no_garbage_collection(), torch.inference_mode():
        yield LatencyTimer(group, torch_device, threads)


class LatencyTimer:
    """Times models with the protocol of a group on one device; `latency_timer` makes it."""

    def __init__(self, group: LatencyConfig, device: torch.device, threads: int):
        self._group, self._device, self._threads = group, device, threads
        self._protocol = Protocol(group.warmup, group.repeats, group.interval)

    def time_models(
        self, specs: Mapping[str, ModelSpec], baseline: str, batch_size: int, *, seed: int = SEED, quiet: bool = False
    ) -> InterleavedTimes:
        """Time models in float32 at the group's image size.

        Args:
            specs: The models by name.
            baseline: Name of the model to which the ratios refer.
            batch_size: Images per batch.
            seed: Seed of the orders within rounds.
            quiet: Whether progress messages are suppressed.

        Raises:
            UserError: If the models or the batch do not fit into the memory of the device.
        """
        on_gpu = self._device.type == "cuda"
        synchronize = partial(torch.cuda.synchronize, self._device) if on_gpu else (lambda: None)
        report = (lambda so_far: None) if quiet else _Progress(self._group.name, self._protocol)
        try:
            models = {name: _model(spec).to(self._device) for name, spec in specs.items()}
            image = _image(batch_size, self._group.image_size).to(self._device)
            renew = _Copies(models, image, random.Random(seed))
            return time_against_baseline(
                renew, baseline, self._protocol, seed=seed, synchronize=synchronize, on_round=report
            )
        except torch.OutOfMemoryError:
            message = f"{len(specs)} models at batch size {batch_size} do not fit into the memory of {self._device}"
            raise UserError(
                f"latency group {self._group.name!r}: {message}; lower the batch size or split the group"
            ) from None

    def convention(self, times: InterleavedTimes, batch_size: int) -> str:
        """Describe how times were measured."""
        size = f"{self._group.image_size}x{self._group.image_size}"
        return (
            f"one forward pass of a batch of {batch_size} at {size}, float32, inference mode, random weights and "
            f"input (seed {SEED}), {times.rounds} interleaved rounds after {times.warmup} of warm-up; "
            f"{device_name(self._device)}, CPU threads {self._threads}"
        )


class _Copies:
    """Returns copies of the models and their input at new places in memory, every time it is called."""

    def __init__(self, models: Mapping[str, nn.Module], image: torch.Tensor, draw: random.Random):
        self._models, self._image, self._draw = models, image, draw
        self._current: dict[str, Callable[[], object]] = {}

    def __call__(self) -> Functions:
        # The last copies are freed first. Spacers keep the allocator from using the same places again.
        self._current = {}
        spacers = []
        for name, model in self._models.items():
            spacers.append(torch.empty(self._draw.randrange(1 << 20), dtype=torch.uint8, device=self._image.device))
            self._current[name] = partial(copy.deepcopy(model), self._image.clone())
        return self._current


def device_name(device: torch.device) -> str:
    """Return the model name of a GPU, or of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({cpu_name()})"


def _specs(group: LatencyConfig, models: Mapping[str, ModelSpec]) -> list[ModelSpec]:
    names = list(dict.fromkeys([group.baseline, *group.models]))
    problems = [unknown_model(name, dict(models)) for name in names if name not in models]
    specs = [models[name] for name in names if name in models]
    if problems:
        raise UserError([f"latency group {group.name!r}: {problem}" for problem in problems])
    for spec in specs:
        # A forward pass on the meta device rejects an image size before anything is allocated or timed.
        count_model(spec, "classification", (group.image_size, group.image_size), NUM_CLASSES)
    return specs


def _model(spec: ModelSpec) -> nn.Module:
    from hafabench.models import create
    from hafabench.models.checkpoints.storage import infinite_names

    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = create(spec, num_classes=NUM_CLASSES).eval()
        _perturb_offsets(model)
    infinite = infinite_names(model)
    if infinite:
        # Some processors compute with such numbers at another speed.
        raise UserError(f"{spec.name}: some initial weights or buffers are not finite: {join_names(infinite)}")
    return model


def _image(batch_size: int, size: int) -> torch.Tensor:
    """Return normal noise (B, 3, size, size)."""
    return torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(SEED))


def _perturb_offsets(model: nn.Module) -> None:
    """Make LAA sample off the grid, as it does after training.

    Its offsets are initially zero, and then sampling reads memory in the fastest order. Weights of variance 1 /
    fan-in move the points by about the magnitude of the features, which is around a pixel.
    """
    from hafabench.models.hafa.laa import OffsetConv

    for module in model.modules():
        if isinstance(module, OffsetConv):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=1 / math.sqrt(fan_in))


def _latency_metrics(times: InterleavedTimes, convention: str, _batch_size: int) -> list[Metric]:
    metrics = []
    for name, seconds in times.seconds.items():
        milliseconds = [1e3 * value for value in seconds]
        metrics.append(_metric(name, "latency_ms", times.median_time(name), 1e3, milliseconds, convention))
        if name != times.baseline:
            against = f"{convention}; ratio to {times.baseline} round by round"
            metrics.append(_metric(name, "latency_ratio", times.ratio(name), 1, times.ratios(name), against))
    return metrics


def _throughput_metrics(times: InterleavedTimes, convention: str, batch_size: int) -> list[Metric]:
    metrics = []
    for name, seconds in times.seconds.items():
        rates = [batch_size / value for value in seconds]
        metrics.append(
            _metric(name, "images_per_s", _inverse(times.median_time(name)), batch_size, rates, convention)
        )
        if name != times.baseline:
            against = f"{convention}; ratio to {times.baseline} round by round"
            ratios = [1 / value for value in times.ratios(name)]
            metrics.append(_metric(name, "throughput_ratio", _inverse(times.ratio(name)), 1, ratios, against))
    return metrics


def _inverse(interval: Interval) -> Interval:
    return Interval(1 / interval.value, 1 / interval.high, 1 / interval.low, interval.confidence)


def _metric(model: str, name: str, median: Interval, factor: float, values: list[float], convention: str) -> Metric:
    low, high = (float(value) for value in np.quantile(values, (0.25, 0.75)))
    return Metric(
        task="classification",
        model=model,
        name=name,
        value=factor * median.value,
        unit=METRICS[name].unit,
        low=low,
        high=high,
        repeats=len(values),
        convention=convention,
        interval=(factor * median.low, factor * median.high) if median.is_bounded else None,
        confidence=median.confidence if median.is_bounded else None,
    )


def _warnings(group: LatencyConfig, times: InterleavedTimes, batch_size: int) -> list[str]:
    at = f"latency group {group.name!r}, batch {batch_size}"
    warnings = []
    if not times.steady:
        warnings.append(f"{at}: the speed was not steady after {times.warmup} rounds of warm-up")
    wanted = group.interval or TOO_WIDE
    for name in times.seconds:
        ratio = times.ratio(name)
        if name == times.baseline or (ratio.is_bounded and ratio.half_width <= wanted):
            continue
        known = f"known to {100 * ratio.half_width:.1f} %" if ratio.is_bounded else "without an interval"
        warnings.append(
            f"{at}: too noisy: the ratio of {name} to {times.baseline} is {known} after {times.rounds} "
            f"rounds instead of the configured {100 * wanted:.1f} %"
        )
    return warnings


def _describe(machine: Machine) -> str:
    facts = [f"load {machine.load[0]} to {machine.load[1]} on {machine.cores} cores"] if machine.load else []
    if machine.busy_percent is not None:
        facts.append(
            f"CPUs {machine.busy_percent} % busy, {machine.others_percent} % with other processes, "
            f"{machine.steal_percent} % taken by the hypervisor"
        )
    facts.append(f"preempted {machine.preemptions} times")
    return "the machine during the measurement: " + "; ".join(facts)


class _Progress:
    """Prints the number of rounds and the precision of the ratios, at most once every few seconds."""

    def __init__(self, label: str, protocol: Protocol):
        self._label, self._protocol = label, protocol
        self._shown = time.monotonic()

    def __call__(self, so_far: InterleavedTimes) -> None:
        now, most = time.monotonic(), self._protocol.repeats
        if now - self._shown < SECONDS_BETWEEN_REPORTS and so_far.rounds < most:
            return
        self._shown = now
        known = f"known to {100 * so_far.half_width:.1f} %" if math.isfinite(so_far.half_width) else "no interval yet"
        wanted = f" (configured {100 * self._protocol.interval:g} %)" if self._protocol.interval else ""
        line = f"latency/{self._label} round {so_far.rounds} of at most {most}, ratios {known}{wanted}"
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
    """Collect garbage now, and none in this context."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def record_latency(experiment: Experiment, group: LatencyConfig) -> Record:
    """Time the models of a group and write the record."""
    watch = Stopwatch(experiment)
    models = {name: experiment.models[name] for name in [group.baseline, *group.models]}
    measured = measure(group, models)
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        verb="latency",
        id=f"latency/{group.name}",
        fingerprint=latency_fingerprint(experiment, group),
        metrics=measured.metrics,
        provenance=watch.provenance(**{**device_fields(), **({"threads": group.threads} if group.threads else {})}),
        machine=measured.machine,
        warnings=measured.warnings,
    )
    write_record(latency_record(experiment, group.name), record)
    return record
