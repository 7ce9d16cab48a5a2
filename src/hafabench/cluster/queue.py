"""The live Slurm jobs of a working folder, as squeue shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hafabench.cluster.commands import TIMEOUT_S, CommandFailed, Runner, in_chunks, run
from hafabench.config.experiment import Experiment
from hafabench.runs.snakemake import is_job_comment, is_submitted_for, names_experiment

# Id, name, state, reason, node, time used, time limit, comment, working folder. The folder comes
# last, because it may contain a bar.
_FORMAT = "%i|%j|%T|%r|%N|%M|%l|%k|%Z"
# States of a job that waits for nodes.
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED", "RESV_DEL_HOLD")
# States of a job whose processes have ended. After NODE_FAIL they may still run, on a node without contact.
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "PREEMPTED", "BOOT_FAIL")


@dataclass(frozen=True)
class QueuedJob:
    """A Slurm job that is pending, running or ending.

    Attributes:
        id: Slurm's id.
        name: The name, which tells the experiment and which all jobs of one driver share.
        state: Slurm's state (``PENDING``, ``RUNNING``, ``COMPLETING``, ...).
        reason: The reason why it waits, from Slurm; the text ``None`` while it runs.
        node: Where it runs; empty while it waits.
        elapsed, limit: The time used and the time limit, as Slurm prints them.
        comment: The comment, which identifies the job of the workflow.
        folder: Its working folder.
    """

    id: str
    name: str
    state: str
    reason: str
    node: str
    elapsed: str
    limit: str
    comment: str
    folder: str

    @property
    def is_pending(self) -> bool:
        """Whether it waits for nodes."""
        return self.state in PENDING


def live_jobs(folder: Path, runner: Runner = run) -> list[QueuedJob]:
    """Slurm jobs that a driver submitted from ``folder`` and that have not ended, oldest first.

    Other Slurm jobs of the same folder, such as an interactive session, are left out: their comment names no rule.

    Raises:
        CommandFailed: If squeue fails.
    """
    text = runner(["squeue", "--me", "--noheader", f"--format={_FORMAT}"], TIMEOUT_S)
    here = folder.resolve()
    jobs = [QueuedJob(*fields) for line in text.splitlines() if len(fields := line.strip().split("|", 8)) == 9]
    mine = [job for job in jobs if is_job_comment(job.comment) and Path(job.folder).resolve() == here]
    return sorted(mine, key=lambda job: (len(job.id), job.id))


def live_jobs_of(experiment: Experiment, folder: Path, runner: Runner = run) -> list[QueuedJob]:
    """Those of `live_jobs` that were submitted for an experiment, as far as it is known.

    Args:
        experiment: The experiment.
        folder: The working folder of the workflow.
        runner: Runs Slurm's commands.

    Raises:
        CommandFailed: If squeue fails.
    """
    jobs = live_jobs(folder, runner)
    lines = _submit_lines([job.id for job in jobs if not names_experiment(job.name)], runner)
    return [job for job in jobs if is_submitted_for(experiment, job.name, lines.get(job.id, ""), folder)]


def _submit_lines(ids: Sequence[str], runner: Runner) -> dict[str, str]:
    """The command lines of submissions by the ids of the jobs, as far as Slurm's accounting knows them."""
    options = ["--allocations", "--noheader", "--parsable2", "--format=JobIDRaw,SubmitLine"]
    lines: dict[str, str] = {}
    for some in in_chunks(ids):
        try:
            text = runner(["sacct", *options, f"--jobs={','.join(some)}"], TIMEOUT_S)
        except CommandFailed:
            return lines
        found = re.split(rf"^({'|'.join(some)})\|", text, flags=re.MULTILINE)[1:]
        lines |= zip(found[::2], found[1::2], strict=True)
    return lines


@dataclass(frozen=True)
class EndedJob:
    """A Slurm job that has ended, as Slurm knows it.

    Attributes:
        state: Slurm's state, with ``by <uid>`` for a cancelled job; ``OUT_OF_MEMORY`` also if only a step reports it.
        exit_code: Exit code and signal, ``1:0``; may be empty.
        node: The node; may be empty.
    """

    state: str
    exit_code: str = ""
    node: str = ""


def ended_jobs(ids: Sequence[str], runner: Runner = run) -> dict[str, EndedJob]:
    """Return the last attempts of Slurm jobs that have ended, by their ids, as far as Slurm knows them.

    The accounting knows all jobs. Without it, squeue knows those that ended within the last minutes.

    Args:
        ids: Slurm's ids of the jobs.
        runner: Runs Slurm's commands.
    """
    found: dict[str, EndedJob] = {}
    for chunk in in_chunks(ids):
        some = f"--jobs={','.join(chunk)}"
        try:
            fields = "--format=JobIDRaw,State,ExitCode,NodeList"
            lines = runner(["sacct", "--noheader", "--parsable2", fields, some], TIMEOUT_S).splitlines()
        except CommandFailed:
            with suppress(CommandFailed):
                answer = runner(["squeue", "--states=all", "--noheader", "--format=%i|%T||%N", some], TIMEOUT_S)
                found |= _ended(answer.splitlines())
            continue
        found |= _ended(lines)
    return found


def _ended(lines: Sequence[str]) -> dict[str, EndedJob]:
    found: dict[str, EndedJob] = {}
    for line in lines:
        name, state, exit_code, node = (line.strip().split("|") + [""] * 3)[:4]
        job = name.partition(".")[0]
        if name == job and state.split()[:1] and state.split()[0] in (*_ENDED, "NODE_FAIL"):
            found[job] = EndedJob(state, exit_code, "" if node == "None assigned" else node)
        elif job in found and state == "OUT_OF_MEMORY":
            found[job] = replace(found[job], state=state)
    return found


def cancel(jobs: Sequence[QueuedJob], runner: Runner = run) -> None:
    """Cancel Slurm jobs; they take a moment to end.

    Raises:
        CommandFailed: If scancel fails. The other jobs are cancelled nevertheless.
    """
    failures = []
    for ids in in_chunks([job.id for job in jobs]):
        try:
            runner(["scancel", *ids], TIMEOUT_S)
        except CommandFailed as error:
            failures.append(error)
    if failures:
        raise failures[0]


def has_ended(job: str, runner: Runner = run) -> bool:
    """Return whether the processes of a Slurm job are known to have ended.

    This is not known if Slurm does not answer, has no commands on this machine, has forgotten the job, or has lost
    contact with its node.

    Args:
        job: Slurm's id of the job.
        runner: Runs Slurm's commands.
    """
    states = _states(job, runner)
    return bool(states) and all(state in _ENDED for state in states)


def is_abandoned(job: str, runner: Runner = run) -> bool:
    """Return whether a Slurm job has ended because its node lost contact. Its processes may still run there.

    Args:
        job: Slurm's id of the job.
        runner: Runs Slurm's commands.
    """
    return set(_states(job, runner)) == {"NODE_FAIL"}


def _states(job: str, runner: Runner) -> list[str]:
    """The states of a Slurm job and its parts; none if they are not known."""
    try:
        return runner(["squeue", "--states=all", "--noheader", f"--jobs={job}", "--format=%T"], TIMEOUT_S).split()
    except CommandFailed:
        return []
