"""Jobs that run without Slurm: processes of this machine, and trainings on other machines that share the folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from hafabench.formatting.durations import format_duration
from hafabench.runs.attempts import AS_JOB
from hafabench.runs.lease import Holder, holder_of, is_held
from hafabench.runs.run import Run

PROGRAM = "hafabench"


@dataclass(frozen=True)
class LocalJob:
    """A process of this machine that a driver started for a job.

    Attributes:
        pid: Its process id.
        began: When it began, in seconds since 1970.
        command: Its command without the program: ``train classification/pvt_tiny/seed0 ...``.
        slurm_job: The id of the Slurm job in which it runs; None outside Slurm.
    """

    pid: int
    began: float
    command: str
    slurm_job: str | None

    def __str__(self) -> str:
        elapsed = format_duration(max(time.time() - self.began, 0.0))
        return f"process {self.pid}  {self.command}  running on this machine for {elapsed}"


@dataclass(frozen=True)
class RemoteJob:
    """A process of another machine that has the lease of a run.

    Attributes:
        run_id: The run.
        holder: The process.
    """

    run_id: str
    holder: Holder

    def __str__(self) -> str:
        words = f"process {self.holder.pid}  {self.holder.verb} {self.run_id}  running on {self.holder.host}"
        return f"{words}, which Slurm job {self.holder.slurm_job} started" if self.holder.slurm_job else words


def local_jobs(folder: Path) -> list[LocalJob]:
    """The jobs that drivers in ``folder`` started on this machine and that still run, oldest first.

    Of the processes of one job, only the one that started the others is returned. Commands that were started by hand
    are not jobs.
    """
    root = folder.resolve()
    found: dict[int, tuple[LocalJob, int]] = {}
    for process in psutil.process_iter(["cmdline", "cwd", "ppid", "create_time"]):
        about = process.info
        # psutil gives None if the operating system does not show the value, as of another user's process.
        if not about["cmdline"] or about["cwd"] is None or Path(about["cwd"]).resolve() != root:
            continue
        command = _command(about["cmdline"])
        environment: dict[str, str] = {}
        with suppress(psutil.Error, OSError):
            environment = process.environ()
        if command is None or AS_JOB not in environment or process.pid == os.getpid():
            continue
        job = LocalJob(process.pid, about["create_time"], command, environment.get("SLURM_JOB_ID"))
        found[process.pid] = (job, about["ppid"])
    first = [job for job, parent in found.values() if parent not in found]
    return sorted(first, key=lambda job: (job.began, job.pid))


def remote_jobs(
    runs: Iterable[Run], slurm_jobs: Collection[str] = (), has_ended: Callable[[str], bool] = lambda _job: False
) -> list[RemoteJob]:
    """The processes of other machines that train or evaluate runs, according to their leases.

    Such a process of a Slurm job that is not in the queue may run on a node that has lost contact.

    Args:
        runs: The runs of an experiment.
        slurm_jobs: The ids of Slurm jobs that are known to be live. Their processes are left out.
        has_ended: Tells whether the processes of a Slurm job are known to have ended, given its id.
    """
    found = []
    for run in runs:
        about = holder_of(run.folder)
        if about is None or about[0].is_here or about[0].slurm_job in slurm_jobs or not is_held(run, about[0].verb):
            continue
        if about[0].slurm_job is None or not has_ended(about[0].slurm_job):
            found.append(RemoteJob(run.id, about[0]))
    return found


def stop(jobs: Sequence[LocalJob]) -> None:
    """Ask jobs to end. A training finishes its step and saves its state first."""
    for job in jobs:
        with suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGTERM)


def _command(words: Sequence[str]) -> str | None:
    """The command of this program in a command line; None if there is none."""
    names = [Path(word).name for word in words]
    if PROGRAM not in names or names[0] in ("sh", "bash"):
        return None
    return " ".join(words[names.index(PROGRAM) + 1 :])
