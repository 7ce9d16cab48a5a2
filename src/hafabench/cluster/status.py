"""The state of every job of an experiment, from its files, its logs and Slurm's queue; no driver is needed.

Without Slurm only files and logs are read, and a job whose history or log has grown recently counts as running.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from hafabench.cluster.commands import CommandFailed, Runner, is_installed, run
from hafabench.cluster.ends import how_it_ended, in_words
from hafabench.cluster.queue import EndedJob, QueuedJob, ended_jobs, live_jobs_of
from hafabench.config.experiment import Experiment
from hafabench.config.recipes import ClassificationRecipe, DetectionRecipe
from hafabench.formatting.durations import format_duration
from hafabench.formatting.text import one_line
from hafabench.runs.attempts import last_lines
from hafabench.runs.ends import HEADINGS, End, Kind, StoredEnd, stored_ends
from hafabench.runs.job_log import BEGINS
from hafabench.runs.jobs import Job, JobList, path_argument
from hafabench.runs.lease import WAITS, holder_of
from hafabench.runs.snakemake import (
    FORCE_OPTION,
    SLURM_LOGS,
    comment,
    experiments_of_drivers,
    is_locked,
    jobs_by_comment,
    slurm_log_folder,
    workflow_command,
)
from hafabench.runs.state import FRESH_S, JobState, RunState, job_states
from hafabench.runs.verified_data import data_of, different_data

ORDER = ("running", "queued", "failed", "interrupted", "stale", "collapsed", "to do", "done")
# The last attempt has ended, and the job is not done.
_UNSUCCESSFUL = ("failed", "interrupted")
_NOT_RUN = ("to do", "stale")
# Shown instead of a node for a job outside Slurm whose process is not known.
OUTSIDE = "without a Slurm job"


@dataclass(frozen=True)
class JobStatus:
    """One job of the experiment.

    Attributes:
        job: The job.
        state: One of `ORDER`; ``to do``: not submitted yet; ``collapsed``: done, but the training diverged, or did
            not begin because that of its starting weights diverged.
        detail: Its progress, the reason why it waits or why its last attempt ended; may be empty.
        node: Where it runs.
        slurm_id: Slurm's id of its live Slurm job, or of that of its last attempt if this was unsuccessful.
        log: The file to read about a failed or interrupted job.
        kind: How the last attempt ended, if this was unsuccessful.
        attempt: The number of the last attempt and that of all attempts, if the executor has stored them.
        ended: When the last attempt ended, if this was unsuccessful, in seconds since 1970; None if it is not known.
        is_kept: Whether the outputs of an earlier attempt are those of the present configuration.
    """

    job: Job
    state: str
    detail: str = ""
    node: str = ""
    slurm_id: str = ""
    log: Path | None = None
    kind: Kind = "unknown"
    attempt: tuple[int, int] | None = None
    ended: float | None = None
    is_kept: bool = False


@dataclass(frozen=True)
class Status:
    """The jobs of an experiment, and whether a driver runs them.

    Attributes:
        jobs: In the order of the workflow; optional jobs only while they are in Slurm's queue.
        driver: A sentence about the driver.
        slurm: The reason why the queue is not shown; empty if it is shown.
        notes: Sentences about records that come from different data.
        is_driven: Whether a driver of the experiment runs here.
        driven_since: When this driver was started, in seconds since 1970; 0 if it is not known.
        recover: The command that must be run before a driver can start; empty if there is none.
        command: The command that runs the unsuccessful jobs again.
    """

    jobs: tuple[JobStatus, ...]
    driver: str
    slurm: str
    notes: tuple[str, ...] = ()
    is_driven: bool = False
    driven_since: float = 0.0
    command: str = ""
    recover: str = ""


def experiment_status(
    experiment: Experiment,
    folder: Path | None = None,
    runner: Runner = run,
    fresh_s: float = FRESH_S,
    given_up: Collection[str] = (),
    command: str | None = None,
) -> Status:
    """Return the state of every job.

    Args:
        experiment: A checked experiment.
        folder: The working folder of the workflow; the current one by default.
        runner: Runs Slurm's commands.
        fresh_s: A job that is not in Slurm's queue counts as running if its files grew within this many seconds,
            unless its Slurm job or process has ended; 0 if no job can be running.
        given_up: The ids of jobs that a driver has run without success, whether or not a log says so.
        command: The command that runs the unsuccessful jobs again; by default a complete run.

    Raises:
        UserError: If the jobs cannot be listed (`hafabench.runs.jobs.JobList`).
    """
    folder = folder or Path.cwd()
    live, slurm = _queue(experiment, folder, runner)
    queued = {job.comment: job for job in live}
    jobs = JobList(experiment)
    states = job_states(jobs, fresh_s, live=None if slurm else {job.id for job in live})
    unexplained = {
        state.slurm_id: state
        for state in states.values()
        if state.attempt in _UNSUCCESSFUL and state.slurm_id is not None and state.stored is None
    }
    known = {} if slurm else ended_jobs(list(unexplained), runner)
    found = [
        _status(experiment.name, states[job.id], queued.get(name), known.get(states[job.id].slurm_id or ""))
        for name, job in jobs_by_comment(jobs).items()
        if job.id in jobs or name in queued
    ]
    if given_up:
        stored = stored_ends(experiment.name, folder)
        found = [_given_up(one, stored) if one.job.id in given_up else one for one in found]
    records = [state.run.record for state in states.values() if state.run and state.job.rule == "evaluate_run"]
    notes = different_data(data_of(record) for record in records if record is not None)
    drivers = experiments_of_drivers(folder)
    own = [process for process, file in drivers.items() if _is_own(experiment, file, folder)]
    # A folder with Slurm logs of the experiment was used on a cluster.
    on_cluster = (folder / SLURM_LOGS / experiment.name).is_dir() or None
    command = command or workflow_command(experiment, on_cluster=on_cluster)
    return Status(
        jobs=tuple(found),
        driver=_driver(experiment, folder, drivers),
        slurm=slurm,
        notes=tuple(notes),
        is_driven=bool(own),
        driven_since=min(map(_began, own), default=0.0),
        command=command,
        recover=_recover_command(experiment) if is_locked(folder) and not drivers else "",
    )


def _given_up(status: JobStatus, stored: Mapping[str, StoredEnd]) -> JobStatus:
    """The status of a job that a driver has run without success.

    Args:
        status: Its status according to its files, which may say nothing about the last attempt.
        stored: The ends that the executor has stored.
    """
    if status.state in _NOT_RUN:
        log = status.job.log if status.job.log.is_file() else None
        return replace(status, state="failed", detail="its own log does not say why; see that of the driver", log=log)
    if status.state in ("done", "collapsed"):
        # It was forced to run again.
        told = stored.get(comment(status.job.rule, status.job.wildcards.values()))
        why = told.end.sentence if told is not None else "see the log of the driver"
        kind = told.end.kind if told is not None else "unknown"
        detail = f"{why}; its earlier outputs are kept"
        return replace(status, state="failed", detail=detail, kind=kind, is_kept=True)
    return status


def _queue(experiment: Experiment, folder: Path, runner: Runner) -> tuple[list[QueuedJob], str]:
    """Live Slurm jobs of an experiment, and why they are not known. Of several for one job, that to show is last."""
    if runner is run and not is_installed():
        return [], "no Slurm on this machine"
    try:
        jobs = live_jobs_of(experiment, folder, runner)
    except CommandFailed as error:
        return [], f"squeue failed: {_last_error(error.message)}"
    # A job that waits for the end of another one comes before the one for which it waits.
    jobs.sort(key=lambda job: (not job.is_pending, job.reason != "Dependency"))
    return jobs, ""


def _last_error(message: str) -> str:
    """Return the last of squeue's errors, which it prints one per line as ``squeue: error: ...``."""
    return re.split(r"\bsqueue: (?:(?:error|fatal): )?", message)[-1]


