"""Jobs that request more than at first, because an attempt ran out of memory or time.

The driver counts these attempts while it runs, and tells a job on a node the counts by an environment variable. Every
other failure repeats a job with the same request. Outside Slurm nothing is counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

# Contains the counts of memory and time of the job that runs in this environment, such as ``1,0``.
VARIABLE = "HAFABENCH_GROWTH"


@dataclass(frozen=True)
class Growth:
    """How many attempts of a job ran out of memory, and how many out of time.

    Attributes:
        memory: Attempts that needed more memory than they had requested.
        time: Attempts that reached their time limit, or stopped shortly before it.
    """

    memory: int = 0
    time: int = 0

    @property
    def text(self) -> str:
        """The counts, as the environment variable contains them."""
        return f"{self.memory},{self.time}"


NONE = Growth()
_counted: dict[tuple[str, ...], Growth] = {}


def growth_of(rule: str, wildcards: Iterable[str] = ()) -> Growth:
    """Return the counts of a job.

    Args:
        rule: The rule of the job.
        wildcards: The values of its wildcards.
    """
    told = os.environ.get(VARIABLE, "").split(",")
    if len(told) == 2 and all(part.isdecimal() for part in told):
        return Growth(*map(int, told))
    return _counted.get((rule, *wildcards), NONE)


def count(want: Literal["memory", "time"], rule: str, wildcards: Iterable[str] = ()) -> Growth:
    """Count an attempt that ran out of memory or time, and return the counts of the job.

    Args:
        want: What the attempt needed more of.
        rule: The rule of the job.
        wildcards: The values of its wildcards.
    """
    key = (rule, *wildcards)
    before = _counted.get(key, NONE)
    _counted[key] = replace(before, **{want: getattr(before, want) + 1})
    return _counted[key]
