"""The errors of a command that are the user's to correct, as messages."""

from __future__ import annotations

from pathlib import Path

from hafabench.cli.extras import missing_extra
from hafabench.errors import Problem, UserError
from hafabench.files import is_full_disk, why_not_written


def messages_of(error: Exception) -> list[str]:
    """Return the messages of an error that the user can correct; none for an error of this program.

    These are a `UserError`, a missing optional package, a full disk, and a file that cannot be used: its name is too
    long, or a folder above it cannot be entered.
    """
    if isinstance(error, UserError):
        return [str(problem) for problem in error.problems]
    if isinstance(error, ModuleNotFoundError):
        message = missing_extra(error.name or "")
        return [message] if message else []
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes) and error.strerror:
        name = error.filename if isinstance(error.filename, str) else error.filename.decode(errors="replace")
        why = why_not_written(error, Path(name)) if is_full_disk(error) else f"cannot be used: {error.strerror}"
        return [str(Problem(name, "", why))]
    if isinstance(error, OSError) and is_full_disk(error):
        return [f"the output was {why_not_written(error)}"]
    return []
