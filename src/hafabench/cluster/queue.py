"""The live jobs of a working folder, as squeue shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hafabench.cluster.commands import TIMEOUT_S, Runner, run
from hafabench.runs.jobs import PREFIX

# Job, name, state, reason, node, time used, time limit, comment, working folder; the folder last, it may hold a bar.
_FORMAT = "%i|%j|%T|%r|%N|%M|%l|%k|%Z"
# States in which a job can hold, or get, nodes again.
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED", "RESV_DEL_HOLD")


@dataclass(frozen=True)
class QueuedJob:
    """A job that is pending, running or ending.

    Attributes:
        id: Slurm's.
        name: of the driver's run; all jobs of one driver share it.
        state: Slurm's word (``PENDING``, ``RUNNING``, ``COMPLETING``, ...).
        reason: why it waits, Slurm's word; ``None`` (the text) while it runs.
        node: where it runs; empty while it waits.
        elapsed, limit: time used and time limit, as Slurm prints them.
        comment: which cell it is.
        folder: its working folder.
    """

    id: str
    name: str
    state: str
    reason: str
    node: str
    elapsed: str
    limit: str
    comment: str
    folder: str

    @property
    def is_pending(self) -> bool:
        """Whether it waits for nodes."""
        return self.state in PENDING


def live_jobs(folder: Path, runner: Runner = run) -> list[QueuedJob]:
    """Jobs that a workflow submitted from ``folder`` and that have not ended, oldest first.

    Others from the same folder, such as an interactive session, are left out: they carry no comment of a rule.

    Raises:
        CommandFailed: where squeue does not answer.
    """
    text = runner(["squeue", "--me", "--noheader", f"--format={_FORMAT}"], TIMEOUT_S)
    here = folder.resolve()
    jobs = [QueuedJob(*fields) for line in text.splitlines() if len(fields := line.strip().split("|", 8)) == 9]
    mine = [job for job in jobs if job.comment.startswith(PREFIX) and Path(job.folder).resolve() == here]
    return sorted(mine, key=lambda job: (len(job.id), job.id))


def cancel(jobs: Sequence[QueuedJob], runner: Runner = run) -> None:
    """Cancel jobs; they take a moment to end.

    Raises:
        CommandFailed: where scancel refuses.
    """
    if jobs:
        runner(["scancel", *(job.id for job in jobs)], TIMEOUT_S)
