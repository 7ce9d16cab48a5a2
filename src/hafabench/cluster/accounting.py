"""What Slurm jobs have used, read from Slurm's accounting through one of two backends.

pyslurm is used if it is installed for the cluster's release of Slurm, and `sacct` otherwise. An *attempt* is one
execution of a job on nodes: a requeued Slurm job has several attempts under one id, and each of them costs GPU-hours.
"""

from __future__ import annotations

import getpass
import re
from datetime import datetime
from typing import Protocol

from pydantic import Field

from hafabench.cluster.commands import CommandFailed, Runner, run
from hafabench.config.base import StrictModel

SACCT_TIMEOUT_S = 180.0
_MEMORY_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
# Free text comes last, so that a bar in it cannot shift other fields.
_FIELDS = (
    *("JobIDRaw", "State", "ExitCode", "ElapsedRaw", "AllocTRES", "NCPUS", "TotalCPU", "MaxRSS", "TRESUsageInAve"),
    *("NodeList", "Submit", "Start", "End", "JobName", "Comment", "WorkDir", "SubmitLine"),
)
_ROW = re.compile(r"^\d+(\.\w+)?\|")


class Attempt(StrictModel):
    """One execution of a job on nodes.

    Attributes:
        job_id: Slurm's id; attempts after a requeue share it.
        state: How it ended, or ``RUNNING``; ``OUT_OF_MEMORY`` also if only one of its steps reports that.
        exit_code: The exit code of the batch script.
        elapsed_s: Wall-clock seconds on nodes.
        gpus, cpus: GPUs and CPUs over all nodes.
        cpu_s: CPU seconds that its processes used; None while they are unknown.
        peak_memory_mb: The largest resident memory of one task of any step in 10^6 bytes; None if unknown.
        gpu_use: The share of the GPUs' time in which kernels ran, from 0 to 1; None if the cluster does not record
            it.
        nodes: The list of nodes as Slurm prints it.
        submitted, started, ended: Local times (ISO 8601); None for what has not happened yet.
        name, comment, folder, submit_line: The name of the job, and the comment, working folder and command line of
            its submission. They are not stored.
    """

    job_id: str
    state: str
    exit_code: int
    elapsed_s: float
    gpus: int
    cpus: int
    cpu_s: float | None
    peak_memory_mb: float | None
    gpu_use: float | None
    nodes: str
    submitted: str | None
    started: str | None
    ended: str | None
    name: str = Field("", exclude=True)
    comment: str = Field("", exclude=True)
    folder: str = Field("", exclude=True)
    submit_line: str = Field("", exclude=True)

    @property
    def gpu_hours(self) -> float:
        """GPUs times wall-clock hours."""
        return self.gpus * self.elapsed_s / 3600


class Accounting(Protocol):
    """A source of attempts."""

    name: str

    def attempts(self, since: datetime) -> list[Attempt]:
        """The user's attempts since a point in time, oldest first.

        Raises:
            CommandFailed: If the accounting cannot be read.
        """
        ...


class Sacct:
    """Attempts from ``sacct --duplicates``. Its named fields are the same in all releases, unlike its JSON."""

    name = "sacct"

    def __init__(self, runner: Runner = run):
        self._run = runner

    def attempts(self, since: datetime) -> list[Attempt]:
        return self._read(f"--user={getpass.getuser()}", f"--starttime={since:%Y-%m-%dT%H:%M:%S}")

    def of_jobs(self, job_ids: list[str]) -> list[Attempt]:
        """All attempts of the given jobs."""
        return self._read(f"--jobs={','.join(job_ids)}") if job_ids else []

    def _read(self, *selection: str) -> list[Attempt]:
        options = ["--duplicates", "--parsable2", "--noheader", "--units=K", f"--format={','.join(_FIELDS)}"]
        return parse_sacct(self._run(["sacct", *options, *selection], SACCT_TIMEOUT_S))


