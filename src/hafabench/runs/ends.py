"""How an attempt at a job ended, as its logs tell it, and the ends that the executor stores for other commands.

A log contains many lines that follow from a failure without explaining it, such as those of Snakemake. The reason is
the last line that explains the end.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from hafabench.formatting.text import one_line
from hafabench.runs.snakemake import PROGRAM, SLURM_LOGS

Kind = Literal[
    "memory",
    "time",
    "stopped",
    "cancelled",
    "preempted",
    "node",
    "environment",
    "folder",
    "space",
    "refused",
    "lost",
    "error",
    "unknown",
]
HEADINGS: Mapping[Kind, str] = {
    "memory": "out of memory",
    "time": "time limit",
    "stopped": "stopped, with a saved state",
    "cancelled": "cancelled",
    "preempted": "preempted",
    "node": "node lost",
    "environment": "no environment on the node",
    "folder": "no folder on the node",
    "space": "no space left",
    "refused": "refused by Slurm",
    "lost": "Slurm no longer knows how it ended",
    "error": "error",
    "unknown": "no reason known",
}
_LONGEST = 400


@dataclass(frozen=True)
class End:
    """How an attempt ended.

    Attributes:
        kind: The kind of its end.

            - ``memory``: the job used more memory of its node than it requested. Memory of a GPU is an ``error``.
            - ``time``: Slurm ended it at its time limit; ``stopped``: a training saved its state before the limit.
            - ``cancelled``, ``preempted``, ``node``: Slurm ended it on request, for another job, or with its node.
            - ``environment``: a program or package does not exist on the node; ``folder``: the working folder or
              that of the log does not.
            - ``space``: a file system or quota is full.
            - ``refused``: Slurm did not accept the submission.
            - ``lost``: Slurm has forgotten the job.
            - ``error``: another error; ``unknown``: nothing explains the end.
        sentence: The reason, on one line.
    """

    kind: Kind
    sentence: str


# -- what a log tells ----------------------------------------------

# Lines that explain an end, by kind. The first pattern that matches a line counts, so that those of memory on a GPU
# come before those of other memory.
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("error", r"CUDA out of memory|OutOfMemoryError: (CUDA|HIP)|CUDA error: out of memory"),
    (
        "memory",
        r"\boom[-_ ]?kill|OOM Killed|Out Of Memory|exceeded (job |step )?memory limit|^MemoryError\b"
        r"|Cannot allocate memory|DefaultCPUAllocator: (can't|not enough memory)|std::bad_alloc"
        r"|Unable to allocate .* for an array",
    ),
    ("time", r"\bDUE TO TIME LIMIT\b"),
    ("preempted", r"\bDUE TO PREEMPTION\b"),
    ("node", r"\bDUE TO NODE FAILURE\b|\bNODE FAILURE\b"),
    (
        "space",
        r"[Nn]o space left on (the )?device|[Dd]isk quota exceeded|\[Errno (28|122)\]"
        r"|inline_container\.cc.*unexpected pos"
        r"|PytorchStreamWriter failed writing",
    ),
    ("folder", r"couldn't chdir to|[Uu]nable to (change|chdir)|Could not open std(out|err|in) file"),
    (
        "environment",
        rf"No module named '?({PROGRAM}|hafabench)\b|(python[\d.]*|{PROGRAM}|hafabench|srun|env): "
        r"(.{0,20}: )?(command )?not found|^(env|/usr/bin/env): .*No such file or directory"
        r"|(slurm_script|sh|bash): (line )?\d*:? ?[^ ]*(bin/\S*|python[\d.]*): (No such file or dir|not found)"
        r"|execve\(\): .*: No such file or directory|: command not found$",
    ),
    ("error", r"^error: |^\w*(\.\w+)*(Error|Exception)\b(:|$)|^hafabench: error|^Fatal Python error"),
    ("error", r"Segmentation fault|Bus error|Illegal instruction|CUDA error:|NCCL error"),
    ("cancelled", r"\*\*\* (JOB|STEP) .* CANCELLED AT "),
)
_EXPLAINS = tuple((kind, re.compile(pattern)) for kind, pattern in _PATTERNS)
# These lines follow from an end and do not explain it.
_FOLLOWS = re.compile(
    r"(Error in (rule|group)|WorkflowError\b|\w*CalledProcessError|RuleException|SpawnedJobError"
    r"|ERROR conda\.cli|srun: error: .*(Exited with exit code|: Killed|: Terminated)|srun: (Terminating|Force )"
    r"|torch\.distributed\.elastic\b|ChildFailedError)"
)
_STOPPED = re.compile(r".*the same command resumes it$")
_KILLED = re.compile(r"(^|: )(\d+ )?Killed\b")


def end_of_log(lines: Iterable[str]) -> End | None:
    """Return how an attempt ended according to the lines of its log; None if no line explains it.

    Args:
        lines: The last lines of a log, oldest first.
    """
    found: End | None = None
    killed: End | None = None
    for text in lines:
        line = text.strip()
        if _STOPPED.match(line):
            found = End("stopped", _short(line))
            continue
        if _FOLLOWS.match(line):
            continue
        kind = next((kind for kind, pattern in _EXPLAINS if pattern.search(line)), None)
        if kind is None:
            if _KILLED.search(line):
                killed = End("error", _short(line))
        elif found is None or (kind != "cancelled" and (found.kind, kind) != ("folder", "error")):
            # A step that runs out of memory is cancelled after it. In another folder, a job finds none of its files.
            found = End(kind, _short(line))
    return found or killed


def _short(line: str) -> str:
    text = one_line(line)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


# -- stored ends ----------------------------------------------


@dataclass(frozen=True)
class StoredEnd:
    """An attempt that did not succeed, as the executor has stored it.

    Attributes:
        comment: The comment of its Slurm job, which identifies the job of the workflow.
        slurm_id: The id of the Slurm job; None if Slurm refused the submission.
        end: How it ended.
        attempt: Its number, from 1.
        attempts: The number of attempts that the driver makes.
        time: When the executor noticed the end, in seconds since 1970.
        fingerprint: The fingerprint of what the job computes; None if it has none.
    """

    comment: str
    slurm_id: Annotated[str, Field(pattern=r"^\d+$")] | None
    end: End
    attempt: int
    attempts: int
    time: float
    fingerprint: str | None = None


_STORED = TypeAdapter(StoredEnd)


def ends_file(experiment: str, folder: Path = Path()) -> Path:
    """The file of the stored ends of an experiment, in the folder of its Slurm logs.

    Args:
        experiment: The name of the experiment.
        folder: The working folder of the workflow.
    """
    return folder / SLURM_LOGS / experiment / "ends.jsonl"


def store_end(stored: StoredEnd, experiment: str, folder: Path = Path()) -> None:
    """Append an end to the file of an experiment.

    Args:
        stored: The end.
        experiment: The name of the experiment.
        folder: The working folder of the workflow.

    Raises:
        OSError: If the file cannot be written.
    """
    path = ends_file(experiment, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(stored)).encode() + b"\n"
    with path.open("a+b") as handle:
        # A driver that was killed may have left half a line.
        if handle.seek(0, os.SEEK_END):
            handle.seek(-1, os.SEEK_END)
            line = line if handle.read(1) == b"\n" else b"\n" + line
        handle.write(line)


def stored_ends(experiment: str, folder: Path = Path()) -> dict[str, StoredEnd]:
    """Return the last stored end of every job by the comment of its Slurm jobs.

    Args:
        experiment: The name of the experiment.
        folder: The working folder of the workflow.
    """
    return {stored.comment: stored for stored in _read(ends_file(experiment, folder))}


def _read(path: Path) -> Iterator[StoredEnd]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        # A driver that was killed, or a full disk, may leave half a line.
        with suppress(ValueError):
            yield _STORED.validate_json(line, strict=True)
