"""Recovery from a killed driver: show its live Slurm jobs, wait for them or cancel them, then unlock the folder.

The Slurm jobs of a killed driver continue. A new driver does not know about them and would submit the same jobs
again.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from hafabench.cluster.commands import Runner, run
from hafabench.cluster.queue import QueuedJob, cancel, live_jobs
from hafabench.errors import UserError
from hafabench.runs.snakemake import driver_processes, is_locked, without_prefix

UNLOCK_TIMEOUT_S = 300


def recover(
    folder: Path,
    unlock: Sequence[str],
    mode: Literal["show", "wait", "cancel"],
    report_progress: Callable[[str], None],
    runner: Runner = run,
    every_s: float = 10.0,
) -> None:
    """Unlock a folder for a new driver once no Slurm job of an old driver is left.

    Args:
        folder: The working folder of the workflow.
        unlock: The command that removes the lock.
        mode: What to do about live Slurm jobs: ``show`` them and stop, ``wait`` until they end, or ``cancel`` them.
        report_progress: Called with each line of the report.
        runner: Runs Slurm's commands.
        every_s: Seconds between two readings of the queue.

    Raises:
        UserError: If a driver still runs in the folder, live jobs are only shown, the queue cannot be read, or
            unlocking fails. The folder is then unchanged.
    """
    _refuse_beside_driver(folder)
    jobs = live_jobs(folder, runner)
    for job in jobs:
        report_progress(describe(job))
    if jobs and mode == "show":
        message = f"{len(jobs)} live jobs of this folder; nothing was changed. Wait for them with --wait, or cancel"
        raise UserError(f"{message} them with --cancel")
    if jobs and mode == "cancel":
        cancel(jobs, runner)
        report_progress(f"cancelled {len(jobs)} jobs")
    _wait_for_ends(folder, jobs, report_progress, runner, every_s)
    _refuse_beside_driver(folder)
    if not is_locked(folder):
        report_progress("no live jobs; the folder is not locked")
        return
    _unlock(folder, unlock)
    report_progress("no live jobs; unlocked. Start the driver again: it skips finished jobs and resumes trainings")


def describe(job: QueuedJob) -> str:
    """A live Slurm job in one line."""
    state = f"waiting: {job.reason}" if job.is_pending else f"{job.state.lower()} on {job.node} for {job.elapsed}"
    return f"job {job.id}  {without_prefix(job.comment)}  {state}"


def _refuse_beside_driver(folder: Path) -> None:
    drivers = driver_processes(folder)
    if drivers:
        processes = ", ".join(map(str, drivers))
        raise UserError(
            f"a driver runs in this folder (process {processes}) and manages its jobs and its lock; stop it first"
        )


def _wait_for_ends(
    folder: Path, jobs: list[QueuedJob], report_progress: Callable[[str], None], runner: Runner, every_s: float
) -> None:
    while jobs:
        time.sleep(every_s)
        left = live_jobs(folder, runner)
        if len(left) != len(jobs):
            report_progress(f"{len(left)} jobs left")
        jobs = left


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
