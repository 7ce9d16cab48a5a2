"""Reservations of nodes, such as those for maintenance."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from hafabench.cluster.commands import TIMEOUT_S, CommandFailed, Runner


@dataclass(frozen=True)
class Reservation:
    """A reservation of nodes, as scontrol shows it."""

    name: str
    start: datetime
    end: datetime
    nodes: frozenset[str]

    def __str__(self) -> str:
        return f"the reservation {self.name!r}"


def read_reservations(runner: Runner) -> list[Reservation]:
    """The reservations of nodes, by their start. The list is empty if they cannot be read."""
    found = []
    try:
        for line in runner(["scontrol", "--oneliner", "show", "reservation"], TIMEOUT_S).splitlines():
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if words.get("Nodes", "(null)") in ("(null)", "") or "ReservationName" not in words:
                continue
            names = runner(["scontrol", "show", "hostnames", words["Nodes"]], TIMEOUT_S).split()
            start, end = (datetime.fromisoformat(words[name]) for name in ("StartTime", "EndTime"))
            found.append(Reservation(words["ReservationName"], start, end, frozenset(names)))
    except (CommandFailed, KeyError, ValueError):
        return []
    return sorted(found, key=lambda reservation: reservation.start)


def named_reservations(options: str) -> set[str]:
    """The reservations that options of sbatch name: ``--reservation=a,b``."""
    return {name for text in re.findall(r"--reservation[= ](\S+)", options) for name in text.split(",")}
