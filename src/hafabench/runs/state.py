"""The states of runs and jobs, read from their files; imports no torch.

Whether a result belongs to the present configuration follows from the fingerprint in the run's record. Before there
is a record, it follows from the resolved configuration, which every training writes first.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hafabench.config.json_file import read_json_object
from hafabench.errors import UserError
from hafabench.files import sha256_of, sha256_of_large, write_text
from hafabench.results import counts
from hafabench.results.history import read_history
from hafabench.results.record import Record, read_record
from hafabench.runs.attempts import Attempt, last_attempt, stored_attempt
from hafabench.runs.ends import End, StoredEnd, stored_ends
from hafabench.runs.estimates import total_steps
from hafabench.runs.fingerprints import fingerprint
from hafabench.runs.jobs import Job, JobList
from hafabench.runs.lease import Verb, holder_of, is_held
from hafabench.runs.paths import CONFIGURATION, STATE_SUMMARY
from hafabench.runs.run import Run
from hafabench.runs.snakemake import comment, slurm_log
from hafabench.runs.verified_data import data_changes, data_of, stored_digest
from hafabench.runs.weights import describe_weights

# A job is taken to be running if its files grew within this many seconds.
FRESH_S = 120.0
# How the page of a report names what it was made from, within its first bytes.
MADE_FROM = "hafabench-made-from"
_MADE_FROM = re.compile(rf'<meta name="{MADE_FROM}" content="(\w+)">'.encode())
_PAGE_HEAD = 4096

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


def run_states(runs: Iterable[Run], known: Mapping[str, RunState] | None = None) -> dict[str, RunState]:
    """Read the states of runs by their ids; parents come before the runs that start from them.

    Args:
        runs: The runs, as `hafabench.runs.run.expand` orders them.
        known: States that were read already, by the ids of the runs.
    """
    found: dict[str, RunState] = {}
    for run in runs:
        parent = found.get(run.parent.id) if run.parent is not None else None
        found[run.id] = (known or {}).get(run.id) or run_state(run, parent)
    return found


def run_state(run: Run, parent: RunState | None = None) -> RunState:
    """Read the state of one run from its folder.

    Args:
        run: The run.
        parent: The state of the run that it starts from, if it was read already.
    """
    state = _own_state(run)
    if run.parent is None or state.state in ("stale", "missing"):
        return state
    parent = parent or run_state(run.parent)
    if parent.state != "stale":
        return state
    # The fingerprint of the parent may be the same: its data has changed.
    change = f"its starting weights, {parent.run.id}: {'; '.join(parent.changes)}"
    return RunState(state.run, "stale", 0, state.total, None, state.record, (change,))


def _own_state(run: Run) -> RunState:
    """Read the state of one run from its folder."""
    total, record, written = total_steps(run), _record(run.record), read_json_object(run.folder / CONFIGURATION)
    if record is not None and record.fingerprint == run.fingerprint:
        changes = data_changes(run, data_of(record).digests)
        if changes:
            return RunState(run, "stale", 0, total, None, record, changes)
        if _was_trained_again(run, record):
            if written is not None and written.get("fingerprint") != run.fingerprint:
                # The experiment was edited, the run was trained, and the edit was reverted before the evaluation.
                return RunState(run, "stale", 0, total, None, record, _changes(run, written))
            return RunState(run, "trained", total, total, _last(run), record, ("its checkpoint was made again",))
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


def _was_trained_again(run: Run, record: Record) -> bool:
    """Whether the checkpoint is another one than the one that was evaluated."""
    known = record.provenance.checkpoint_sha256
    # A copy of a folder may have other times. The content is read only if the times are in the wrong order.
    if known is None or _modified(run.checkpoint) <= _modified(run.record):
        return False
    return sha256_of_large(run.checkpoint) != known


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


def edited_values(run: Run) -> tuple[str, ...]:
    """Values of the stored recipe that contradict the fingerprint beside them, as clauses.

    The fingerprint is that of the run, so that a stored value that differs from the run's was edited. Keys that the
    file lacks were added by later versions.
    """
    written = read_json_object(run.folder / CONFIGURATION)
    if (
        written is None
        or written.get("fingerprint") != run.fingerprint
        or not isinstance(written.get("recipe"), dict)
    ):
        return ()
    present = json.loads(json.dumps(run.resolved()["recipe"]))
    return tuple(
        f"recipe.{key} is {value!r}, but {present[key]!r} under this fingerprint"
        for key, value in written["recipe"].items()
        if key in present and key not in run.recipe.operational and value != present[key]
    )


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
        last_line: The reason why the attempt ended, or else the last line of its log.
        end: How the attempt ended; None if nothing explains it.
        slurm_id: Slurm's id of the attempt; None if it ran outside Slurm or was not submitted.
        stored: What the executor has stored about the end of the attempt.
    """

    job: Job
    outputs: OutputState
    attempt: Literal["running", "failed", "interrupted"] | None = None
    run: RunState | None = None
    changes: tuple[str, ...] = ()
    log: Path | None = None
    last_line: str = ""
    end: End | None = None
    slurm_id: str | None = None
    stored: StoredEnd | None = None

    @property
    def state(self) -> str:
        """The state of the last attempt, or that of the outputs if there is none."""
        return self.attempt or self.outputs

    @property
    def stale_clause(self) -> str:
        """Why stale outputs are stale, as a clause: ``stale: recipe.lr: 0.001 -> 0.0005``."""
        return f"stale: {'; '.join(self.changes) or 'made under another configuration'}"


