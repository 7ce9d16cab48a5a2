"""The states of runs and jobs, read from their files; imports no torch.

Whether a result belongs to the present configuration follows from the fingerprint in the run's record. Before there
is a record, it follows from the resolved configuration, which every training writes first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hafabench.config.json_file import read_json_object
from hafabench.errors import UserError
from hafabench.files import write_text
from hafabench.results import counts
from hafabench.results.history import read_history
from hafabench.results.record import Record, read_record
from hafabench.runs.attempts import Attempt, last_attempt
from hafabench.runs.estimates import total_steps
from hafabench.runs.fingerprints import fingerprint
from hafabench.runs.jobs import Job, JobList
from hafabench.runs.lease import is_held
from hafabench.runs.paths import CONFIGURATION, STATE_SUMMARY
from hafabench.runs.run import Run
from hafabench.runs.snakemake import slurm_log
from hafabench.runs.verified_data import data_changes, data_of, stored_digest
from hafabench.runs.weights import describe_weights

# A job is taken to be running if its files grew within this many seconds.
FRESH_S = 120.0

OutputState = Literal["done", "to do", "interrupted", "stale"]


# -- runs ----------------------------------------------


@dataclass(frozen=True)
class RunState:
    """The state of one run on disk.

    Attributes:
        run: The run.
        state: ``done`` (the run is evaluated), ``trained`` (there is a final checkpoint), ``interrupted`` (there is a
            training state to resume from), ``stale`` (its files were made under another configuration, and the
            workflow makes them again) or ``missing`` (there is nothing to continue from).
        steps, total: Optimiser steps in the history, and of the whole training.
        last: The last entry of the history (``loss``, ``images_per_s``, ``eta_s``, ...); None if there is none.
        record: The record of the evaluation, even if it is stale.
        changes: What differs from the configuration that stale files were made under.
    """

    run: Run
    state: Literal["done", "trained", "interrupted", "stale", "missing"]
    steps: int
    total: int
    last: dict[str, Any] | None = None
    record: Record | None = None
    changes: tuple[str, ...] = ()

    @property
    def is_begun(self) -> bool:
        """Whether a training under the present configuration has begun and is not finished."""
        is_unfinished = self.last is not None and self.steps < self.total
        return self.state == "interrupted" or (self.state == "missing" and is_unfinished)

    @property
    def share(self) -> float:
        """The share of the training that is done, from 0 to 1."""
        if self.state in ("done", "trained"):
            return 1.0
        return min(self.steps / self.total, 1.0) if self.state == "interrupted" else 0.0


def run_state(run: Run) -> RunState:
    """Read the state of one run from its folder."""
    total, record, written = total_steps(run), _record(run.record), read_json_object(run.folder / CONFIGURATION)
    if record is not None and record.fingerprint == run.fingerprint:
        changes = data_changes(run, data_of(record).digests)
        if changes:
            return RunState(run, "stale", 0, total, None, record, changes)
        return RunState(run, "done", total, total, _last(run), record)
    is_present = written is not None and written.get("fingerprint") == run.fingerprint
    is_made = run.checkpoint.exists() or run.work.exists()
    if not is_present and (record is not None or (is_made and written is not None)):
        return RunState(run, "stale", 0, total, None, record, _changes(run, written))
    changes = data_changes(run, {"train": (written or {}).get("listing_digest")}) if is_present and is_made else ()
    if changes:
        return RunState(run, "stale", 0, total, None, record, changes)
    last = _last(run) if is_present else None
    if run.checkpoint.exists():
        return RunState(run, "trained", total, total, last, record)
    steps = int(last["step"]) if last else 0
    # A training that ends before its first state is written starts over.
    return RunState(run, "interrupted" if _can_resume(run) else "missing", steps, total, last, record)


def _can_resume(run: Run) -> bool:
    """Whether there is a training state, which is not known to be of another configuration."""
    saved = read_json_object(run.work / STATE_SUMMARY)
    return run.work.exists() and (saved is None or saved.get("fingerprint") == run.fingerprint)


def store_configuration(run: Run) -> None:
    """Write the resolved configuration into the folder of a run, before its training begins.

    A history of another configuration is removed first, so that it is not taken for the progress of this training.
    """
    if not has_own_history(run):
        run.history.unlink(missing_ok=True)
    known = run.listing_digest or stored_digest(run.folder / CONFIGURATION, run.fingerprint)
    content = replace(run, listing_digest=known).resolved()
    write_text(run.folder / CONFIGURATION, json.dumps(content, indent=2) + "\n")


def has_own_history(run: Run) -> bool:
    """Whether the history of a run is not known to be of another configuration."""
    written = read_json_object(run.folder / CONFIGURATION)
    return run.history.is_file() and (written is None or written.get("fingerprint") == run.fingerprint)


def _record(path: Path) -> Record | None:
    # An unreadable record counts as missing here. The commands that use its numbers report its problems.
    try:
        return read_record(path)
    except UserError:
        return None


def _last(run: Run) -> dict[str, Any] | None:
    try:
        entries = read_history(run.history)
    except UserError:
        return None
    return entries[-1] if entries else None


def _changes(run: Run, written: dict[str, Any] | None) -> tuple[str, ...]:
    """Differences between the stored configuration and the present one, as clauses."""
    if written is None or written.get("fingerprint") == run.fingerprint:
        return ("its configuration was not stored",)
    present = run.resolved()
    ignored = {"model.name", "model.available", "dataset.root"}
    ignored |= {f"recipe.{key}" for key in run.recipe.operational}
    found = [
        f"{key}: {before!r} -> {now!r}"
        for part in ("model", "dataset", "recipe")
        for key, before, now in _differences(part, written.get(part), json.loads(json.dumps(present[part])))
        if key not in ignored
    ]
    weights = _weights_change(written.get("weights"), written.get("parent"), run)
    if weights:
        return (*found, weights)
    if not found and run.parent is not None:
        return (f"its starting weights, {run.parent.id}",)
    return tuple(found) or ("its configuration",)


def _weights_change(before: Any, parent: Any, run: Run) -> str:
    """Describe how published starting weights differ from those of the training; empty if they do not."""
    now = run.weights.as_record() if run.weights else {}
    before = before if isinstance(before, dict) else {}
    changed = {key for key in (*before, *now) if key != "file" and before.get(key) != now.get(key)}
    if not changed:
        return ""
    if "sha256" in changed and before.get("file") == now.get("file") and now["sha256"] is not None:
        known, present = (str(weights.get("sha256"))[:12] for weights in (before, now))
        return f"its starting weights {now['file']} have changed: sha256 {known} -> {present}"
    known = describe_weights(before) if before else str(parent)
    present = describe_weights(now) if now else run.parent.id if run.parent else "none"
    return f"its starting weights: {known} -> {present}"


def _differences(key: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in before if name not in now)]:
            yield from _differences(f"{key}.{name}", before.get(name), now.get(name))
    elif before != now:
        yield key, before, now


# -- jobs ----------------------------------------------


@dataclass(frozen=True)
class JobState:
    """The state of one job on disk.

    Attributes:
        job: The job.
        outputs: ``done`` (they were made under the present configuration), ``stale`` (they were made under another
            one, or from inputs that have changed since), ``interrupted`` (a training will be resumed) or ``to do``
            (they do not exist).
        attempt: ``running`` (an attempt runs), ``failed`` (the last attempt ended with an error) or ``interrupted``
            (the last attempt ended without one: a training that can be resumed, or a command that was killed); None
            if there was no attempt under the present configuration, or if its outputs were deleted after it.
        run: The state of the run that the job trains or evaluates.
        changes: What differs from the configuration that stale outputs were made under.
        log: The file to read about the last attempt.
        last_line: The line of the log with the reason why the attempt ended, or else its last line.
    """

    job: Job
    outputs: OutputState
    attempt: Literal["running", "failed", "interrupted"] | None = None
    run: RunState | None = None
    changes: tuple[str, ...] = ()
    log: Path | None = None
    last_line: str = ""

    @property
    def state(self) -> str:
        """The state of the last attempt, or that of the outputs if there is none."""
        return self.attempt or self.outputs


def job_states(
    jobs: JobList, fresh_s: float = FRESH_S, known: Mapping[str, RunState] | None = None
) -> dict[str, JobState]:
    """Read the states of all jobs, optional ones included, by their ids.

    Args:
        jobs: The jobs of an experiment.
        fresh_s: A job is taken to be running if its files grew within this many seconds; 0 if no job can be running.
        known: States of runs that were read already, by the ids of the runs.
    """
    runs = {run.id: (known or {}).get(run.id) or run_state(run) for run in jobs.runs.values()}
    found: dict[str, JobState] = {}
    for job in (*jobs.values(), *jobs.optional.values()):
        state = _output_state(job, runs, found)
        found[job.id] = state if state.outputs == "done" else _with_attempt(state, found, fresh_s)
    return found


def _output_state(job: Job, runs: Mapping[str, RunState], needed: Mapping[str, JobState]) -> JobState:
    """The state of a job's outputs, without that of the last attempt."""
    if job.run is not None:
        run = runs[job.run.id]
        if job.rule == "train_run":
            return JobState(job, _TRAININGS[run.state], run=run, changes=run.changes)
        if run.state == "done":
            return JobState(job, "done", run=run)
        return JobState(job, "to do" if run.record is None else "stale", run=run)
    if job.rule in _RECORDED:
        is_current, what = _RECORDED[job.rule]
        current = is_current(job)
        if current is None:
            return JobState(job, "to do")
        return JobState(job, "done") if current else JobState(job, "stale", changes=(what,))
    if not job.outputs or not all(path.exists() for path in job.outputs):
        return JobState(job, "to do")
    if any(needed[name].outputs != "done" for name in job.needs):
        return JobState(job, "stale", changes=("files that it reads will be made again",))
    made = min(_modified(path) for path in job.outputs)
    newer = [path for path in job.inputs if _modified(path) > made]
    return JobState(job, "stale", changes=(f"newer: {newer[0]}",)) if newer else JobState(job, "done")


