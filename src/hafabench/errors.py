"""Errors of the user's input. The command line prints them as text instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A problem of something that the user provided.

    Attributes:
        file: File with the problem, as the user wrote its path, or the name of another source of input.
        key: Dotted key, annotation or item in the file; empty for a problem of the whole file.
        message: What was found and what was expected.
        line: Line in ``file``, starting at 1; None if it is unknown.
    """

    file: str
    key: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class UserError(Exception):
    """Invalid input, with every problem that was found. Its text has one line per problem."""

    def __init__(self, problems: Problem | str | Iterable[Problem | str]):
        if isinstance(problems, Problem | str):
            problems = [problems]
        self.problems: list[Problem | str] = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))
