"""Latency and throughput of several models side by side, paired with a baseline.

The clock's side of it is `hafabench.measure.instrument`; here are models, inputs, metrics and what the reader has to
be warned of. The protocol and its limits: docs/measurement.md.
"""

from __future__ import annotations

import copy
import gc
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping
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
from hafabench.measure.complexity import count_model
from hafabench.measure.instrument import SEED, Comparison, Protocol, Subjects, compare
from hafabench.results.machine import MachineWatch, cpu_name
from hafabench.results.provenance import Stopwatch, device_facts
from hafabench.results.record import Machine, Metric, Record, write_record
from hafabench.runs.fingerprints import latency_fingerprint
from hafabench.runs.paths import latency_record
from hafabench.stats.intervals import Interval

NUM_CLASSES = 1000
SECONDS_BETWEEN_REPORTS = 5.0
# Without a wanted interval, one that is wider than this says too little about a ratio to be left without a warning.
TOO_WIDE = 0.05


@dataclass(frozen=True)
class Measurement:
    """What a latency group came to.

    Attributes:
        metrics: per model, the baseline first.
        machine: its state meanwhile.
        warnings: sentences, where the numbers say less than was asked for.
    """

    metrics: list[Metric]
    machine: Machine
    warnings: list[str]


def measure(group: LatencyConfig, models: Mapping[str, ModelSpec], device: str | None = None) -> Measurement:
    """Time the models of a group against their baseline.

    A reading is one forward pass of one batch in inference mode and float32, with freshly initialised weights (see
    `_perturb_offsets` for the one exception) and an input of normal noise.

    Args:
        group: what is timed, and how.
        models: specifications by name; more than the group's are ignored.
        device: torch's name of it; None takes the first GPU, or the CPU where there is none.

    Returns:
        Metrics per model, the baseline first: ``latency_ms`` (ms per batch), and but for the baseline
        ``latency_ratio`` (unit 1), the median of the ratios to the baseline round by round. With ``throughput_batch``
        also ``images_per_s`` and ``throughput_ratio``. All carry quartiles and the interval of the median.

    Raises:
        UserError: for unknown names, an image size that a model cannot take, or a batch
            that does not fit into the GPU's memory.
    """
    specs = _specs(group, models)
    subjects = {spec.name: spec for spec in specs}
    watch = MachineWatch()
    metrics, warnings = [], []
    with timing(group, device) as clock:
        for batch_size in filter(None, (group.batch_size, group.throughput_batch)):
            metrics_of = _throughput_metrics if batch_size == group.throughput_batch else _latency_metrics
            found = clock.compare(subjects, group.baseline, batch_size)
            metrics += metrics_of(found, clock.convention(found, batch_size), batch_size)
            warnings += _warnings(group, found, batch_size)
    machine = watch.state()
    if warnings:
        warnings.append(_about(machine))
    return Measurement(metrics, machine, warnings)


@contextmanager
def timing(group: LatencyConfig, device: str | None = None) -> Iterator[Clock]:
    """A `Clock` under the group's protocol: its threads set, no gradients, no garbage collection meanwhile."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with _cpu_threads(group.threads) as threads, _no_garbage_collection(), torch.inference_mode():
        yield Clock(group, place, threads)


class Clock:
    """Compares models under one group's protocol on one device; made by `timing`."""

    def __init__(self, group: LatencyConfig, place: torch.device, threads: int):
        self._group, self._place, self._threads = group, place, threads
        self._protocol = Protocol(group.warmup, group.repeats, group.interval)

    def compare(
        self, specs: Mapping[str, ModelSpec], baseline: str, batch_size: int, *, seed: int = SEED, quiet: bool = False
    ) -> Comparison:
        """Time models by name, in float32, at the group's image size."""
        synchronize = partial(torch.cuda.synchronize, self._place) if self._place.type == "cuda" else (lambda: None)
        report = (lambda so_far: None) if quiet else _Progress(self._group.name, self._protocol)
        try:
            models = {name: _model(spec).to(self._place) for name, spec in specs.items()}
            image = _image(batch_size, self._group.image_size).to(self._place)
            renew = _Copies(models, image, random.Random(seed))
            return compare(renew, baseline, self._protocol, seed=seed, synchronize=synchronize, on_round=report)
        except torch.OutOfMemoryError:
            message = f"{len(specs)} models at batch size {batch_size} do not fit into the memory of {self._place}"
            raise UserError(
                f"latency group {self._group.name!r}: {message}; lower the batch size or split the group"
            ) from None

    def convention(self, found: Comparison, batch_size: int) -> str:
        """How the numbers of a comparison were made, in a sentence."""
        size = f"{self._group.image_size}x{self._group.image_size}"
        return (
            f"one forward pass of a batch of {batch_size} at {size}, float32, inference mode, random weights and "
            f"input (seed {SEED}), {found.rounds} interleaved rounds after {found.warmup} of warm-up; "
            f"{device_name(self._place)}, CPU threads {self._threads}"
        )


class _Copies:
    """Gives the models with their weights and input elsewhere in memory, each time it is called."""

    def __init__(self, models: Mapping[str, nn.Module], image: torch.Tensor, draw: random.Random):
        self._models, self._image, self._draw = models, image, draw
        self._current: Subjects = {}

    def __call__(self) -> Subjects:
        # Freed first, so that there are never two copies; the allocator gives the same places again, but for spacers.
        self._current = {}
        spacers = []
        for name, model in self._models.items():
            spacers.append(torch.empty(self._draw.randrange(1 << 20), dtype=torch.uint8, device=self._image.device))
            self._current[name] = partial(copy.deepcopy(model), self._image.clone())
        return self._current


