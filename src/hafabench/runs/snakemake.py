"""The workflow's driver in a folder: whether one runs on this machine, and whether one has left its lock behind."""

from __future__ import annotations

import os
from pathlib import Path

LOCKS = Path(".snakemake/locks")


def is_locked(folder: Path) -> bool:
    """Whether a driver has locked the folder; a driver that was killed leaves the lock behind."""
    locks = folder / LOCKS
    return locks.is_dir() and any(locks.iterdir())


def driver_processes(folder: Path) -> list[int]:
    """Processes on this machine that drive the workflow in ``folder``, by id; those inside jobs are left out."""
    here, found = folder.resolve(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            where = (process / "cwd").resolve(strict=True)
        except OSError:
            # It ended meanwhile, or belongs to someone else.
            continue
        if where == here and _drives(words) and int(process.name) != os.getpid():
            found.append(int(process.name))
    return sorted(found)


def _drives(words: list[bytes]) -> bool:
    called = [word.rpartition(b"/")[2] for word in words[:3]]
    # Jobs run the same program, in a mode of its own.
    return b"snakemake" in called and b"--mode" not in words
