"""What Slurm jobs have used, read from Slurm's accounting through one of two backends.

pyslurm is used if it is installed for the cluster's release of Slurm, and `sacct` otherwise. An *attempt* is one
execution of a job on nodes: a requeued Slurm job has several attempts under one id, and each of them costs GPU-hours.
"""

from __future__ import annotations

import getpass
import re
import time
from datetime import datetime
from typing import Protocol

from pydantic import Field

from hafabench.cluster.commands import CommandFailed, Runner, in_chunks, run
from hafabench.config.base import StrictModel

SACCT_TIMEOUT_S = 180.0
# For questions about more jobs than one command line can contain.
ALL_JOBS_TIMEOUT_S = 600.0
# Slurm stores these numbers for values that it does not know: NO_VAL and INFINITE, of 32 and 64 bits.
_NO_VALUES = frozenset(2**bits - less for bits in (32, 64) for less in (1, 2))
_MEMORY_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
# Free text comes last, so that a bar in it cannot shift other fields.
_FIELDS = (
    *("JobIDRaw", "State", "ExitCode", "ElapsedRaw", "AllocTRES", "NCPUS", "TotalCPU", "MaxRSS", "TRESUsageInAve"),
    *("NodeList", "Submit", "Start", "End", "JobName", "Comment", "WorkDir", "SubmitLine"),
)
_ROW = re.compile(r"^\d+(\.[\w+]+)?\|")


class Attempt(StrictModel):
    """One execution of a job on nodes.

    Attributes:
        job_id: Slurm's id; attempts after a requeue share it.
        state: How it ended, or ``RUNNING``; ``OUT_OF_MEMORY`` also if only one of its steps reports that.
        exit_code: The exit code of the batch script.
        elapsed_s: Wall-clock seconds on nodes.
        gpus: GPUs over all nodes; None if unknown.
        cpus: CPUs over all nodes; 0 if unknown.
        cpu_s: CPU seconds that its processes used; None while they are unknown.
        peak_memory_mb: The largest resident memory of one task of any step in 10^6 bytes; None if unknown.
        gpu_use: The share of the GPUs' time in which kernels ran, from 0 to 1; None if the cluster does not record
            it.
        nodes: The list of nodes as Slurm prints it.
        submitted, started, ended: Local times (ISO 8601); None for what has not happened yet.
        name, comment, folder, submit_line: The name of the job, and the comment, working folder and command line of
            its submission. They are not stored.
    """

    job_id: str = Field(pattern=r"^\d+$")
    state: str
    exit_code: int
    elapsed_s: float
    gpus: int | None
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
    def key(self) -> tuple[str, str | None]:
        """What distinguishes it from other attempts, also from those of the same Slurm job."""
        return self.job_id, self.started

    @property
    def gpu_hours(self) -> float:
        """GPUs times wall-clock hours; 0 if the number of GPUs is unknown."""
        return (self.gpus or 0) * self.elapsed_s / 3600

    def with_values_of(self, earlier: Attempt) -> Attempt:
        """Return this attempt with the values that only another reading of the same attempt knows.

        Args:
            earlier: The other reading, by the same or another backend. If it knows the end of the attempt and this
                one does not, its values come first.
        """
        first, second = (earlier, self) if earlier.ended and not self.ended else (self, earlier)
        # A zero may also stand for a value that a backend cannot read.
        values = {name: getattr(first, name) or getattr(second, name) for name in type(self).model_fields}
        if values["gpus"] is None:
            values["gpus"] = first.gpus
        if first.state == "UNKNOWN" or second.state == "OUT_OF_MEMORY":
            values["state"] = second.state
        return Attempt(**values)


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
        """All attempts of the given jobs, oldest first.

        Raises:
            CommandFailed: If the accounting cannot be read, or not within ten minutes.
        """
        deadline, found, done = time.monotonic() + ALL_JOBS_TIMEOUT_S, [], 0
        for ids in in_chunks(job_ids):
            left = deadline - time.monotonic()
            if left <= 0:
                read = f"{done:,} of {len(job_ids):,} jobs"
                raise CommandFailed(f"sacct: only {read} were read within {ALL_JOBS_TIMEOUT_S:g} s; read fewer days")
            found += self._read(f"--jobs={','.join(ids)}", timeout=min(SACCT_TIMEOUT_S, left))
            done += len(ids)
        return sorted(found, key=in_time)

    def _read(self, *selection: str, timeout: float = SACCT_TIMEOUT_S) -> list[Attempt]:
        options = ["--duplicates", "--parsable2", "--noheader", "--units=K", f"--format={','.join(_FIELDS)}"]
        return parse_sacct(self._run(["sacct", *options, *selection], timeout))


def in_time(attempt: Attempt) -> tuple[str, int]:
    """The key by which attempts are sorted."""
    return attempt.started or "", int(attempt.job_id)


def known(value: float | None) -> float | None:
    """A number of Slurm's accounting; None for the numbers by which it says that it does not know the value."""
    # NaN equals nothing, and infinity is no number of a job.
    return value if value is not None and 0 <= value < 2**63 and value not in _NO_VALUES else None


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
    return sorted(found, key=in_time)


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
        exit_code=_count(job["ExitCode"].partition(":")[0]),
        elapsed_s=float(_count(job["ElapsedRaw"])),
        gpus=gpus_of_tres(job["AllocTRES"]),
        cpus=_count(job["NCPUS"]),
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


def _count(text: str) -> int:
    return int(known(int(text)) or 0) if text.isdecimal() else 0


def gpus_of_tres(text: str) -> int | None:
    """The GPUs in a list of trackable resources: ``cpu=8,gres/gpu:a100=4,gres/gpu=4`` -> 4; None if it is empty."""
    if not text:
        return None
    counts = {}
    for item in text.split(","):
        name, _, count = item.partition("=")
        if (name == "gres/gpu" or name.startswith("gres/gpu:")) and count.isdecimal():
            counts[name] = int(count)
    return counts.get("gres/gpu", sum(counts.values()))


def _gpu_use(text: str) -> float | None:
    found = re.search(r"gres/gpuutil=(\d+(?:\.\d+)?)", text)
    percent = known(float(found.group(1))) if found else None
    return None if percent is None else percent / 100


def _state(text: str) -> str:
    # "CANCELLED by 1000"
    return text.split()[0] if text.split() else "UNKNOWN"


def _memory_mb(text: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", text)
    size = known(float(found.group(1)) * _MEMORY_UNITS[found.group(2)]) if found else None
    return round(size / 1e6, 1) if size else None


def _seconds(text: str) -> float | None:
    """Slurm's ``[days-][hours:]minutes:seconds[.fraction]`` in seconds; None for an empty or zero time."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds or None


def _time(text: str) -> str | None:
    return text if re.match(r"\d{4}-", text) else None
