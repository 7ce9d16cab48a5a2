"""One function that runs all of Slurm's commands, with a time limit."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence

from hafabench.errors import UserError

# An operating system limits the length of an argument and of all arguments together.
IDS_PER_COMMAND = 1000
_SHOWN_CHARACTERS = 300
# A controller under load answers late, and one that is down does not answer at all.
TIMEOUT_S = 60.0
# With these environment variables users filter what Slurm's commands print, make scancel ask, and change times.
_CHANGES_ANSWERS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SLURM_TIME_FORMAT")

# Runs a command: (arguments, time limit in seconds) -> standard output. Tests replace it by recorded answers.
Runner = Callable[[Sequence[str], float], str]


class CommandFailed(UserError):
    """A command is missing, failed, or did not answer in time.

    Attributes:
        message: The message of the command itself, without its command line.
    """

    def __init__(self, sentence: str, message: str = ""):
        super().__init__(sentence)
        self.message = message or sentence


def run(arguments: Sequence[str], timeout: float = TIMEOUT_S) -> str:
    """Run a command and return its standard output.

    Raises:
        CommandFailed: If it is not installed, fails, or takes longer than ``timeout`` seconds.
    """
    line = shlex.join(arguments)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_CHANGES_ANSWERS)}
    if len(line) > _SHOWN_CHARACTERS:
        line = f"{line[:_SHOWN_CHARACTERS]}..."
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise CommandFailed(f"{arguments[0]}: not found; this machine has no Slurm commands") from None
    except OSError as error:
        raise CommandFailed(f"{line}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{line}: no answer within {timeout:g} s", f"no answer within {timeout:g} s") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise CommandFailed(f"{line}: {message}", message)
    return done.stdout


def in_chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ids of Slurm jobs in groups that one command line can contain."""
    for start in range(0, len(ids), IDS_PER_COMMAND):
        yield ids[start : start + IDS_PER_COMMAND]


def is_installed(command: str = "squeue") -> bool:
    """Whether Slurm's commands are on the path."""
    return shutil.which(command) is not None


def slurm_release(runner: Runner = run) -> tuple[int, int]:
    """The major and minor release of the installed Slurm: (22, 5) for ``slurm-wlm 22.05.8``.

    Raises:
        CommandFailed: If Slurm's commands are not installed.
    """
    words = runner(["sinfo", "--version"], TIMEOUT_S).split()
    release = release_of(words[-1]) if words else None
    if release is None:
        raise CommandFailed(f"sinfo --version: expected a release, found {' '.join(words)!r}")
    return release


def release_of(version: str) -> tuple[int, int] | None:
    """The release in a version: (22, 5) for both ``22.05.8`` and ``22.5.3``; None for anything else."""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return int(parts[0]), int(parts[1])
