"""What a user did wrong, said in sentences: the only exception type that the command line turns into text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with something the user gave us.

    Attributes:
        file: the file that holds the mistake (as the user wrote its path), or what stands for one.
        key: the dotted key, annotation or item inside the file; empty where the whole file is meant.
        message: what was found and what was expected.
        line: 1-based line in ``file``, where known.
    """

    file: str
    key: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class UserError(Exception):
    """Bad input. Carries every problem found at once; ``str()`` gives one line per problem."""

    def __init__(self, problems: Problem | str | Iterable[Problem | str]):
        if isinstance(problems, Problem | str):
            problems = [problems]
        self.problems: list[Problem | str] = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))
