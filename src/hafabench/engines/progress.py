"""Progress lines with rate and time left. A training also writes its progress to the history file of its run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from hafabench.files import append_text, write_text
from hafabench.formatting.durations import format_duration
from hafabench.results.history import read_history

Batch = TypeVar("Batch")


def say(line: str) -> None:
    """Print a line to standard error. It is lost if nobody can read it, because a terminal or a pipe was closed."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # Otherwise Python would try again when it ends, and change the exit code.
        with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())


class Progress:
    """Prints a line and appends an entry to the history every ``every`` optimiser steps.

    When a training resumes, entries beyond its first step are removed from the history. The history of an interrupted
    training is therefore like that of an uninterrupted one.

    Args:
        label: The run's id, which begins every line.
        total: Optimiser steps of the whole training.
        start: Steps that are already done.
        every: Steps between two lines.
        batch_size: Images per step, over all processes.
        history: The history file; None in all processes but the first.
    """

    def __init__(self, label: str, total: int, *, start: int, every: int, batch_size: int, history: Path | None):
        self._label, self._total, self._every, self._batch = label, total, every, batch_size
        self._history = history
        self._start = self._last_step = start
        self._started = self._last_time = time.perf_counter()
        if history is not None:
            history.parent.mkdir(parents=True, exist_ok=True)
            _truncate(history, start)

    def is_due(self, step: int) -> bool:
        """Return whether this process writes about a step."""
        return self._history is not None and (step % self._every == 0 or step == self._total)

    def step(self, step: int, **values: float) -> None:
        """Report that ``step`` (counted from 1) is done, with its loss, learning rate and other values."""
        if self._history is None or not self.is_due(step):
            return
        now = time.perf_counter()
        rate = (step - self._last_step) * self._batch / max(now - self._last_time, 1e-9)
        seconds_per_step = (now - self._started) / max(step - self._start, 1)
        left = (self._total - step) * seconds_per_step
        self._last_time, self._last_step = now, step
        shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        entry = {"step": step, **values, "images_per_s": round(rate, 2), "eta_s": round(left, 1)}
        append_text(self._history, json.dumps(entry) + "\n")
        say(f"{self._label} {step}/{self._total} {shown} {rate:.1f} images/s left {format_duration(left)}")


def report_progress(
    batches: Generator[Batch],
    label: str,
    images: int,
    batch_size: int,
    *,
    every_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Batch]:
    """Yield the batches of an evaluation and print a line every ``every_s`` seconds; short evaluations print none.

    Args:
        batches: A generator, which is closed together with the returned one.
        label: The run's id, which begins every line.
        images: Number of images of the whole evaluation.
        batch_size: Number of images of every batch but the last one.
        every_s: Seconds between two lines.
        clock: Returns the time in seconds.
    """
    started = reported = clock()
    with closing(batches):
        for index, batch in enumerate(batches, start=1):
            yield batch
            # The caller is done with the batch when it requests the next one.
            now, done = clock(), min(index * batch_size, images)
            if now - reported >= every_s or (done == images and reported > started):
                rate, reported = done / max(now - started, 1e-9), now
                left = format_duration((images - done) / rate)
                say(f"{label}: evaluated {done} of {images} images, {rate:.1f} images/s left {left}")


def _truncate(history: Path, start: int) -> None:
    if not history.exists():
        return
    kept = [entry for entry in read_history(history) if entry["step"] <= start] if start else []
    write_text(history, "".join(json.dumps(entry) + "\n" for entry in kept))
