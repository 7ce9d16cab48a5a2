"""Findings about the chain from an experiment to its reported numbers.

Each part of the chain, a link, has functions that check one file or value against what it was made from. They stand
next to the readers of these files, so that a command that reads a file and `hafabench audit` check the same. Such a
function returns a list of findings, which is empty if everything holds, or None if there was nothing to check: the
file or what it was made from is not on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hafabench.errors import Problem

Link = Literal["experiment", "data", "checkpoint", "predictions", "record", "frame", "table", "report", "baseline"]
"""A part of the chain, in the order in which each is made from the one before it."""
LINKS: tuple[Link, ...] = get_args(Link)


@dataclass(frozen=True)
class Finding:
    """Something that does not hold.

    Attributes:
        link: The part of the chain that is broken.
        file: The file that does not agree with what it was made from.
        says: What does not hold and what the user can do about it, as one sentence without a full stop.
        key: The dotted key or item in the file; empty if the finding is about the whole file.
    """

    link: Link
    file: str
    says: str
    key: str = ""

    def as_problem(self) -> Problem:
        """The finding as a problem, for commands that refuse the file."""
        return Problem(self.file, self.key, self.says)

    def __str__(self) -> str:
        return str(self.as_problem())
