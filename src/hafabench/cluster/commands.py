"""Slurm's commands, all through one function: arguments in, standard output out, never without a time limit."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence

from hafabench.errors import UserError

# A controller under load answers late; one that is down never does.
TIMEOUT_S = 60.0

# How everything here asks Slurm, so that recorded answers can stand in: (arguments, time limit) -> standard output.
Runner = Callable[[Sequence[str], float], str]


class CommandFailed(UserError):
    """A command is missing, answered with an error, or did not answer in time; ``str()`` says which.

    Attributes:
        said: the command's own words, without its line.
    """

    def __init__(self, sentence: str, said: str = ""):
        super().__init__(sentence)
        self.said = said or sentence


def run(arguments: Sequence[str], timeout: float = TIMEOUT_S) -> str:
    """Standard output of a command.

    Raises:
        CommandFailed: where it is not installed, fails, or takes longer than ``timeout`` seconds.
    """
    line = shlex.join(arguments)
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise CommandFailed(f"{arguments[0]}: not found; this machine has no Slurm commands") from None
    except PermissionError as error:
        raise CommandFailed(f"{line}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{line}: no answer within {timeout:g} s", f"no answer within {timeout:g} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise CommandFailed(f"{line}: {said}", said)
    return done.stdout


def is_installed(command: str = "squeue") -> bool:
    """Whether Slurm's commands are on the path."""
    return shutil.which(command) is not None


def slurm_release(runner: Runner = run) -> tuple[int, int]:
    """Major and minor release of the installed Slurm: ``slurm-wlm 22.05.8`` is (22, 5).

    Raises:
        CommandFailed: without Slurm's commands.
    """
    words = runner(["sinfo", "--version"], TIMEOUT_S).split()
    release = release_of(words[-1]) if words else None
    if release is None:
        raise CommandFailed(f"sinfo --version: expected a release, found {' '.join(words)!r}")
    return release


def release_of(version: str) -> tuple[int, int] | None:
    """``22.05.8`` and ``22.5.3`` are both (22, 5); None for anything else."""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return int(parts[0]), int(parts[1])
