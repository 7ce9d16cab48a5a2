"""Paired timing in one process on one CPU thread, by the project's own instrument (docs/measurement.md)."""

from __future__ import annotations

import copy
import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.config.experiment import LatencyConfig
from hafabench.measure.latency import latency_timer
from hafabench.measure.timing import InterleavedTimes, Protocol, time_against_baseline

THREADS = 1
WANTED = 0.01
"""Half width of the intervals at which a measurement may end."""


def protocol(rounds: int, quick: bool) -> Protocol:
    """Return a protocol with at most ``rounds`` rounds; with ``quick``, an eighth of them and at least 16."""
    return Protocol(warmup=1 if quick else 3, repeats=max(16, rounds // 8) if quick else rounds, interval=WANTED)


@contextmanager
def quiet_process() -> Iterator[None]:
    """Use one thread, and no gradients or garbage collection while the clock runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        gc.enable()
        torch.set_num_threads(threads)


def compare_models(
    specs: Mapping[str, ModelSpec | str], baseline: str, batch_size: int, rounds: int, quick: bool
) -> InterleavedTimes:
    """Time models at 224 x 224 pixels with the timer of `hafabench latency`.

    Args:
        specs: The models by any name, each a specification or its name in the catalog.
        baseline: The name of the model that the others are compared with.
        batch_size: Images per forward pass.
        rounds: The number of rounds at most.
        quick: Whether an eighth of the rounds is enough.
    """
    known = {name: CATALOG[spec] if isinstance(spec, str) else spec for name, spec in specs.items()}
    plan = protocol(rounds, quick)
    group = LatencyConfig(
        name="benchmark",
        baseline=baseline,
        models=list(known),
        batch_size=batch_size,
        warmup=plan.warmup,
        repeats=plan.repeats,
        threads=THREADS,
        interval=plan.interval,
    )
    with latency_timer(group, "cpu") as timer:
        return timer.time_models(known, baseline, batch_size, quiet=True)


def compare_modules(
    modules: Mapping[str, nn.Module], inputs: tuple, baseline: str, rounds: int, quick: bool
) -> InterleavedTimes:
    """Time forward passes of modules on the same inputs. Modules and inputs are copied as in `compare_models`.

    Args:
        modules: The modules by name.
        inputs: The arguments of every module's forward pass.
        baseline: The name of the module that the others are compared with.
        rounds: The number of rounds at most.
        quick: Whether an eighth of the rounds is enough.
    """

    def renew() -> dict[str, Callable[[], object]]:
        return {name: partial(copy.deepcopy(module), *copy.deepcopy(inputs)) for name, module in modules.items()}

    with quiet_process():
        return time_against_baseline(renew, baseline, protocol(rounds, quick))


def compare_calls(
    calls: Mapping[str, Callable[[], object]], baseline: str, rounds: int, quick: bool
) -> InterleavedTimes:
    """Time functions, which are not copied.

    Args:
        calls: The functions by name.
        baseline: The name of the function that the others are compared with.
        rounds: The number of rounds at most.
        quick: Whether an eighth of the rounds is enough.
    """
    with quiet_process():
        return time_against_baseline(lambda: dict(calls), baseline, protocol(rounds, quick))


def report_progress(text: str) -> None:
    """Report progress on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
