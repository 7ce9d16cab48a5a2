"""The errors of a command that are the user's to correct, as messages."""

from __future__ import annotations

from hafabench.cli.extras import missing_extra
from hafabench.errors import Problem, UserError


def messages_of(error: Exception) -> list[str]:
    """Return the messages of an error that the user can correct; none for an error of this program.

    These are a `UserError`, a missing optional package, and a file that cannot be used: its name is too long, or a
    folder above it cannot be entered.
    """
    if isinstance(error, UserError):
        return [str(problem) for problem in error.problems]
    if isinstance(error, ModuleNotFoundError):
        message = missing_extra(error.name or "")
        return [message] if message else []
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes) and error.strerror:
        name = error.filename if isinstance(error.filename, str) else error.filename.decode(errors="replace")
        return [str(Problem(name, "", f"cannot be used: {error.strerror}"))]
    return []
