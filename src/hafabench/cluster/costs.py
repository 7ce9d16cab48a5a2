"""The cost of every job of an experiment over all attempts.

It is read from Slurm, stored in a file, and shown as a table. Accounting databases delete old entries. Attempts that
were read once stay in the experiment's ``accounting.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from hafabench.cluster.accounting import Accounting, Attempt, in_time
from hafabench.cluster.commands import Runner, run
from hafabench.cluster.queue import live_jobs
from hafabench.config.base import StrictModel
from hafabench.config.experiment import Experiment
from hafabench.config.json_file import read_json_model
from hafabench.files import write_text
from hafabench.formatting.csv import render_csv
from hafabench.formatting.markdown import escape_inline, markdown_table
from hafabench.runs.jobs import Job, JobList, job_id
from hafabench.runs.snakemake import is_submitted_for, jobs_by_comment


class JobCost(StrictModel):
    """One job with all attempts that were made.

    Attributes:
        rule, subject: The job.
        attempts: Its attempts, oldest first.
    """

    rule: str
    subject: str
    attempts: list[Attempt] = Field(min_length=1, alias="turns")

    @property
    def id(self) -> str:
        """The id of the job."""
        return job_id(self.rule, self.subject)

    @property
    def state(self) -> str:
        """State of the last attempt."""
        return self.attempts[-1].state

    @property
    def submissions(self) -> int:
        """The number of Slurm jobs submitted."""
        return len({attempt.job_id for attempt in self.attempts})

    @property
    def requeues(self) -> int:
        """How often Slurm queued one of them again."""
        return len(self.attempts) - self.submissions

    @property
    def elapsed_h(self) -> float:
        """Wall-clock hours on nodes."""
        return sum(attempt.elapsed_s for attempt in self.attempts) / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all attempts whose GPUs are known."""
        return sum(attempt.gpu_hours for attempt in self.attempts)

    @property
    def peak_memory_mb(self) -> float | None:
        """The peak memory of any attempt."""
        return max(
            (attempt.peak_memory_mb for attempt in self.attempts if attempt.peak_memory_mb is not None), default=None
        )

    @property
    def cpu_use(self) -> float | None:
        """Share of the allocated CPUs' time that was used, 0 to 1, over the attempts for which it is known."""
        known = [attempt for attempt in self.attempts if attempt.cpu_s is not None and attempt.cpus]
        allocated = sum(attempt.cpus * attempt.elapsed_s for attempt in known)
        return sum(attempt.cpu_s or 0 for attempt in known) / allocated if allocated else None

    @property
    def gpu_use(self) -> float | None:
        """Share of the allocated GPUs' time in which kernels ran, over the attempts for which it is known."""
        known = [attempt for attempt in self.attempts if attempt.gpu_use is not None and attempt.gpus]
        allocated = sum(attempt.gpu_hours for attempt in known)
        used = sum((attempt.gpu_use or 0) * attempt.gpu_hours for attempt in known)
        return used / allocated if allocated else None

    @property
    def nodes(self) -> list[str]:
        """The nodes that it ran on, without duplicates."""
        return list(dict.fromkeys(attempt.nodes for attempt in self.attempts if attempt.nodes))


class AccountingRecord(StrictModel):
    """What an experiment has cost on a cluster.

    Attributes:
        experiment: The name of the experiment.
        backend: Where the attempts were read from, ``sacct`` or ``pyslurm``.
        updated: When they were read (ISO 8601, local time).
        jobs: The jobs that have run, in the order of the workflow.
    """

    schema_: Literal["hafabench.accounting/1"] = Field("hafabench.accounting/1", alias="schema")
    experiment: str
    backend: str
    updated: str
    jobs: list[JobCost] = Field(alias="cells")

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs."""
        return sum(job.gpu_hours for job in self.jobs)


def accounting_file(experiment: Experiment) -> Path:
    """The path of an experiment's accounting."""
    return experiment.results / "accounting.json"


