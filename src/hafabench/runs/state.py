"""What is there of a run: done, trained, interrupted, stale or missing; from its files alone, without torch.

Whether work belongs to the present configuration follows from the fingerprint in the run's record, or, before there
is one, in the resolved configuration that every training writes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hafabench.config.experiment import DatasetConfig, Experiment
from hafabench.config.json_file import read_json_object
from hafabench.errors import UserError
from hafabench.results.history import read_history
from hafabench.results.record import Record, read_record
from hafabench.runs.estimates import total_steps
from hafabench.runs.paths import dataset_report
from hafabench.runs.run import Run

State = Literal["done", "trained", "interrupted", "stale", "missing"]


@dataclass(frozen=True)
class RunState:
    """What is there of one run.

    Attributes:
        run: whose files these are.
        state: ``done``: evaluated; ``trained``: final checkpoint, no record; ``interrupted``: there is a state to be
            resumed; ``stale``: made under another configuration, the workflow makes it again; ``missing``: nothing
            that lasts.
        steps, total: optimiser steps that the history shows, of how many.
        last: the history's last entry (``loss``, ``images_per_s``, ``eta_s``, ...); None without one.
        record: the evaluation's record, also a stale one.
        changes: what differs from the configuration that stale work was made under.
    """

    run: Run
    state: State
    steps: int
    total: int
    last: dict[str, Any] | None = None
    record: Record | None = None
    changes: tuple[str, ...] = ()

    @property
    def is_begun(self) -> bool:
        """Whether a training under the present configuration was begun and not finished."""
        return self.state == "interrupted" or (self.state == "missing" and self.last is not None)

    @property
    def share(self) -> float:
        """Share of the training that is done, 0 to 1."""
        if self.state in ("done", "trained"):
            return 1.0
        return min(self.steps / self.total, 1.0) if self.state == "interrupted" else 0.0


def run_state(run: Run) -> RunState:
    """Read the state of one run from its folder."""
    total, record, written = total_steps(run), _record(run.record), read_json_object(run.folder / "config.json")
    if record is not None:
        if record.fingerprint == run.fingerprint:
            return RunState(run, "done", total, total, _last(run), record)
        return RunState(run, "stale", 0, total, None, record, _changes(run, written))
    made = run.checkpoint.exists() or run.work.exists()
    if made and written is not None and written.get("fingerprint") != run.fingerprint:
        return RunState(run, "stale", 0, total, None, None, _changes(run, written))
    last = _last(run) if written is not None and written.get("fingerprint") == run.fingerprint else None
    if run.checkpoint.exists():
        return RunState(run, "trained", total, total, last)
    steps = int(last["step"]) if last else 0
    # Before its first state is written, a training that ends starts over.
    return RunState(run, "interrupted" if run.work.exists() else "missing", steps, total, last)


def dataset_is_ready(experiment: Experiment, task: str) -> bool:
    """Whether the task's data set was verified under the present configuration."""
    dataset: DatasetConfig = experiment.config.datasets[task]
    report = read_json_object(dataset_report(experiment, task))
    return report is not None and report.get("identity") == dataset.identity()


def record_is_current(path: Path, fingerprint: str) -> bool | None:
    """Whether the record at ``path`` carries ``fingerprint``; None where there is no readable record."""
    record = _record(path)
    return None if record is None else record.fingerprint == fingerprint


def _record(path: Path) -> Record | None:
    # A record that cannot be read counts as none here: whoever makes numbers of it says what is wrong with it.
    try:
        return read_record(path)
    except UserError:
        return None


def _last(run: Run) -> dict[str, Any] | None:
    try:
        entries = read_history(run.history)
    except (OSError, UnicodeDecodeError):
        return None
    return entries[-1] if entries and "step" in entries[-1] else None


def _changes(run: Run, written: dict[str, Any] | None) -> tuple[str, ...]:
    """Differences between the configuration that was written down and the present one, as clauses."""
    if written is None or written.get("fingerprint") == run.fingerprint:
        return ("its configuration was not kept",)
    present = run.resolved()
    ignored = {"model.name", "model.available", "dataset.root"}
    ignored |= {f"recipe.{key}" for key in run.recipe.operational}
    found = [
        f"{key}: {before!r} -> {now!r}"
        for part in ("model", "dataset", "recipe")
        for key, before, now in _differences(part, written.get(part), json.loads(json.dumps(present[part])))
        if key not in ignored
    ]
    if not found and run.parent is not None:
        return (f"its starting weights, {run.parent.id}",)
    return tuple(found) or ("its configuration",)


def _differences(key: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in before if name not in now)]:
            yield from _differences(f"{key}.{name}", before.get(name), now.get(name))
    elif before != now:
        yield key, before, now
