"""Recovery from a killed driver: show what it left running, wait for it or end it, then unlock the folder.

The Slurm jobs and the local processes of a killed driver continue. A new driver does not know about them and would
start the same jobs again. On Slurm these would wait for those of the killed driver, and on one machine for the leases
of the runs (`hafabench.runs.lease`).

Outputs of jobs that finished after the driver was killed are kept (`hafabench.runs.kept_outputs`).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hafabench.cluster.commands import CommandFailed, Runner, run
from hafabench.cluster.local import LocalJob, RemoteJob, local_jobs, remote_jobs, stop
from hafabench.cluster.queue import QueuedJob, cancel, has_ended, live_jobs
from hafabench.config.experiment import Experiment
from hafabench.errors import UserError
from hafabench.runs.jobs import JobList
from hafabench.runs.kept_outputs import keep_finished
from hafabench.runs.run import Run
from hafabench.runs.snakemake import driver_processes, experiment_label, is_locked, used_slurm, without_prefix

UNLOCK_TIMEOUT_S = 300


@dataclass(frozen=True)
class _Live:
    """What still runs for the jobs of a folder."""

    queued: list[QueuedJob] = field(default_factory=list)
    local: list[LocalJob] = field(default_factory=list)
    remote: list[RemoteJob] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.queued) + len(self.local) + len(self.remote)

    def lines(self) -> list[str]:
        return [*map(describe, self.queued), *map(str, self.local), *map(str, self.remote)]


def recover(
    folder: Path,
    unlock: Sequence[str],
    mode: Literal["show", "wait", "cancel"],
    report_progress: Callable[[str], None],
    runner: Runner = run,
    every_s: float = 10.0,
    experiment: Experiment | None = None,
) -> None:
    """Unlock a folder for a new driver once no job of an old driver is left.

    Args:
        folder: The working folder of the workflow.
        unlock: The command that removes the lock.
        mode: What to do about live jobs: ``show`` them and stop, ``wait`` until they end, or ``cancel`` them. A
            training that is cancelled on this machine saves its state first.
        report_progress: Called with each line of the report.
        runner: Runs Slurm's commands.
        every_s: Seconds between two looks at the live jobs.
        experiment: The experiment that the driver ran. Finished outputs of its jobs are kept.

    Raises:
        UserError: If a driver still runs in the folder, live jobs are only shown or cannot be cancelled from here,
            the queue cannot be read, or unlocking fails. The folder stays locked then.
    """
    _refuse_beside_driver(folder)
    jobs = JobList(experiment) if experiment is not None else None
    runs = list(jobs.runs.values()) if jobs is not None else []
    live = _live(folder, runs, runner)
    for line in live.lines():
        report_progress(line)
    if len(live) and mode == "show":
        message = f"{len(live)} live jobs of this folder; nothing was changed. Wait for them with --wait, or cancel"
        raise UserError(f"{message} them with --cancel")
    if mode == "cancel":
        _cancel(live, report_progress, runner)
    while len(live):
        time.sleep(every_s)
        left = _live(folder, runs, runner)
        if len(left) != len(live):
            report_progress(f"{len(left)} jobs left")
        live = left
    _refuse_beside_driver(folder)
    # The command that unlocks the folder also reads the workflow, which would keep outputs without a word here.
    for output in keep_finished(jobs, folder, _is_intact) if jobs is not None else []:
        report_progress(f"finished and kept: {output}")
    if not is_locked(folder):
        report_progress("no live jobs; the folder is not locked")
        return
    _unlock(folder, unlock)
    report_progress("no live jobs; unlocked. Start the driver again: it skips finished jobs and resumes trainings")


def _live(folder: Path, runs: Sequence[Run], runner: Runner) -> _Live:
    try:
        queued = live_jobs(folder, runner)
    except CommandFailed as error:
        # On a machine without Slurm, a folder from which nothing was submitted has no Slurm jobs.
        if used_slurm(folder):
            sentence = (
                "Slurm jobs of this folder may still run; nothing was changed. Repeat this where squeue answers"
            )
            raise CommandFailed(f"{error}. {sentence}", error.message) from None
        queued = []
    known = {job.id for job in queued}
    local = [job for job in local_jobs(folder) if job.slurm_job not in known]
    return _Live(queued, local, remote_jobs(runs, known, lambda job: has_ended(job, runner)))


def _cancel(live: _Live, report_progress: Callable[[str], None], runner: Runner) -> None:
    if live.remote:
        message = "cannot be ended from this machine; end it there, or wait for its end with --wait"
        raise UserError(f"{live.remote[0].run_id}: {live.remote[0].holder} {message}; nothing was changed")
    cancel(live.queued, runner)
    stop(live.local)
    if len(live):
        report_progress(f"cancelled {len(live)} jobs")


def _is_intact(run: Run) -> bool:
    # This imports torch, which takes seconds.
    from hafabench.models.checkpoints.final import is_finished

    return is_finished(run)


def describe(job: QueuedJob) -> str:
    """A live Slurm job in one line."""
    state = f"waiting: {job.reason}" if job.is_pending else f"{job.state.lower()} on {job.node} for {job.elapsed}"
    label = experiment_label(job.name, Path(job.folder))
    experiment = f"experiment {label}" if label is not None else "an unknown experiment"
    return f"job {job.id} of {experiment}  {without_prefix(job.comment)}  {state}"


def _refuse_beside_driver(folder: Path) -> None:
    drivers = driver_processes(folder)
    if drivers:
        processes = ", ".join(map(str, drivers))
        raise UserError(
            f"a driver runs in this folder (process {processes}) and manages its jobs and its lock; stop it first"
        )


def _unlock(folder: Path, command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=UNLOCK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"the folder could not be unlocked: {error}") from None
    if done.returncode or is_locked(folder):
        message = " ".join(done.stdout.split()[-60:])
        raise UserError(f"the folder could not be unlocked: {message or f'exit code {done.returncode}'}")
