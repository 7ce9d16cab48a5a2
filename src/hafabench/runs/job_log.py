"""The log of a job that needs the lease of a run: ``command 2>&1 | python -m hafabench.runs.job_log FILE``.

Snakemake deletes the file that a rule declares as its log before it starts a command, and a redirection empties it.
If another process trains the run, this would be the log of that process. This program therefore copies its input to
its output, as tee does, but writes the file only from the line on with which an attempt begins, because a command
writes this line when it has the lease. The file is then a new one. A process that has lost its lease continues to
write into the old one, which has no name any more.

With ``--quiet`` it copies nothing to its output, unless the file cannot be written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The first words of the line with which an attempt begins.
BEGINS = b"hafabench: begins "
_CHUNK = 65536


def copy(log: Path, source: int = 0, target: int = 1, is_quiet: bool = False) -> None:
    """Copy until the source ends. What precedes the beginning of an attempt is written into the file as well.

    If no attempt begins, the file is only written if no other process seems to have the lease of the run.

    Args:
        log: The file, in the folder of the run.
        source: File descriptor to read from.
        target: File descriptor to write to.
        is_quiet: Whether only what is not written into the file is copied to ``target``.
    """
    before: bytes | None = b""
    file: int | None = None
    is_whole = True
    while chunk := os.read(source, _CHUNK):
        written = chunk
        if before is not None:
            before += chunk
            if before.startswith(BEGINS) or b"\n" + BEGINS in before:
                file, written = _new(log), before
                is_whole, before = _write(file, written), None
        elif is_whole:
            is_whole = _write(file, chunk)
        if not is_quiet:
            _write(target, chunk)
        elif not is_whole:
            _write(target, written)
    if before:
        # This import takes a third of a second.
        from hafabench.runs.lease import is_in_use

        is_other = is_in_use(log.parent)
        if not is_other:
            file = _new(log)
            is_whole = _write(file, before)
        if is_quiet and (is_other or not is_whole):
            _write(target, before)
    if file is not None:
        os.close(file)
    if not is_whole:
        _write(target, f"{log}: not written completely; the output of the job is only shown here\n".encode())


def _new(log: Path) -> int | None:
    """Replace the file and return its descriptor; None if it cannot be written."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        return None


def _write(file: int | None, content: bytes) -> bool:
    """Write everything, or return False."""
    if file is None:
        return False
    try:
        while content:
            content = content[os.write(file, content) :]
    except OSError:
        return False
    return True


if __name__ == "__main__":
    copy(Path(sys.argv[1]), is_quiet=sys.argv[2:] == ["--quiet"])
