"""After a killed driver: its jobs go on. See them, wait for or cancel them, and only then give the folder free.

A new driver does not find the old one's jobs: started beside them it would submit the same cells again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from hafabench.cluster.commands import Runner, run
from hafabench.cluster.queue import QueuedJob, cancel, live_jobs
from hafabench.errors import UserError
from hafabench.runs.snakemake import driver_processes, is_locked

UNLOCK_TIMEOUT_S = 300


def recover(
    folder: Path,
    unlock: Sequence[str],
    mode: Literal["show", "wait", "cancel"],
    say: Callable[[str], None],
    runner: Runner = run,
    every_s: float = 10.0,
) -> None:
    """Make a folder usable again for a new driver, once nothing of an old one is left.

    Args:
        folder: the workflow's working folder.
        unlock: the command that removes the lock.
        mode: what to do about live jobs: ``show`` them and stop there, ``wait`` for their ends, or ``cancel`` them.
        say: called with each line of report.
        runner: of Slurm's commands.
        every_s: between looks at the queue.

    Raises:
        UserError: where a driver still runs here, live jobs are left alone, the queue cannot be seen, or unlocking
            fails. The folder is then as it was.
    """
    _refuse_beside_driver(folder)
    jobs = live_jobs(folder, runner)
    for job in jobs:
        say(describe(job))
    if jobs and mode == "show":
        message = f"{len(jobs)} live jobs of this folder; nothing was changed. Wait for them with --wait, or cancel"
        raise UserError(f"{message} them with --cancel")
    if jobs and mode == "cancel":
        cancel(jobs, runner)
        say(f"cancelled {len(jobs)} jobs")
    _wait_for_ends(folder, jobs, say, runner, every_s)
    _refuse_beside_driver(folder)
    if not is_locked(folder):
        say("no live jobs; the folder is not locked")
        return
    _unlock(folder, unlock)
    say("no live jobs; unlocked. Start the driver again: finished cells stay, trainings resume")


def describe(job: QueuedJob) -> str:
    """A live job in one line."""
    where = f"waiting: {job.reason}" if job.is_pending else f"{job.state.lower()} on {job.node} for {job.elapsed}"
    return f"job {job.id}  {job.comment.removeprefix('rule_')}  {where}"


def _refuse_beside_driver(folder: Path) -> None:
    drivers = driver_processes(folder)
    if drivers:
        processes = ", ".join(map(str, drivers))
        raise UserError(
            f"a driver runs in this folder (process {processes}): it looks after its jobs and its lock; stop it first"
        )


def _wait_for_ends(
    folder: Path, jobs: list[QueuedJob], say: Callable[[str], None], runner: Runner, every_s: float
) -> None:
    while jobs:
        time.sleep(every_s)
        left = live_jobs(folder, runner)
        if len(left) != len(jobs):
            say(f"{len(left)} jobs left")
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
        said = " ".join(done.stdout.split()[-60:])
        raise UserError(f"the folder could not be unlocked: {said or f'exit code {done.returncode}'}")


def unlock_command(experiment: Path, snakefile: Path | None = None) -> list[str]:
    """What removes the lock of the workflow in a folder."""
    command = [sys.executable, "-m", "snakemake", "--unlock", "--cores", "1", "--configfile", str(experiment)]
    return [*command, "--snakefile", str(snakefile)] if snakefile else command
