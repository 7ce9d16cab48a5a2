"""Findings about the chain from an experiment to its reported numbers.

Each part of the chain, a link, has functions that check one file or value against what it was made from. They stand
next to the readers of these files, so that a command that reads a file and `hafabench audit` check the same. Such a
function returns a list of findings, which is empty if everything holds, or None if there was nothing to check: the
file or what it was made from is not on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(frozen=True)
class LinkCheck:
    """The check of one link of the chain.

    Attributes:
        link: The link.
        things: What was checked, a plural noun that ends in s.
        checked: How many of them were checked.
        unchecked: How many could not be checked.
        why_unchecked: Why not, as a clause about all of them.
        findings: What does not hold.
    """

    link: Link
    things: str
    checked: int
    unchecked: int = 0
    why_unchecked: str = "not on this machine"
    findings: tuple[Finding, ...] = ()

    @property
    def broken(self) -> int:
        """The number of things that do not hold: the files that findings are about."""
        return min(len({finding.file for finding in self.findings}), max(self.checked, 1))

    @property
    def sentence(self) -> str:
        """How many things hold, do not hold and were not checked, as a clause without a full stop."""
        parts = []
        if self.broken:
            broken = f"{self.broken} {'does' if self.broken == 1 else 'do'} not"
            parts.append(f"{self.checked - self.broken} of {self._number(self.checked)} hold, {broken}")
        elif self.checked:
            parts.append(f"{self._number(self.checked)} {'holds' if self.checked == 1 else 'hold'}")
        if self.unchecked:
            number = f"{self.unchecked} more" if parts else self._number(self.unchecked)
            parts.append(f"{number} {'was' if self.unchecked == 1 else 'were'} not checked ({self.why_unchecked})")
        return "; ".join(parts) or f"there are no {self.things}"

    def _number(self, number: int) -> str:
        return f"{number} {self.things.removesuffix('s') if number == 1 else self.things}"


def do_hold(checks: Iterable[LinkCheck]) -> bool:
    """Return whether nothing was found in any link."""
    return not any(check.findings for check in checks)


def audit_lines(checks: Iterable[LinkCheck]) -> list[str]:
    """Return the summary of an audit: a line for each link, followed by what does not hold in it."""
    lines = []
    for check in checks:
        lines += [f"{check.link}: {check.sentence}", *map(str, check.findings)]
    return lines
