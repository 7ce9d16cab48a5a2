"""Whether a submitted job lives, and how it ended, from what squeue and accounting say about it at each poll.

Slurm forgets an ended job after MinJobAge, accounting is written with a delay, and a preempted job or one whose node
died may be queued again. So a job whose state is doubtful has ended only if at least two polls agree on it over some
time. Polls that Slurm does not answer say nothing about any job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

# Arguments of the commands whose output is parsed here. `--array` prints each task of an array, `--allocations` omits
# the steps of a job. With `--me`, the controller sends the jobs of one user instead of all jobs of the cluster.
SQUEUE = ("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T|%N|%k")
SACCT = ("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,ExitCode,NodeList,JobName")
# The longest time between two polls in seconds, unless the user sets another one.
LONGEST_PAUSE_S = 60.0
# Slurm has forgotten a job and accounting does not answer: after so many times the grace, it counts as lost.
UNCLEAR_GRACES = 10

_FAILED = (
    "BOOT_FAIL",
    "CANCELLED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "OUT_OF_MEMORY",
    "RECONFIG_FAIL",
    "TIMEOUT",
)
# Slurm queues such jobs again within seconds, if they may be requeued. Otherwise these states are final.
_PERHAPS_REQUEUED = ("NODE_FAIL", "PREEMPTED")

# - lives: It waits, runs or ends, or this is not decided yet.
# - succeeded, failed: It ended.
# - lost: Neither squeue nor accounting knows it any longer.
# - unclear: squeue no longer knows it, and accounting does not answer. It is lost if this lasts.
Verdict = Literal["lives", "succeeded", "failed", "lost", "unclear"]


@dataclass(frozen=True)
class Said:
    """What Slurm says about one job.

    Attributes:
        state: The state as Slurm prints it, ``CANCELLED by 1000`` included.
        node: The nodes on which it ran; empty if it is unknown.
        exit_code: Slurm's exit code and signal, ``1:0``; None if it is unknown.
        comment: The comment; empty if it is unknown.
    """

    state: str
    node: str = ""
    exit_code: str | None = None
    comment: str = ""


@dataclass(frozen=True)
class Answers:
    """The answers of Slurm to one poll, by job id.

    Attributes:
        queue: What squeue prints.
        accounting: What sacct prints about jobs that squeue does not know; None if it does not answer.
    """

    queue: Mapping[str, Said]
    accounting: Mapping[str, Said] | None


@dataclass(frozen=True)
class Doubt:
    """A doubtful state that the last polls agree on.

    Attributes:
        state: The state; empty if squeue does not know the job.
        since: The time of the first of these polls, in seconds of a clock that is never set.
        polls: The number of these polls.
        accounted: Whether squeue or accounting answered about the job. Accounting that answers again may still be
            behind for a moment.
    """

    state: str
    since: float
    polls: int = 1
    accounted: bool = True


def plain(state: str) -> str:
    """Return a state without additions: ``CANCELLED`` for ``CANCELLED by 1000`` and for ``CANCELLED+``."""
    words = state.split()
    return words[0].rstrip("+").upper() if words else ""


def parse_squeue(text: str) -> dict[str, Said]:
    """Parse the output of `SQUEUE`."""
    found = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 3)
        if len(fields) == 4 and fields[0]:
            found[fields[0]] = Said(fields[1], _nodes(fields[2]), comment=fields[3])
    return found


def parse_sacct(text: str, name: str) -> dict[str, Said]:
    """Parse the output of `SACCT`.

    Args:
        text: The output.
        name: The name of the Slurm jobs. Others are left out, because a cluster may have used an id before.
    """
    found = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) == 5 and fields[4] == name:
            found[fields[0]] = Said(fields[1], _nodes(fields[3]), fields[2] or None)
    return found


def _nodes(text: str) -> str:
    return "" if text in ("None assigned", "(null)") else text


def judge(
    job: str, answers: Answers, doubt: Doubt | None, *, now: float, grace: float
) -> tuple[Verdict, Said | None, Doubt | None]:
    """Decide about one job at one poll that squeue has answered.

    Args:
        job: Slurm's id of the job.
        answers: The answers.
        doubt: The doubt about this job after the poll before.
        now: The present time, in seconds of a clock that is never set.
        grace: The seconds after which a doubtful state is an end.

    Returns:
        The verdict, what Slurm says about the job, and the doubt to hand to the next call.
    """
    queued = answers.queue.get(job)
    said = queued or (answers.accounting or {}).get(job)
    state = plain(said.state) if said else ""
    if state == "COMPLETED":
        return "succeeded", said, None
    if state in _FAILED:
        return "failed", said, None
    if queued is not None and state not in _PERHAPS_REQUEUED:
        return "lives", said, None
    # A job that accounting alone calls pending or running has just ended, or was lost together with the queue.
    doubtful = state if state in _PERHAPS_REQUEUED else ""
    accounted = queued is not None or answers.accounting is not None
    if doubt is not None and doubtful in (doubt.state, "") and accounted == doubt.accounted:
        doubt = replace(doubt, polls=doubt.polls + 1)
    else:
        doubt = Doubt(doubtful or (doubt.state if doubt else ""), now, accounted=accounted)
    if doubt.polls < 2 or now - doubt.since < grace:
        return "lives", said, doubt
    if doubt.state:
        return "failed", said or Said(doubt.state), doubt
    if answers.accounting is None and now - doubt.since < UNCLEAR_GRACES * grace:
        return "unclear", said, doubt
    return "lost", said, doubt


def unknown_to_squeue(jobs: Iterable[str], queue: Mapping[str, Said]) -> list[str]:
    """Return the jobs about which accounting has to be asked."""
    return [job for job in jobs if job not in queue]


def seconds_to_next_poll(first: float, quiet_polls: int, min_job_age: float | None, longest: float) -> float:
    """Return the time between two polls. It grows while no job ends, and is short enough to see every end.

    Args:
        first: The seconds after a poll at which a job had ended.
        quiet_polls: The number of polls since then.
        min_job_age: The seconds after which Slurm forgets an ended job; None if this is unknown, 0 if it never does.
        longest: The longest time.
    """
    bound = min(longest, min_job_age / 2) if min_job_age else longest
    return max(1.0, min(first + 10 * quiet_polls, bound))