def _status(experiment: str, state: JobState, queued: QueuedJob | None, ended: EndedJob | None) -> JobStatus:
    """The status of a job.

    Args:
        experiment: The name of the experiment.
        state: The state of its files.
        queued: Its live Slurm job.
        ended: The Slurm job of its last attempt, if this was unsuccessful.
    """
    job = state.job
    training = state.run if job.rule == "train_run" else None
    if state.state == "done":
        record = state.run.record if state.run is not None and job.rule == "evaluate_run" else None
        if record is not None and record.collapse is not None:
            return JobStatus(job, "collapsed", record.collapse.clause(record.id))
        return JobStatus(job, "done")
    if queued is not None and queued.is_pending:
        return JobStatus(job, "queued", queued.reason, slurm_id=queued.id)
    running = state.last_line if state.attempt == "running" else ""
    if queued is not None:
        detail = progress(training) if training is not None else running or f"for {queued.elapsed}"
        detail = _waits_for_lease(experiment, job, queued) or detail
        if queued.state != "RUNNING":
            detail = f"{queued.state.lower()}; {detail}"
        return JobStatus(job, "running", detail, queued.node, queued.id)
    if state.state == "running":
        detail = running or (progress(training) if training is not None else "")
        return JobStatus(job, "running", detail, _process(job))
    if state.attempt in _UNSUCCESSFUL:
        return _unsuccessful(experiment, state, ended, training)
    return JobStatus(job, state.state, "; ".join(state.changes))


