"""The findings of a check of the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: ``problem`` if jobs would fail or wait forever, ``note`` for other information, ``ok`` if all is well.
        about: What it is about, usually a key of the site file.
        sentence: What was found, and how to correct it.
    """

    level: Literal["ok", "note", "problem"]
    about: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.level:7}  {self.about}: {self.sentence}"


def listed(names: Iterable[str]) -> str:
    """Sorted names as part of a sentence."""
    return ", ".join(sorted(names)) or "none"
