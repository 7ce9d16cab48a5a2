"""What jobs took, as Slurm's accounting kept it: one interface, two backends.

pyslurm is used where it is installed for the cluster's own release of Slurm; `sacct` otherwise. An *attempt* is one
turn of a job on nodes: a requeued job has several under one id, and each of them cost GPU-hours.
"""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from hafabench.cluster.commands import CommandFailed, Runner, run

SACCT_TIMEOUT_S = 180.0
_MEMORY_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
# Free text last: a bar in it cannot shift the other fields.
_FIELDS = (
    *("JobIDRaw", "State", "ExitCode", "ElapsedRaw", "AllocTRES", "NCPUS", "TotalCPU", "MaxRSS", "TRESUsageInAve"),
    *("NodeList", "Submit", "Start", "End", "JobName", "Comment", "WorkDir", "SubmitLine"),
)
_ROW = re.compile(r"^\d+(\.\w+)?\|")


@dataclass(frozen=True)
class Attempt:
    """One turn of a job.

    Attributes:
        job_id: Slurm's; attempts after a requeue share it.
        state: how it ended, or ``RUNNING``; ``OUT_OF_MEMORY`` also where only a step says so.
        exit_code: of the batch script.
        elapsed_s: wall-clock seconds on nodes.
        gpus, cpus: that it had, over all nodes.
        cpu_s: CPU seconds that its processes used; None while Slurm does not know.
        peak_memory_mb: most resident memory of one task of any step (10^6 bytes); None where unknown.
        gpu_use: share of the GPUs' time that kernels ran on them, 0 to 1; None where the cluster does not gather it.
        nodes: list of nodes as Slurm prints it.
        submitted, started, ended: local times (ISO 8601); None where not yet.
        name, comment, folder, submit_line: of the submission.
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
    name: str
    comment: str
    folder: str
    submit_line: str

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
            CommandFailed: where the accounting does not answer.
        """
        ...


class Sacct:
    """Attempts from ``sacct --duplicates``, by named fields: its JSON differs between releases, these do not."""

    name = "sacct"

    def __init__(self, runner: Runner = run):
        self._run = runner

    def attempts(self, since: datetime) -> list[Attempt]:
        return self._ask(f"--user={getpass.getuser()}", f"--starttime={since:%Y-%m-%dT%H:%M:%S}")

    def of_jobs(self, job_ids: list[str]) -> list[Attempt]:
        """All attempts of the given jobs."""
        return self._ask(f"--jobs={','.join(job_ids)}") if job_ids else []

    def _ask(self, *selection: str) -> list[Attempt]:
        options = ["--duplicates", "--parsable2", "--noheader", "--units=K", f"--format={','.join(_FIELDS)}"]
        return parse_sacct(self._run(["sacct", *options, *selection], SACCT_TIMEOUT_S))


def parse_sacct(text: str) -> list[Attempt]:
    """Attempts from sacct's lines: a job's line, then those of its steps; a requeued job comes again.

    Raises:
        CommandFailed: for lines that are not of the fields asked for.
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
    # A job that never had nodes has cost nothing, and is no attempt yet.
    found = [_attempt(job, steps) for job, steps in blocks if _time(job["Start"]) is not None]
    return sorted(found, key=lambda attempt: (attempt.started or "", int(attempt.job_id)))


def _rows(text: str) -> list[str]:
    """Lines that begin a row, with those that a line break in a submission has split off joined to them."""
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
        # Slurm's data base learns the comment when the job ends.
        comment=job["Comment"] or comment_of(job["SubmitLine"]),
        folder=job["WorkDir"],
        submit_line=job["SubmitLine"],
    )


def comment_of(submit_line: str) -> str:
    """The comment that a job was submitted with; empty where there is none."""
    found = re.search(r"--comment[= ]'?([\w./-]+)", submit_line)
    return found.group(1) if found else ""


def gpus_of_tres(text: str) -> int:
    """GPUs in a list of trackable resources: ``cpu=8,gres/gpu:a100=4,gres/gpu=4`` holds 4."""
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
