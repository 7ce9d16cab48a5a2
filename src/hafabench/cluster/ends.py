"""How the Slurm job of an attempt ended: from Slurm's state, exit code and node, its log, and the log of the job.

Nothing here calls Slurm. Slurm's accounting may be missing, and a log as well: what is known is combined.
"""

from __future__ import annotations

import pwd
import re
from contextlib import suppress
from pathlib import Path

from hafabench.runs.attempts import last_lines, lines_of_last_attempt
from hafabench.runs.ends import End, Kind, StoredEnd, end_of_log, store_end, stored_ends

__all__ = ["End", "Kind", "StoredEnd", "how_it_ended", "in_words", "refused", "store_end", "stored_ends"]

_BY_STATE: dict[str, tuple[Kind, str]] = {
    "OUT_OF_MEMORY": ("memory", "it used more memory than it requested"),
    "TIMEOUT": ("time", "it reached its time limit"),
    "NODE_FAIL": ("node", "its node failed or lost contact"),
    "BOOT_FAIL": ("node", "its node did not start"),
    "PREEMPTED": ("preempted", "Slurm gave its nodes to another job"),
    "CANCELLED": ("cancelled", "it was cancelled"),
    "DEADLINE": ("cancelled", "Slurm ended it at its deadline"),
}
# These states say more than any log.
_CERTAIN = ("OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "DEADLINE")
# What an exit code means if no log says more.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
# How a shell begins a message about the script of a Slurm job.
_SCRIPT = re.compile(r"^\S*/slurm_script: (line )?\d+: ")
# The exit code of a job that Slurm could not start, because it could not open its log.
_NO_LAUNCH = "0:53"


def how_it_ended(
    state: str = "",
    exit_code: str = "",
    node: str = "",
    slurm_log: Path | None = None,
    job_log: Path | None = None,
    slurm_id: str | None = None,
) -> End:
    """Derive how an attempt ended from everything that is known about it.

    Args:
        state: Slurm's state as squeue or sacct prints it, ``CANCELLED by 1000`` included; ``OUT_OF_MEMORY`` also if
            only a step reports it; empty if Slurm does not know it.
        exit_code: The exit code as sacct prints it, ``1:0`` (code and signal); may be empty.
        node: The node; may be empty.
        slurm_log: The output of the Slurm job; may not exist.
        job_log: The job's own log; may not exist.
        slurm_id: Slurm's id of the job. The job's own log is left out if its last attempt had another id.
    """
    word = state.split()[0] if state.split() else ""
    own = lines_of_last_attempt(job_log, slurm_id) if job_log is not None else []
    told = end_of_log([*own, *(last_lines(slurm_log) if slurm_log is not None else [])])
    where = f" on {node}" if node else ""
    if word in _CERTAIN:
        kind, sentence = _BY_STATE[word]
        return End(kind, f"{sentence}{where}")
    if told is not None and told.kind in ("memory", "time", "preempted", "node"):
        return in_words(told, where)
    if word == "CANCELLED":
        return End("cancelled", f"{_cancelled(state)}{where}")
    if told is not None:
        # These depend on the node.
        is_local = told.kind in ("environment", "folder", "space") and node
        sentence = _SCRIPT.sub("", told.sentence)
        return End(told.kind, f"on {node}: {sentence}" if is_local else sentence)
    code, signal = _codes(exit_code)
    if slurm_log is not None and not slurm_log.exists() and word == "FAILED" and exit_code in ("", _NO_LAUNCH):
        return End("folder", f"Slurm could not write its log {slurm_log}{where}: its folder does not exist there")
    if code in (_NOT_FOUND, _NOT_EXECUTABLE):
        return End("environment", f"a program was not found or could not be started{where} (exit code {code})")
    if signal or code:
        what = f"signal {signal}" if signal else f"exit code {code}"
        return End("unknown", f"it ended{where} with {what}, and no log says why")
    if not word:
        return End("lost", "Slurm no longer knows it, and no log says how it ended")
    return End("unknown", f"it ended{where} in state {word}, and no log says why")


def in_words(told: End, where: str = "") -> End:
    """The end of a Slurm job that only a line of a log tells, with a sentence before the line if Slurm ended the job.

    Args:
        told: The end.
        where: The node, as the end of a sentence; empty if it is not known.
    """
    sentence = next((sentence for kind, sentence in _BY_STATE.values() if kind == told.kind), None)
    if sentence is None or told.sentence.startswith(sentence):
        return told
    return End(told.kind, f"{sentence}{where}: {told.sentence}")


def refused(message: str) -> End:
    """The end of an attempt whose submission Slurm refused, with Slurm's message.

    Args:
        message: What sbatch printed.
    """
    errors = [re.sub(r"^sbatch: (error: |fatal: )?", "", line) for line in message.splitlines() if line.strip()]
    return End("refused", "; ".join(errors) or "sbatch failed without a message")


def _cancelled(state: str) -> str:
    """Who cancelled a job, as a clause: sacct prints ``CANCELLED by <uid>``."""
    by = re.fullmatch(r"CANCELLED by (\d+)", state.strip())
    if by is None:
        return "it was cancelled"
    with suppress(KeyError):
        return f"it was cancelled by {pwd.getpwuid(int(by[1])).pw_name}"
    return f"it was cancelled by the user with id {by[1]}"


def _codes(text: str) -> tuple[int, int]:
    """The exit code and the signal in ``1:0``; zeros if they are unknown."""
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