def device_name(place: torch.device) -> str:
    """What a device is, for people: the GPU's or the CPU's model name."""
    return torch.cuda.get_device_name(place) if place.type == "cuda" else f"cpu ({cpu_name()})"


def _specs(group: LatencyConfig, models: Mapping[str, ModelSpec]) -> list[ModelSpec]:
    names = list(dict.fromkeys([group.baseline, *group.models]))
    problems = [unknown_model(name, dict(models)) for name in names if name not in models]
    specs = [models[name] for name in names if name in models]
    if problems:
        raise UserError([f"latency group {group.name!r}: {problem}" for problem in problems])
    for spec in specs:
        # A forward pass without weights or data: refuses an image size before anything is allocated and timed.
        count_model(spec, "classification", (group.image_size, group.image_size), NUM_CLASSES)
    return specs


def _model(spec: ModelSpec) -> nn.Module:
    from hafabench.models import create

    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = create(spec, num_classes=NUM_CLASSES).eval()
        _perturb_offsets(model)
    return model


def _image(batch_size: int, size: int) -> torch.Tensor:
    """Normal noise (B, 3, size, size)."""
    return torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(SEED))


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


def _latency_metrics(found: Comparison, convention: str, _batch_size: int) -> list[Metric]:
    metrics = []
    for name, seconds in found.seconds.items():
        milliseconds = [1e3 * value for value in seconds]
        metrics.append(_metric(name, "latency_ms", found.time(name), 1e3, milliseconds, convention))
        if name != found.baseline:
            against = f"{convention}; ratio to {found.baseline} round by round"
            metrics.append(_metric(name, "latency_ratio", found.ratio(name), 1, found.ratios(name), against))
    return metrics


def _throughput_metrics(found: Comparison, convention: str, batch_size: int) -> list[Metric]:
    metrics = []
    for name, seconds in found.seconds.items():
        rates = [batch_size / value for value in seconds]
        metrics.append(_metric(name, "images_per_s", _inverse(found.time(name)), batch_size, rates, convention))
        if name != found.baseline:
            against = f"{convention}; ratio to {found.baseline} round by round"
            ratios = [1 / value for value in found.ratios(name)]
            metrics.append(_metric(name, "throughput_ratio", _inverse(found.ratio(name)), 1, ratios, against))
    return metrics


def _inverse(interval: Interval) -> Interval:
    return Interval(1 / interval.value, 1 / interval.high, 1 / interval.low, interval.confidence)


def _metric(model: str, name: str, median: Interval, factor: float, readings: list[float], convention: str) -> Metric:
    low, high = (float(value) for value in np.quantile(readings, (0.25, 0.75)))
    return Metric(
        task="classification",
        model=model,
        name=name,
        value=factor * median.value,
        unit=METRICS[name].unit,
        low=low,
        high=high,
        repeats=len(readings),
        convention=convention,
        interval=(factor * median.low, factor * median.high) if median.is_bounded else None,
        confidence=median.confidence if median.is_bounded else None,
    )


def _warnings(group: LatencyConfig, found: Comparison, batch_size: int) -> list[str]:
    at = f"latency group {group.name!r}, batch {batch_size}"
    said = []
    if not found.steady:
        said.append(f"{at}: the speed had not settled after {found.warmup} rounds of warm-up")
    wanted = group.interval or TOO_WIDE
    for name in found.seconds:
        ratio = found.ratio(name)
        if name == found.baseline or (ratio.is_bounded and ratio.half_width <= wanted):
            continue
        known = f"known to {100 * ratio.half_width:.1f} %" if ratio.is_bounded else "without an interval"
        said.append(
            f"{at}: too noisy to say: the ratio of {name} to {found.baseline} is {known} after {found.rounds} "
            f"rounds, wanted {100 * wanted:.1f} %"
        )
    return said


def _about(machine: Machine) -> str:
    facts = [f"load {machine.load[0]} to {machine.load[1]} on {machine.cores} cores"] if machine.load else []
    if machine.busy_percent is not None:
        facts.append(
            f"CPUs {machine.busy_percent} % busy, {machine.others_percent} % with others, "
            f"{machine.steal_percent} % taken by the hypervisor"
        )
    facts.append(f"preempted {machine.preemptions} times")
    return "the machine meanwhile: " + "; ".join(facts)


class _Progress:
    """Lines on standard error: rounds done and how well the ratios are known, at most one every few seconds."""

    def __init__(self, label: str, protocol: Protocol):
        self._label, self._protocol = label, protocol
        self._shown = time.monotonic()

    def __call__(self, so_far: Comparison) -> None:
        now, most = time.monotonic(), self._protocol.repeats
        if now - self._shown < SECONDS_BETWEEN_REPORTS and so_far.rounds < most:
            return
        self._shown = now
        known = f"known to {100 * so_far.half_width:.1f} %" if math.isfinite(so_far.half_width) else "no interval yet"
        wanted = f" (wanted {100 * self._protocol.interval:g} %)" if self._protocol.interval else ""
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
    """Collect now, and not while the clock runs."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def record_latency(experiment: Experiment, group: LatencyConfig) -> Record:
    """Time one group and write the record."""
    watch = Stopwatch()
    models = {name: experiment.models[name] for name in [group.baseline, *group.models]}
    measured = measure(group, models)
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        verb="latency",
        id=f"latency/{group.name}",
        fingerprint=latency_fingerprint(experiment, group),
        metrics=measured.metrics,
        provenance=watch.provenance(**{**device_facts(), **({"threads": group.threads} if group.threads else {})}),
        machine=measured.machine,
        warnings=measured.warnings,
    )
    write_record(latency_record(experiment, group.name), record)
    return record