def parse_sacct(text: str) -> list[Attempt]:
    """Parse the lines of sacct: the line of a job, then those of its steps, and the same for each requeue.

    Raises:
        CommandFailed: If a line does not have the requested fields.
    """
    blocks: list[tuple[dict[str, str], list[dict[str, str]]]] = []
    for line in _rows(text):
        parts = line.split("|", len(_FIELDS) - 1)
        if len(parts) != len(_FIELDS):
            raise CommandFailed(f"sacct: expected {len(_FIELDS)} fields, found {len(parts)} in {line[:120]!r}")
        fields = dict(zip(_FIELDS, parts, strict=True))
        if "." in fields["JobIDRaw"]:
            if blocks:
                blocks[-1][1].append(fields)
        else:
            blocks.append((fields, []))
    # A Slurm job that never had nodes has cost nothing.
    found = [_attempt(job, steps) for job, steps in blocks if _time(job["Start"]) is not None]
    return sorted(found, key=lambda attempt: (attempt.started or "", int(attempt.job_id)))


def _rows(text: str) -> list[str]:
    """The rows of the output. Rows that were split by a line break in a submission are joined again."""
    rows: list[str] = []
    for line in text.splitlines():
        if _ROW.match(line) or not rows:
            rows.append(line)
        else:
            rows[-1] += f" {line}"
    return [row for row in rows if row.strip()]


def _attempt(job: dict[str, str], steps: list[dict[str, str]]) -> Attempt:
    states = [_state(step["State"]) for step in steps]
    memory = [mb for step in steps if (mb := _memory_mb(step["MaxRSS"])) is not None]
    uses = [use for step in steps if (use := _gpu_use(step["TRESUsageInAve"])) is not None]
    return Attempt(
        job_id=job["JobIDRaw"],
        state="OUT_OF_MEMORY" if "OUT_OF_MEMORY" in states else _state(job["State"]),
        exit_code=int(job["ExitCode"].partition(":")[0] or 0),
        elapsed_s=float(job["ElapsedRaw"] or 0),
        gpus=gpus_of_tres(job["AllocTRES"]),
        cpus=int(job["NCPUS"] or 0),
        cpu_s=_seconds(job["TotalCPU"]),
        peak_memory_mb=max(memory, default=None),
        gpu_use=max(uses, default=None),
        nodes="" if job["NodeList"] == "None assigned" else job["NodeList"],
        submitted=_time(job["Submit"]),
        started=_time(job["Start"]),
        ended=_time(job["End"]),
        name=job["JobName"],
        # Slurm's database stores the comment only when the job ends.
        comment=job["Comment"] or comment_of(job["SubmitLine"]),
        folder=job["WorkDir"],
        submit_line=job["SubmitLine"],
    )


def comment_of(submit_line: str) -> str:
    """The comment in a submission's command line; empty if there is none."""
    found = re.search(r"--comment[= ]'?([\w./-]+)", submit_line)
    return found.group(1) if found else ""


def gpus_of_tres(text: str) -> int:
    """The GPUs in a list of trackable resources: ``cpu=8,gres/gpu:a100=4,gres/gpu=4`` -> 4."""
    counts = {}
    for item in text.split(","):
        name, _, count = item.partition("=")
        if (name == "gres/gpu" or name.startswith("gres/gpu:")) and count.isdecimal():
            counts[name] = int(count)
    return counts.get("gres/gpu", sum(counts.values()))


def _gpu_use(text: str) -> float | None:
    found = re.search(r"gres/gpuutil=(\d+(?:\.\d+)?)", text)
    return float(found.group(1)) / 100 if found else None


def _state(text: str) -> str:
    # "CANCELLED by 1000"
    return text.split()[0] if text.split() else "UNKNOWN"


def _memory_mb(text: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", text)
    return round(float(found.group(1)) * _MEMORY_UNITS[found.group(2)] / 1e6, 1) if found else None


def _seconds(text: str) -> float | None:
    """Slurm's ``[days-][hours:]minutes:seconds[.fraction]`` in seconds; None for an empty or zero time."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds or None


def _time(text: str) -> str | None:
    return text if re.match(r"\d{4}-", text) else None
