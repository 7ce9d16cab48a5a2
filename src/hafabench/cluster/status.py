"""The state of every job of an experiment, from its files, its logs and Slurm's queue; no driver is needed.

Without Slurm only files and logs are read, and a job whose history or log has grown recently counts as running.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafabench.cluster.commands import CommandFailed, Runner, is_installed, run
from hafabench.cluster.queue import QueuedJob, live_jobs_of
from hafabench.config.experiment import Experiment
from hafabench.config.recipes import ClassificationRecipe, DetectionRecipe
from hafabench.formatting.durations import format_duration
from hafabench.formatting.text import one_line
from hafabench.runs.attempts import last_lines
from hafabench.runs.job_log import BEGINS
from hafabench.runs.jobs import Job, JobList
from hafabench.runs.lease import WAITS, holder_of
from hafabench.runs.snakemake import driver_processes, is_locked, jobs_by_comment, slurm_log_folder
from hafabench.runs.state import FRESH_S, JobState, RunState, job_states
from hafabench.runs.verified_data import data_of, different_data

ORDER = ("running", "queued", "failed", "interrupted", "stale", "collapsed", "to do", "done")
# The last attempt has ended, and the job is not done.
_UNSUCCESSFUL = ("failed", "interrupted")
# Shown instead of a node for a job outside Slurm whose process is not known.
OUTSIDE = "without a Slurm job"


@dataclass(frozen=True)
class JobStatus:
    """One job of the experiment.

    Attributes:
        job: The job.
        state: One of `ORDER`; ``to do``: not submitted yet; ``collapsed``: done, but the training diverged, or did
            not begin because that of its starting weights diverged.
        detail: Its progress, the reason why it waits, or the last line of its log; may be empty.
        node: Where it runs.
        slurm_id: Slurm's id of its live Slurm job.
        log: The file to read about a failed or interrupted job.
    """

    job: Job
    state: str
    detail: str = ""
    node: str = ""
    slurm_id: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class Status:
    """The jobs of an experiment, and whether a driver runs them.

    Attributes:
        jobs: In the order of the workflow; optional jobs only while they are in Slurm's queue.
        driver: A sentence about the driver.
        slurm: The reason why the queue is not shown; empty if it is shown.
        notes: Sentences about records that come from different data.
    """

    jobs: tuple[JobStatus, ...]
    driver: str
    slurm: str
    notes: tuple[str, ...] = ()


def experiment_status(
    experiment: Experiment, folder: Path | None = None, runner: Runner = run, fresh_s: float = FRESH_S
) -> Status:
    """Return the state of every job.

    Args:
        experiment: A checked experiment.
        folder: The working folder of the workflow; the current one by default.
        runner: Runs Slurm's commands.
        fresh_s: A job that is not in Slurm's queue counts as running if its files grew within this many seconds;
            0 if no job can be running.

    Raises:
        UserError: If the jobs cannot be listed (`hafabench.runs.jobs.JobList`).
    """
    folder = folder or Path.cwd()
    queued, slurm = _queue(experiment, folder, runner)
    jobs = JobList(experiment)
    states = job_states(jobs, fresh_s)
    found = [
        _status(experiment.name, states[job.id], queued.get(comment))
        for comment, job in jobs_by_comment(jobs).items()
        if job.id in jobs or comment in queued
    ]
    records = [state.run.record for state in states.values() if state.run and state.job.rule == "evaluate_run"]
    notes = different_data(data_of(record) for record in records if record is not None)
    return Status(tuple(found), _driver(folder), slurm, tuple(notes))


def _queue(experiment: Experiment, folder: Path, runner: Runner) -> tuple[dict[str, QueuedJob], str]:
    """Live Slurm jobs of an experiment by comment, and why there are none. A running one replaces a pending one."""
    if runner is run and not is_installed():
        return {}, "no Slurm on this machine"
    try:
        jobs = live_jobs_of(experiment, folder, runner)
    except CommandFailed as error:
        return {}, f"squeue failed: {_last_error(error.message)}"
    # A job that waits for the end of another one comes before the one for which it waits.
    jobs.sort(key=lambda job: (not job.is_pending, job.reason != "Dependency"))
    return {job.comment: job for job in jobs}, ""


def _last_error(message: str) -> str:
    """Return the last of squeue's errors, which it prints one per line as ``squeue: error: ...``."""
    return re.split(r"\bsqueue: (?:(?:error|fatal): )?", message)[-1]


def _status(experiment: str, state: JobState, queued: QueuedJob | None) -> JobStatus:
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
    if state.state == "interrupted":
        detail = progress(training) if training is not None else "ended without an error message"
        return JobStatus(job, "interrupted", detail, log=state.log)
    if state.state == "failed":
        return JobStatus(job, "failed", state.last_line, log=state.log)
    return JobStatus(job, state.state, "; ".join(state.changes))


def _waits_for_lease(experiment: str, job: Job, queued: QueuedJob) -> str:
    """What a running Slurm job last said, if it waits for the lease of its run; empty otherwise."""
    if job.run is None:
        return ""
    lines = last_lines(slurm_log_folder(experiment, job) / f"{queued.id}.log")
    said = next((line for line in reversed(lines) if WAITS in line or line.startswith(BEGINS.decode())), "")
    return said.removeprefix(f"{job.run.id}: ") if WAITS in said else ""


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


def _driver(folder: Path) -> str:
    drivers = driver_processes(folder)
    if drivers:
        return f"the driver runs here, process {', '.join(map(str, drivers))}"
    if is_locked(folder):
        return (
            "the folder is locked and no driver runs on this machine; if none runs on another machine either, "
            "continue with `hafabench cluster recover`, which looks for jobs that still run, and do not unlock it"
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
    for state in ORDER:
        shown = [job for job in status.jobs if job.state == state]
        if state not in hidden and shown:
            lines += ["", state, *(line for job in shown for line in _lines(job, width))]
    return "\n".join(lines)


def render_failed(status: Status) -> str:
    """Only failed and interrupted jobs, each with the reason, its log and the command that repeats it."""
    failed = [job for job in status.jobs if job.state in _UNSUCCESSFUL]
    width = max((len(job.job.id) for job in failed), default=0)
    heading = f"{len(failed)} failed or interrupted" if failed else "no job has failed"
    return "\n".join([heading, *(line for job in failed for line in _lines(job, width))])


def _lines(status: JobStatus, width: int) -> list[str]:
    slurm_job = f"job {status.slurm_id}" if status.slurm_id else ""
    words = [status.job.id.ljust(width), one_line(status.detail), slurm_job, status.node]
    lines = ["  " + "  ".join(word for word in words if word).rstrip()]
    if status.state in _UNSUCCESSFUL and status.log is not None:
        lines += [f"    log: {status.log}", f"    again: {status.job.command}"]
    return lines