def update_accounting(
    experiment: Experiment, accounting: Accounting, since: datetime, folder: Path | None = None
) -> AccountingRecord:
    """Read the accounting, add what is new to the experiment's file, and return the whole.

    Values that are stored and that the accounting does not know now are kept.

    Args:
        experiment: The experiment whose jobs are looked for.
        accounting: The source of attempts.
        since: The earliest time of attempts that are read.
        folder: The working folder of the workflow; the current one by default.

    Raises:
        UserError: If the accounting cannot be read, or the file does not follow this schema.
    """
    path, jobs = accounting_file(experiment), jobs_by_comment(JobList(experiment))
    attempts: dict[str, dict[tuple[str, str | None], Attempt]] = {job.id: {} for job in jobs.values()}
    for cost in read_accounting(path).jobs if path.exists() else []:
        attempts.setdefault(cost.id, {}).update({attempt.key: attempt for attempt in cost.attempts})
    stored = {key: identifier for identifier, found in attempts.items() for key in found}
    found = accounting.attempts(since)
    owned = [(job.id, attempt) for job, attempt in assign(experiment, jobs, found, folder or Path.cwd())]
    # An attempt that is stored is known by its id and its start, also if its comment is not reported now.
    owned += [(stored[one.key], one) for one in found if not one.comment and one.key in stored]
    for identifier, attempt in owned:
        earlier = attempts[identifier].get(attempt.key)
        attempts[identifier][attempt.key] = attempt.with_values_of(earlier) if earlier else attempt
    content = {
        "schema": "hafabench.accounting/1",
        "experiment": experiment.name,
        "backend": accounting.name,
        "updated": datetime.now().isoformat(timespec="seconds"),
        "cells": [
            {
                "rule": identifier.split(" ")[0],
                "subject": identifier.partition(" ")[2],
                "turns": [attempt.model_dump() for attempt in sorted(found.values(), key=in_time)],
            }
            for identifier, found in attempts.items()
            if found
        ],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
    return AccountingRecord.model_validate(content)


def complete_accounting(
    experiment: Experiment,
    accounting: Accounting,
    since: datetime,
    wait_s: float,
    runner: Runner = run,
    every_s: float = 3.0,
) -> AccountingRecord:
    """Repeat `update_accounting` until the ends of all Slurm jobs that have left the queue are known.

    Args:
        experiment: The experiment whose jobs are looked for.
        accounting: The source of attempts.
        since: The earliest time of attempts that are read.
        wait_s: The longest time to wait; Slurm's accounting is seconds behind its queue.
        runner: Runs squeue.
        every_s: Seconds between two readings.

    Raises:
        UserError: As `update_accounting`, or if the queue cannot be read.
    """
    deadline = time.monotonic() + wait_s
    while True:
        live = {job.id for job in live_jobs(Path.cwd(), runner)} if wait_s else set()
        record = update_accounting(experiment, accounting, since)
        attempts = (attempt for job in record.jobs for attempt in job.attempts)
        unknown = any(attempt.ended is None and attempt.job_id not in live for attempt in attempts)
        if not unknown or time.monotonic() >= deadline:
            return record
        time.sleep(every_s)


def assign(
    experiment: Experiment, jobs: Mapping[str, Job], attempts: Iterable[Attempt], folder: Path
) -> list[tuple[Job, Attempt]]:
    """Select the attempts that were made for jobs of an experiment.

    Args:
        experiment: The experiment.
        jobs: Its jobs by the comment of their Slurm jobs.
        attempts: Attempts of this and of other experiments.
        folder: The working folder of the workflow.

    Returns:
        Each attempt with its job.
    """
    here = folder.resolve()
    found = []
    for attempt in attempts:
        job = jobs.get(attempt.comment.strip())
        if job is None or Path(attempt.folder).resolve() != here:
            continue
        if is_submitted_for(experiment, attempt.name, attempt.submit_line, folder):
            found.append((job, attempt))
    return found


def read_accounting(path: Path) -> AccountingRecord:
    """Read and validate an experiment's accounting.

    Raises:
        UserError: With every problem at once, for a missing file, invalid JSON, or other content.
    """
    message = "no such file; `hafabench cluster account` makes it on a cluster with accounting"
    return read_json_model(path, AccountingRecord, missing=message)


COLUMNS = (
    *("rule", "subject", "state", "submissions", "requeues", "hours", "GPUs", "GPU-hours", "peak memory (MB)"),
    *("CPU use (%)", "GPU use (%)", "nodes"),
)


def cost_rows(record: AccountingRecord) -> list[tuple[str, ...]]:
    """One row of `COLUMNS` per job as texts; unknown values are empty."""
    return [
        (
            job.rule,
            job.subject,
            job.state,
            str(job.submissions),
            str(job.requeues),
            f"{job.elapsed_h:.3f}",
            "" if job.attempts[-1].gpus is None else str(job.attempts[-1].gpus),
            "" if all(attempt.gpus is None for attempt in job.attempts) else f"{job.gpu_hours:.3f}",
            "" if job.peak_memory_mb is None else f"{job.peak_memory_mb:.0f}",
            "" if job.cpu_use is None else f"{100 * job.cpu_use:.0f}",
            "" if job.gpu_use is None else f"{100 * job.gpu_use:.0f}",
            " ".join(job.nodes),
        )
        for job in record.jobs
    ]


def cost_markdown(record: AccountingRecord) -> str:
    """The cost table as Markdown."""
    rows = [(*row[:2], *map(escape_inline, row[2:])) for row in cost_rows(record)]
    lines = [
        f"# What {record.experiment} has cost",
        "",
        f"{record.gpu_hours:,.1f} GPU-hours over all attempts and requeues, by {escape_inline(record.backend)}, "
        f"{record.updated}. A value that Slurm does not know is left empty. Use is a share of the allocated time.",
        "",
        markdown_table(COLUMNS, rows, "lllrrrrrrrrl", is_markdown=True),
    ]
    return "\n".join(lines) + "\n"


def write_costs(record: AccountingRecord, reports: Path) -> list[Path]:
    """Write ``costs.md`` and ``costs.csv`` into an experiment's reports."""
    paths = [reports / "costs.md", reports / "costs.csv"]
    write_text(paths[0], cost_markdown(record))
    write_text(paths[1], render_csv(COLUMNS, cost_rows(record)))
    return paths
