"""Progress: lines with rate and time left for people; of a training also a JSON-lines history for plots."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from hafabench.formatting.durations import format_duration
from hafabench.results.history import read_history

Batch = TypeVar("Batch")


class Progress:
    """Counts optimiser steps; prints and records every ``every`` steps.

    The history is append-only; on resume, lines beyond the resumed step are dropped, so that it reads like one
    uninterrupted run.

    Args:
        label: the run's id.
        total: optimiser steps in the whole training.
        start: steps already done.
        every: steps between lines.
        batch_size: images per step, over all processes.
        history: the history file, or None to keep none (ranks other than the first).
    """

    def __init__(self, label: str, total: int, *, start: int, every: int, batch_size: int, history: Path | None):
        self._label, self._total, self._every, self._batch = label, total, every, batch_size
        self._history = history
        self._start = self._mark_step = start
        self._clock = self._mark = time.perf_counter()
        if history is not None:
            history.parent.mkdir(parents=True, exist_ok=True)
            _truncate(history, start)

    def step(self, step: int, **values: float) -> None:
        """Report that ``step`` (1-based) is done, with its losses and learning rate."""
        if self._history is None or (step % self._every and step != self._total):
            return
        now = time.perf_counter()
        rate = (step - self._mark_step) * self._batch / max(now - self._mark, 1e-9)
        mean_step = (now - self._clock) / max(step - self._start, 1)
        left = (self._total - step) * mean_step
        self._mark, self._mark_step = now, step
        shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        line = f"{self._label} {step}/{self._total} {shown} {rate:.1f} images/s left {format_duration(left)}"
        print(line, file=sys.stderr, flush=True)
        entry = {"step": step, **values, "images_per_s": round(rate, 2), "eta_s": round(left, 1)}
        with self._history.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")


def announced(
    batches: Generator[Batch],
    label: str,
    images: int,
    batch_size: int,
    *,
    every_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Batch]:
    """``batches`` of an evaluation, with a line on standard error every ``every_s`` seconds; none for a short one.

    Args:
        batches: closed with what is returned.
        label: the run's id.
        images, batch_size: in all, and in each batch but the last.
        clock: seconds.
    """
    started = said = clock()
    with closing(batches):
        for index, batch in enumerate(batches, start=1):
            yield batch
            # Asked for the next one, so done with this one.
            now, done = clock(), min(index * batch_size, images)
            if now - said >= every_s or (done == images and said > started):
                rate, said = done / max(now - started, 1e-9), now
                left = format_duration((images - done) / rate)
                line = f"{label}: evaluated {done} of {images} images, {rate:.1f} images/s left {left}"
                print(line, file=sys.stderr, flush=True)


def _truncate(history: Path, start: int) -> None:
    if not history.exists():
        return
    kept = [entry for entry in read_history(history) if entry["step"] <= start]
    history.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