def job_states(
    jobs: JobList,
    fresh_s: float = FRESH_S,
    known: Mapping[str, RunState] | None = None,
    live: Collection[str] | None = None,
) -> dict[str, JobState]:
    """Read the states of all jobs, optional ones included, by their ids.

    Args:
        jobs: The jobs of an experiment.
        fresh_s: A job is taken to be running if its files grew within this many seconds; 0 if no job can be running.
        known: States of runs that were read already, by the ids of the runs.
        live: The ids of the Slurm jobs that have not ended; None if they are unknown. The attempt of another Slurm
            job does not run, however fresh its files are.
    """
    found: dict[str, JobState] = {}
    stored = stored_ends(jobs.experiment.name)
    for name, state in output_states(jobs, known).items():
        if state.outputs != "done":
            attempt = _last_attempt(state.job, jobs.experiment.name, stored)
            state = _with_attempt(state, found, _Clues(attempt, fresh_s, live))
            if attempt is not None and state.attempt is not None:
                ended = stored.get(comment(state.job.rule, state.job.wildcards.values()))
                is_its = ended is not None and ended.end == attempt.end and ended.slurm_id == attempt.slurm_id
                state = replace(state, end=attempt.end, slurm_id=attempt.slurm_id, stored=ended if is_its else None)
        found[name] = state
    return found


def _last_attempt(job: Job, experiment: str, stored: Mapping[str, StoredEnd]) -> Attempt | None:
    """The last attempt of a job, from its logs and what the executor has stored about its end.

    Args:
        job: The job.
        experiment: The name of its experiment.
        stored: The stored ends by the comments of jobs.
    """
    log = slurm_log(experiment, job)
    attempt = last_attempt(job.log, log)
    end = stored.get(comment(job.rule, job.wildcards.values()))
    if end is None or end.fingerprint not in (None, job.fingerprint):
        return attempt
    return stored_attempt(end, log) if attempt is None else attempt.with_stored(end, log)


def output_states(jobs: JobList, known: Mapping[str, RunState] | None = None) -> dict[str, JobState]:
    """Decide for every job whether its outputs are current, without looking at attempts.

    This decides what the workflow runs again and what reports leave out. It rests on what the outputs contain:
    fingerprints, and digests of the files that they were made from. Times of files count only for outputs of earlier
    versions, which contain no digests.

    Args:
        jobs: The jobs of an experiment.
        known: States of runs that were read already, by the ids of the runs.
    """
    runs = run_states(jobs.runs.values(), known)
    lost = _lost_and_needed(jobs, runs)
    unfinished = {run.task for run in jobs.runs.values() if runs[run.id].state != "done" or run.id in lost}
    found: dict[str, JobState] = {}
    for job in (*jobs.values(), *jobs.optional.values()):
        if job.run is not None:
            found[job.id] = _run_output(job, runs[job.run.id], job.run.id in lost)
        elif job.rule == "prepare_dataset":
            found[job.id] = _dataset_output(jobs, job, job.subject in unfinished)
        else:
            found[job.id] = _other_output(job, runs, found)
    return found


def _lost_and_needed(jobs: JobList, runs: Mapping[str, RunState]) -> set[str]:
    """The evaluated runs without a checkpoint from which other trainings still have to start.

    The lost checkpoint of an evaluated run is not made again for its own sake, which would cost a training.
    """
    lost: set[str] = set()
    for run in reversed(jobs.runs.values()):
        is_trained = runs[run.id].state in ("done", "trained") and run.id not in lost
        if run.parent is None or is_trained or runs[run.parent.id].state != "done":
            continue
        if not run.parent.checkpoint.exists():
            lost.add(run.parent.id)
    return lost