def _dataset_is_current(job: Job) -> bool | None:
    report = read_json_object(job.outputs[0])
    return None if report is None else fingerprint(report.get("identity", {})) == job.fingerprint


def _record_is_current(job: Job) -> bool | None:
    record = _record(job.outputs[0])
    return None if record is None else record.fingerprint == job.fingerprint


def _counts_are_current(job: Job) -> bool | None:
    return counts.is_current(job.outputs[0], job.fingerprint or "")


_TRAININGS: Mapping[str, OutputState] = {
    **{"done": "done", "trained": "done", "interrupted": "interrupted", "stale": "stale", "missing": "to do"},
}
# Rules whose output contains the fingerprint of what it was made from. Each has a test of the output, which returns
# None if there is no output, and a description of what may have changed.
_RECORDED = {
    "prepare_dataset": (_dataset_is_current, "its configuration"),
    "count_complexity": (_record_is_current, "its models or sizes"),
    "count_conventions": (_counts_are_current, "its models or sizes"),
    "measure_latency": (_record_is_current, "its models or sizes"),
}


def _with_attempt(state: JobState, needed: Mapping[str, JobState], fresh_s: float) -> JobState:
    """Add how the last attempt ended, or that it runs, for a job that is not done."""
    job, training = state.job, state.run if state.job.rule == "train_run" else None
    attempt = last_attempt(job.log, slurm_log(job))
    if fresh_s and job.run is not None and is_held(job.run, "train" if training is not None else "evaluate"):
        return replace(state, attempt="running")
    if training is not None:
        is_growing = training.is_begun and _is_fresh(training.run.history, fresh_s)
        if is_growing and (attempt is None or attempt.may_run):
            return replace(state, attempt="running")
        if not _was_attempted(training, attempt):
            return state
    # The workflow deletes the outputs of a job before it starts it, so outputs on disk prove that the attempt
    # succeeded. After a success, missing outputs were deleted.
    if attempt is None or attempt.ended == "finished" or not attempt.is_of(job):
        is_begun = training is not None and training.is_begun
        return replace(state, attempt="interrupted") if is_begun else state
    told = replace(state, log=attempt.log, last_line=attempt.line)
    if training is not None and training.is_begun and attempt.ended != "error":
        # A training that stops on request reports that it can be resumed. One that was killed reports nothing.
        return replace(told, attempt="interrupted")
    if all(path.exists() for path in job.outputs):
        return state
    # If inputs are missing or newer than the log, the log belongs to an attempt with earlier inputs.
    if training is None and any(needed[name].outputs != "done" for name in job.needs if needed[name].run is not None):
        return state
    if any(_modified(path) > _modified(attempt.log) for path in job.inputs):
        return state
    if attempt.ended == "error":
        return replace(told, attempt="failed")
    if attempt.may_run and _is_fresh(attempt.log, fresh_s):
        return replace(told, attempt="running")
    # Logs of earlier versions do not tell whether an attempt without an error was killed or has succeeded.
    return replace(told, attempt="interrupted") if attempt.fingerprint is not None else state


def _was_attempted(training: RunState, attempt: Attempt | None) -> bool:
    """Whether the last attempt may have had the present configuration; it may have failed before storing it."""
    run = training.run
    if attempt is not None and attempt.fingerprint is not None:
        return attempt.fingerprint == run.fingerprint
    if training.state == "stale":
        return False
    written = read_json_object(run.folder / CONFIGURATION)
    return written is None or written.get("fingerprint") == run.fingerprint


def _modified(path: Path) -> float:
    """The time at which a file was modified; 0 for a missing file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_fresh(path: Path, seconds: float) -> bool:
    # The clocks of a file system and of this machine may differ, in both directions.
    return abs(time.time() - _modified(path)) < seconds
