"""A replacement of Slurm's commands that returns recorded outputs, for machines without Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hafabench.cluster.commands import CommandFailed

# Comment of the Slurm job that trains classification/pvt_tiny/seed0.
COMMENT = "rule_train_run_wildcards_classification_pvt_tiny_0"
# What the executor appends to the names of the Slurm jobs of one driver.
UUID = "b1f0c1a2-1111-4222-8333-444455556666"


@dataclass
class RecordedCommands:
    """Runs no program, but returns the recorded output of each."""

    outputs: dict[str, str]
    calls: list[list[str]] = field(default_factory=list)

    def __call__(self, arguments: Sequence[str], timeout: float) -> str:
        assert timeout > 0
        self.calls.append(list(arguments))
        answer = self.outputs.get(arguments[0])
        if answer is None:
            raise CommandFailed(f"{arguments[0]}: not found; this machine has no Slurm commands")
        return answer


def squeue(*lines: str) -> RecordedCommands:
    """Return commands of which `squeue` prints these lines."""
    return RecordedCommands({"squeue": "".join(f"{line}\n" for line in lines), "scancel": ""})


def squeue_line(
    job: int | str,
    state: str,
    folder: Path,
    comment: str = COMMENT,
    reason: str = "None",
    node: str = "node1",
    name: str = f"hafabench-digits_{UUID}",
) -> str:
    """Return the line that `squeue` prints about a job.

    Args:
        job: Slurm's id of the job.
        state: State of the job, for example ``RUNNING``.
        folder: Working directory of the job.
        comment: Comment of the job, which names its rule and wildcards.
        reason: Why the job waits.
        node: Node of a running job.
        name: Name of the job, which names the experiment.
    """
    return f"{job}|{name}|{state}|{reason}|{node}|1:02:03|1-00:00:00|{comment}|{folder}"