def _run_output(job: Job, run: RunState, is_lost: bool) -> JobState:
    """The state of the outputs of a training or an evaluation."""
    if job.rule == "train_run":
        return JobState(job, "to do" if is_lost else _TRAININGS[run.state], run=run, changes=run.changes)
    if run.state == "done":
        changes = ("its checkpoint was lost, and another training needs it",) if is_lost else ()
        return JobState(job, "stale" if is_lost else "done", run=run, changes=changes)
    return JobState(job, "to do" if run.record is None else "stale", run=run, changes=run.changes)


def _dataset_output(jobs: JobList, job: Job, is_needed: bool) -> JobState:
    """The state of the report on a data set.

    A lost data set is prepared again only for trainings and evaluations that still have to run.
    """
    root = next(one.root for task, one in jobs.experiment.config.datasets.items() if task == job.subject)
    report, is_there = read_json_object(job.outputs[0]), root.is_dir()
    if report is None:
        return JobState(job, "to do" if is_needed or is_there else "done")
    if fingerprint(report.get("identity") or {}) != job.fingerprint:
        return JobState(job, "stale", changes=("its configuration",))
    if is_needed and not is_there:
        return JobState(job, "stale", changes=(f"{root} does not exist",))
    return JobState(job, "done")


def _other_output(job: Job, runs: Mapping[str, RunState], needed: Mapping[str, JobState]) -> JobState:
    """The state of the outputs of a measurement, or of a job that combines the results of others."""
    if job.rule in _RECORDED:
        current = _RECORDED[job.rule](job)
        if current is None:
            return JobState(job, "to do")
        return JobState(job, "done") if current else JobState(job, "stale", changes=("its models or sizes",))
    if not job.outputs or not all(path.exists() for path in job.outputs):
        return JobState(job, "to do")
    if any(needed[name].outputs != "done" for name in job.needs):
        return JobState(job, "stale", changes=("files that it reads will be made again",))
    changes = _COMBINED[job.rule](job, runs)
    return JobState(job, "stale", changes=changes) if changes else JobState(job, "done")


def _newer_inputs(job: Job) -> tuple[str, ...]:
    """The first input that is newer than an output, as a clause, for outputs without digests."""
    made = min(_modified(path) for path in job.outputs)
    return tuple(f"newer: {path}" for path in job.inputs if _modified(path) > made)[:1]


def _frame_changes(job: Job, runs: Mapping[str, RunState]) -> tuple[str, ...]:
    """How the records differ from those that the frame was made of, as clauses."""
    collected = _collected(next(path for path in job.outputs if path.suffix == ".csv"))
    if collected is None:
        return ("its table cannot be read",)
    present = {str(path): path for path in job.inputs}
    for name in [*collected, *present]:
        if name not in collected:
            return (f"not collected yet: {name}",)
        if name not in present:
            return (f"no longer a record: {name}",)
    if None in collected.values():
        return _newer_inputs(job)
    changed = (name for name, digest in collected.items() if sha256_of(present[name]) != digest)
    return tuple(f"changed: {name}" for name in changed)[:1]


def _collected(frame: Path) -> dict[str, str | None] | None:
    """The records of a frame with their SHA-256, from its CSV file; None if the file cannot be read.

    Frames of earlier versions do not contain the SHA-256. pandas is not imported, because this takes too long.
    """
    found: dict[str, str | None] = {}
    try:
        with frame.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
            rows = csv.reader(handle)
            header = next(rows, [])
            record = header.index("record")
            digest = header.index("record_sha256") if "record_sha256" in header else None
            for row in rows:
                found[row[record]] = (row[digest] or None) if digest is not None else None
    except (OSError, ValueError, IndexError, csv.Error):
        return None
    return found


