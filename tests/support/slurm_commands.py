"""A replacement of Slurm's commands that returns recorded outputs, for machines without Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hafabench.cluster.commands import CommandFailed


@dataclass
class Answers:
    """Runs no program, but returns the recorded output of each."""

    outputs: dict[str, str]
    asked: list[list[str]] = field(default_factory=list)

    def __call__(self, arguments: Sequence[str], timeout: float) -> str:
        assert timeout > 0
        self.asked.append(list(arguments))
        answer = self.outputs.get(arguments[0])
        if answer is None:
            raise CommandFailed(f"{arguments[0]}: not found; this machine has no Slurm commands")
        return answer
