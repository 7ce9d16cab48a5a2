"""What a check of the cluster finds, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: ``problem``: jobs would fail or wait for ever; ``note``: good to know; ``ok``.
        about: what it is about, usually a key of the site file.
        sentence: what was found, and what would put it right.
    """

    level: Literal["ok", "note", "problem"]
    about: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.level:7}  {self.about}: {self.sentence}"


def listed(names: Iterable[str]) -> str:
    """Names in order, as part of a sentence."""
    return ", ".join(sorted(names)) or "none"