def _picture_changes(job: Job, runs: Mapping[str, RunState]) -> tuple[str, ...]:
    """How the weights differ from those that the pictures were drawn with, as clauses."""
    index = read_json_object(next(path for path in job.outputs if path.suffix == ".json")) or {}
    sheets = [sheet for name in ("clusters", "offsets") if isinstance(sheet := index.get(name), dict)]
    try:
        drawn = {
            one["run"]: (one["fingerprint"], one["checkpoint_sha256"]) for sheet in sheets for one in sheet["weights"]
        }
    except (KeyError, TypeError):
        return ("its index cannot be read",)
    wanted = {state.run.checkpoint: state for state in runs.values()}
    shown = [wanted[path] for path in job.inputs if path in wanted]
    if {state.run.id: state.run.fingerprint for state in shown} != {name: one[0] for name, one in drawn.items()}:
        return ("the runs that it shows",)
    for state in shown:
        known = state.record.provenance.checkpoint_sha256 if state.record is not None else None
        if known is None:
            return _newer_inputs(job)
        if known != drawn[state.run.id][1]:
            return (f"the weights of {state.run.id}",)
    return ()


def _report_changes(job: Job, runs: Mapping[str, RunState]) -> tuple[str, ...]:
    """How the content of the report would differ, as clauses."""
    try:
        with next(path for path in job.outputs if path.suffix == ".html").open("rb") as handle:
            known = _MADE_FROM.search(handle.read(_PAGE_HEAD))
    except OSError:
        known = None
    if known is None:
        return _newer_inputs(job)
    return () if known[1].decode() == made_from(job) else ("its inputs or its configuration",)


def made_from(job: Job) -> str:
    """A digest of the configuration and of the content of the inputs of a job; a missing one counts as empty.

    Names and times of files do not count.
    """
    digests = [sha256_of(path) if path.is_file() else "" for path in job.inputs]
    return fingerprint({"configuration": job.fingerprint, "inputs": digests})


def _record_is_current(job: Job) -> bool | None:
    record = _record(job.outputs[0])
    return None if record is None else record.fingerprint == job.fingerprint


def _counts_are_current(job: Job) -> bool | None:
    return counts.is_current(job.outputs[0], job.fingerprint or "")


_TRAININGS: Mapping[str, OutputState] = {
    **{"done": "done", "trained": "done", "interrupted": "interrupted", "stale": "stale", "missing": "to do"},
}
# Rules whose output is a record. Each has a test of the output, which returns None if there is no output.
_RECORDED = {
    "count_complexity": _record_is_current,
    "count_conventions": _counts_are_current,
    "measure_latency": _record_is_current,
}
# Rules whose outputs combine the results of other jobs. Each has a function that returns what has changed.
_COMBINED = {
    "collect_records": _frame_changes,
    "draw_pictures": _picture_changes,
    "write_report": _report_changes,
}


@dataclass(frozen=True)
class _Clues:
    """What tells whether an attempt at a job runs: the last attempt, and the options of `job_states`."""

    attempt: Attempt | None
    fresh_s: float
    live: Collection[str] | None

    def is_held(self, run: Run, verb: Verb) -> bool | None:
        """Whether a process has the lease of the run for ``verb`` and runs; None if this is not known."""
        found = holder_of(run.folder)
        if found is None or found[0].verb != verb:
            return None
        holder = found[0]
        if holder.slurm_job is not None and self.live is not None and not holder.is_here:
            return holder.slurm_job in self.live
        return is_held(run, verb) or (False if holder.is_here else None)

    def may_run(self) -> bool:
        return self.attempt is None or self.attempt.may_run(self.live)


def _with_attempt(state: JobState, needed: Mapping[str, JobState], clues: _Clues) -> JobState:
    """Add how the last attempt ended, or that it runs, for a job that is not done.

    Args:
        state: The state of the outputs.
        needed: The states of the jobs before it.
        clues: What tells whether it runs.
    """
    job, training = state.job, state.run if state.job.rule == "train_run" else None
    attempt, fresh_s = clues.attempt, clues.fresh_s
    held = clues.is_held(job.run, "train" if training is not None else "evaluate") if job.run is not None else None
    if fresh_s and held:
        return replace(state, attempt="running")
    may_run = held is not False and clues.may_run()
    if training is not None:
        if may_run and training.is_begun and _is_fresh(_modified(training.run.history), fresh_s):
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
    if any(_modified(path) > attempt.time for path in job.inputs):
        return state
    if attempt.ended == "error":
        return replace(told, attempt="failed")
    if may_run and _is_fresh(attempt.time, fresh_s):
        return replace(told, attempt="running")
    # Logs of earlier versions do not tell whether an attempt without an error was killed or has succeeded.
    is_over = attempt.slurm_id is not None and clues.live is not None
    return replace(told, attempt="interrupted") if attempt.fingerprint is not None or is_over else state


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


def _is_fresh(modified: float, seconds: float) -> bool:
    # The clocks of a file system and of this machine may differ, in both directions.
    return abs(time.time() - modified) < seconds
