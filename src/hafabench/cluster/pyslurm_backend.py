"""Attempts through pyslurm, for the interfaces of its releases 22.x and 25.11.

Each release of pyslurm fits one release of Slurm, so it is used only where both are the same. It loads only the last
attempt of a requeued Slurm job; earlier attempts are read from sacct. Release 22.x does not report GPUs; they are
read from the ``--gpus`` of the submission.
"""

from __future__ import annotations

import getpass
import importlib
import re
from collections.abc import Iterable
from datetime import datetime
from types import ModuleType
from typing import Any

from hafabench.cluster.accounting import Accounting, Attempt, Sacct, comment_of
from hafabench.cluster.commands import CommandFailed, Runner, release_of, run, slurm_release

NAME = "pyslurm"


class PySlurm:
    """Attempts from ``pyslurm.db``.

    Args:
        module: The imported package.
        runner: Runs sacct, for what pyslurm does not report.
    """

    name = NAME

    def __init__(self, module: ModuleType, runner: Runner = run):
        self._pyslurm = module
        self._sacct = Sacct(runner)

    def attempts(self, since: datetime) -> list[Attempt]:
        db = self._pyslurm.db
        # Release 22.x first named the filter JobSearchFilter and kept that as an alias.
        make_filter = getattr(db, "JobFilter", None) or db.JobSearchFilter
        wanted = make_filter(users=[getpass.getuser()], start_time=int(since.timestamp()))
        try:
            loaded = db.Jobs.load(wanted)
        except self._pyslurm.RPCError as error:
            raise CommandFailed(f"pyslurm: {error}") from None
        jobs = list(_values(loaded))
        last = [_attempt(job) for job in jobs if job.start_time]
        found = last + self._earlier_attempts(jobs, last)
        return sorted(found, key=lambda attempt: (attempt.started or "", int(attempt.job_id)))

    def _earlier_attempts(self, jobs: list[Any], last: list[Attempt]) -> list[Attempt]:
        # Release 22.x does not count requeues: any job may have earlier attempts.
        requeued = [str(job.id) for job in jobs if getattr(job, "requeue_count", 1)]
        known = {(attempt.job_id, attempt.started) for attempt in last}
        earlier = self._sacct.of_jobs(requeued)
        return [attempt for attempt in earlier if (attempt.job_id, attempt.started) not in known]


def choose_accounting(runner: Runner = run) -> tuple[Accounting, str]:
    """The backend for this cluster, and a sentence on why it was chosen."""
    sentence = pyslurm_problem(runner)
    if sentence is None:
        module = importlib.import_module(NAME)
        return PySlurm(module, runner), f"through pyslurm {module.__version__}"
    return Sacct(runner), f"through sacct: {sentence}"


def pyslurm_problem(runner: Runner = run) -> str | None:
    """Why pyslurm is not used here, as a clause; None if it is used."""
    try:
        module = importlib.import_module(NAME)
    except ModuleNotFoundError as error:
        missing = "is not installed" if error.name == NAME else f"lacks the module {error.name}"
        return f"pyslurm {missing}"
    except (ImportError, OSError) as error:
        # The package is linked against a Slurm that is not installed.
        return f"pyslurm cannot be loaded: {str(error).splitlines()[0]}"
    version = str(getattr(module, "__version__", "?"))
    try:
        slurm = slurm_release(runner)
    except CommandFailed as error:
        return str(error)
    if release_of(version) != slurm:
        return f"pyslurm {version} is not for this cluster's Slurm {slurm[0]}.{slurm[1]:02d}"
    return None


def _values(loaded: Any) -> Iterable[Any]:
    """The jobs of a collection: a mapping by id in 22.x and 25.11, a list in between."""
    return loaded.values() if hasattr(loaded, "values") else loaded


def _attempt(job: Any) -> Attempt:
    steps = list(_values(job.steps))
    memory = [step.stats.max_resident_memory for step in steps if step.stats.max_resident_memory]
    # A step may report OUT_OF_MEMORY even if the job does not.
    killed = any(step.state == "OUT_OF_MEMORY" for step in steps)
    return Attempt(
        job_id=str(job.id),
        state="OUT_OF_MEMORY" if killed else job.state,
        exit_code=job.exit_code or 0,
        elapsed_s=float(job.elapsed_time or 0),
        gpus=_gpus(job),
        cpus=job.cpus or 0,
        cpu_s=float(job.stats.total_cpu_time) or None,
        peak_memory_mb=round(max(memory) / 1e6, 1) if memory else None,
        gpu_use=None,
        nodes=job.nodelist if job.nodelist and job.nodelist != "None assigned" else "",
        submitted=_time(job.submit_time),
        started=_time(job.start_time),
        ended=_time(job.end_time),
        name=job.name or "",
        comment=job.comment or comment_of(job.submit_command or ""),
        folder=job.working_directory or "",
        submit_line=job.submit_command or "",
    )


def _gpus(job: Any) -> int:
    """Allocated GPUs (25.11), or those that the submission requested (22.x does not report GPUs)."""
    allocated = getattr(job, "gpus", None)
    if allocated is not None:
        # Typed and untyped entries count the same devices.
        untyped = [gpu.count for gpu in allocated.values() if gpu.type is None]
        return untyped[0] if untyped else sum(gpu.count for gpu in allocated.values())
    requested = re.search(r"--gpus[= ](?:[\w.-]+:)?(\d+)", job.submit_command or "")
    return int(requested.group(1)) if requested else 0


def _time(seconds: int | None) -> str | None:
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds") if seconds else None