def _waits_for_lease(experiment: str, job: Job, queued: QueuedJob) -> str:
    """What a running Slurm job last said, if it waits for the lease of its run; empty otherwise."""
    if job.run is None:
        return ""
    lines = last_lines(slurm_log_folder(experiment, job) / f"{queued.id}.log")
    said = next((line for line in reversed(lines) if WAITS in line or line.startswith(BEGINS.decode())), "")
    return said.removeprefix(f"{job.run.id}: ") if WAITS in said else ""


def _unsuccessful(experiment: str, state: JobState, ended: EndedJob | None, training: RunState | None) -> JobStatus:
    """The status of a job whose last attempt was not successful.

    Args:
        experiment: The name of the experiment.
        state: The state of its files.
        ended: The Slurm job of its last attempt, if Slurm knows it.
        training: The state of the run, if the job trains it.
    """
    end, log = state.end, state.log
    if ended is not None:
        slurm_log = slurm_log_folder(experiment, state.job) / f"{state.slurm_id}.log"
        end = how_it_ended(ended.state, ended.exit_code, ended.node, slurm_log, state.job.log, state.slurm_id)
    elif end is not None and state.slurm_id is not None and state.stored is None:
        end = in_words(end)
    if end is None:
        end = End("unknown", "it ended without an error message")
    is_told = end.kind not in ("unknown", "stopped")
    # Without a reason, a training that has a saved state is not known to have failed.
    is_interrupted = state.attempt == "interrupted" and not is_told
    is_begun = training is not None and training.last is not None
    detail = progress(training) if training is not None and is_begun and is_interrupted else end.sentence
    attempt = (state.stored.attempt, state.stored.attempts) if state.stored is not None else None
    return JobStatus(
        state.job,
        "interrupted" if is_interrupted else "failed",
        detail,
        slurm_id=state.slurm_id or "",
        log=log,
        kind=end.kind,
        attempt=attempt,
        ended=state.stored.time if state.stored is not None else _modified(log),
    )


def _modified(log: Path | None) -> float | None:
    with suppress(OSError):
        return log.stat().st_mtime if log is not None else None
    return None


def _process(job: Job) -> str:
    """Where a job runs that is not in Slurm's queue, as far as it is known."""
    found = holder_of(job.run.folder) if job.run is not None else None
    return str(found[0]) if found is not None else OUTSIDE


def progress(state: RunState) -> str:
    """The progress of a training from the last line of its history: epoch, step, rate and time left."""
    last: dict[str, Any] | None = state.last
    if last is None:
        return "no step reported yet"
    recipe = state.run.recipe
    words = []
    if isinstance(recipe, ClassificationRecipe | DetectionRecipe):
        words.append(f"epoch {recipe.epochs * state.steps / state.total:.1f} of {recipe.epochs}")
    words.append(f"step {state.steps:,} of {state.total:,}")
    if last.get("images_per_s") is not None:
        words.append(f"{last['images_per_s']:,.1f} images/s")
    if last.get("eta_s") is not None:
        words.append(f"{format_duration(last['eta_s'])} left")
    return ", ".join(words)


def _began(process: int) -> float:
    """When a process was started, in seconds since 1970; 0 if it is not known."""
    with suppress(psutil.Error):
        return psutil.Process(process).create_time()
    return 0.0


def _recover_command(experiment: Experiment) -> str:
    return f"hafabench cluster recover --experiment {shlex.quote(path_argument(experiment.file))}"


def _is_own(experiment: Experiment, file: Path | None, folder: Path) -> bool:
    """Whether a driver with this experiment file may run the experiment, as far as it is known."""
    return file is None or file.resolve() == (folder / experiment.file).resolve()


