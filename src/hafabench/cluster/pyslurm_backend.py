"""Attempts through pyslurm, for the interfaces of its releases 22.x and 25.11.

Each release of pyslurm fits one release of Slurm, so it is used only where both are the same. What it does not report
is read from sacct: the earlier attempts of a requeued Slurm job, in release 22.x the GPUs of every job, and comments
that it does not know.
"""

from __future__ import annotations

import getpass
import importlib
from collections.abc import Iterable
from datetime import datetime
from types import ModuleType
from typing import Any

from hafabench.cluster.accounting import Accounting, Attempt, Sacct, comment_of, in_time, known
from hafabench.cluster.commands import CommandFailed, Runner, release_of, run, slurm_release
from hafabench.runs.snakemake import is_job_comment

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
        found = {attempt.key: attempt for job in jobs if _time(job.start_time) for attempt in [_attempt(job)]}
        # Of jobs that no driver submitted, nothing more is needed.
        for attempt in self._sacct.of_jobs(
            [str(job.id) for job in jobs if _may_be_ours(job) and _is_incomplete(job)]
        ):
            own = found.get(attempt.key)
            found[attempt.key] = attempt if own is None else own.with_values_of(attempt)
        return sorted(found.values(), key=in_time)


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


def _comment(job: Any) -> str:
    return job.comment or comment_of(job.submit_command or "")


def _may_be_ours(job: Any) -> bool:
    """Whether a driver may have submitted a job; Slurm stores the comment of a job when it ends."""
    return is_job_comment(_comment(job)) or not job.submit_command


def _is_incomplete(job: Any) -> bool:
    """Whether sacct knows more about a job. Release 22.x does not count requeues: any job may have been requeued."""
    return bool(getattr(job, "requeue_count", 1)) or _gpus(job) is None or not _comment(job)


def _attempt(job: Any) -> Attempt:
    steps = list(_values(job.steps or []))
    memory = list(filter(None, (_statistic(step, "max_resident_memory") for step in steps)))
    cpu_ms = list(filter(None, (_statistic(step, "total_cpu_time") for step in steps)))
    # A step may report OUT_OF_MEMORY even if the job does not.
    killed = any(step.state == "OUT_OF_MEMORY" for step in steps)
    return Attempt(
        job_id=str(job.id),
        state="OUT_OF_MEMORY" if killed else job.state or "UNKNOWN",
        exit_code=int(known(job.exit_code) or 0),
        elapsed_s=float(known(job.elapsed_time) or 0),
        gpus=_gpus(job),
        cpus=int(known(job.cpus) or 0),
        # Up to release 25.5 the sum of the job, in seconds, is 0, and its steps have milliseconds. In later releases
        # the steps have seconds too, and the sum of the job is theirs.
        cpu_s=_statistic(job, "total_cpu_time") or (sum(cpu_ms) / 1000 or None),
        peak_memory_mb=round(max(memory) / 1e6, 1) if memory else None,
        gpu_use=None,
        nodes=job.nodelist if job.nodelist and job.nodelist != "None assigned" else "",
        submitted=_time(job.submit_time),
        started=_time(job.start_time),
        ended=_time(job.end_time),
        name=job.name or "",
        comment=_comment(job),
        folder=job.working_directory or "",
        submit_line=job.submit_command or "",
    )


def _statistic(job_or_step: Any, name: str) -> float | None:
    """A number among the statistics of a job or step; None if it is unknown, or if there are no statistics."""
    value = known(getattr(job_or_step.stats, name, None))
    return None if value is None else float(value)


def _gpus(job: Any) -> int | None:
    """The allocated GPUs (25.11); None if pyslurm does not report them (22.x)."""
    allocated = getattr(job, "gpus", None)
    if allocated is None:
        return None
    # Typed and untyped entries count the same devices.
    untyped = [gpu.count for gpu in allocated.values() if gpu.type is None]
    return untyped[0] if untyped else sum(gpu.count for gpu in allocated.values())


def _time(seconds: float | None) -> str | None:
    seconds = known(seconds)
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds") if seconds else None
