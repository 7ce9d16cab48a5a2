"""Progress of a training: lines with rate and time left for people, a JSON-lines history for plots."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


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
        line = f"{self._label} {step}/{self._total} {shown} {rate:.1f} images/s left {_clock_text(left)}"
        print(line, file=sys.stderr, flush=True)
        entry = {"step": step, **values, "images_per_s": round(rate, 2), "eta_s": round(left, 1)}
        with self._history.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")


def read_history(path: Path) -> list[dict[str, float]]:
    """Entries of a history file; a torn last line (the process was killed) is left out."""
    entries = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def _truncate(history: Path, start: int) -> None:
    if not history.exists():
        return
    kept = [entry for entry in read_history(history) if entry["step"] <= start]
    history.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")


def _clock_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