def _driver(experiment: Experiment, folder: Path, drivers: Mapping[int, Path | None]) -> str:
    """A sentence about the drivers in a folder.

    Args:
        experiment: The experiment.
        folder: The working folder of the workflow.
        drivers: The experiment files of the drivers by their processes.
    """
    own = [process for process, file in drivers.items() if _is_own(experiment, file, folder)]
    if own:
        return f"the driver runs here, process {', '.join(map(str, own))}"
    if drivers:
        others = (
            f"process {process} is one of {os.path.relpath(file, folder)}"
            for process, file in drivers.items()
            if file
        )
        return f"no driver of this experiment runs here; {', '.join(others)}"
    if is_locked(folder):
        return (
            "the folder is locked and no driver runs on this machine; if none runs on another machine either, "
            f"continue with `{_recover_command(experiment)}`, which looks for jobs that still run, and do not unlock "
            "it yourself"
        )
    return "no driver runs here"


def render(status: Status, *, everything: bool = False) -> str:
    """The status as text.

    Args:
        status: The status.
        everything: Whether to list jobs that are done or to do as well, instead of only counting them.
    """
    counts = Counter(job.state for job in status.jobs)
    lines = [", ".join(f"{counts[state]} {state}" for state in reversed(ORDER) if counts[state]), status.driver]
    if status.slurm:
        lines.append(f"the queue is not shown: {status.slurm}")
    lines += status.notes
    hidden = () if everything else ("to do", "done")
    width = max((len(job.job.id) for job in status.jobs if job.state not in hidden), default=0)
    driven_since = status.driven_since if status.is_driven else None
    for state in ORDER:
        shown = [job for job in status.jobs if job.state == state]
        if state not in hidden and shown:
            lines += ["", state, *(line for job in shown for line in _lines(job, width, driven_since))]
    if not status.is_driven and any(job.state in _UNSUCCESSFUL for job in status.jobs):
        lines += _repeat(status)
    return "\n".join(lines)


def render_failed(status: Status) -> str:
    """Failed and interrupted jobs by reason, each with its log and its command, and the command that repeats all."""
    failed = [job for job in status.jobs if job.state in _UNSUCCESSFUL]
    if not failed:
        return "no job has failed"
    lines = [f"{len(failed)} failed or interrupted"]
    for kind, heading in HEADINGS.items():
        shown = [job for job in failed if job.kind == kind]
        width = max((len(job.job.id) for job in shown), default=0)
        if shown:
            lines += ["", f"{heading} ({len(shown)})", *(line for job in shown for line in _lines(job, width))]
    return "\n".join([*lines, *_repeat(status)])


def _repeat(status: Status) -> list[str]:
    if status.recover:
        sentence = f"After `{status.recover}` has unlocked the folder, this command runs all of them again:"
    else:
        sentence = "This command runs all of them again:"
    lines = ["", sentence, f"  {status.command}"]
    if any(job.is_kept for job in status.jobs):
        lines.append(f"Jobs whose earlier outputs are kept run again only if they are forced ({FORCE_OPTION}).")
    return lines


def _lines(status: JobStatus, width: int, driven_since: float | None = None) -> list[str]:
    """The lines about a job.

    Args:
        status: The job.
        width: The width of the first column.
        driven_since: When the driver was started that runs now and may submit the job again; None if none runs.
    """
    slurm_job = f"job {status.slurm_id}" if status.slurm_id else ""
    words = [status.job.id.ljust(width), one_line(status.detail), slurm_job, status.node]
    lines = ["  " + "  ".join(word for word in words if word).rstrip()]
    if status.state not in _UNSUCCESSFUL:
        return lines
    if driven_since is not None:
        lines.append(f"    next: {_next(status, driven_since)}")
    if status.log is not None:
        lines.append(f"    log: {status.log}")
    return [*lines, f"    again: {status.job.command}"]


def _next(status: JobStatus, driven_since: float) -> str:
    """What a driver that runs does about a job whose last attempt was not successful.

    Args:
        status: The job.
        driven_since: When the driver was started, in seconds since 1970.
    """
    if status.ended is not None and status.ended < driven_since:
        return "this was before the driver was started, which runs it again if what it makes was requested"
    if status.attempt is None:
        return "the driver runs it again when it notices the end, if an attempt is left"
    number, attempts = status.attempt
    if number < attempts:
        return f"the driver runs it again, attempt {number + 1} of {attempts}"
    if status.kind == "refused":
        return "Slurm would refuse it again; the driver does not submit it again"
    return f"no attempt is left of {attempts}; the driver does not run it again"
