"""The settings of a cluster that decide what the driver learns about ended and preempted jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hafabench.cluster.commands import TIMEOUT_S, CommandFailed, Runner
from hafabench.cluster.findings import Finding
from hafabench.cluster.nodes import Partition
from hafabench.cluster.polling import LONGEST_PAUSE_S, seconds_to_next_poll
from hafabench.cluster.pyslurm_backend import choose_accounting

_UNITS = {"": 1, "s": 1, "sec": 1, "secs": 1, "min": 60, "mins": 60, "h": 3600, "hour": 3600, "hours": 3600}


def read_settings(runner: Runner) -> dict[str, str]:
    """The cluster's configuration by names, as ``scontrol show config`` prints it.

    Raises:
        CommandFailed: If scontrol fails.
    """
    lines = runner(["scontrol", "show", "config"], TIMEOUT_S).splitlines()
    pairs = (re.fullmatch(r"\s*(\w+)\s*=\s*(.*?)\s*", line) for line in lines)
    return {pair[1]: pair[2] for pair in pairs if pair}


def has_accounting(settings: Mapping[str, str]) -> bool:
    """Whether the cluster stores ended jobs; True if this is not known."""
    # Releases since 23.02 print "(null)" for no plugin.
    return settings.get("AccountingStorageType", "?") not in ("accounting_storage/none", "none", "(null)", "")


def tracks_gpus(settings: Mapping[str, str]) -> bool:
    """Whether the accounting records allocated GPUs; True if this is not known."""
    tracked = settings.get("AccountingStorageTRES")
    return tracked is None or re.search(r"(^|,)gres/gpu(:|,|$)", tracked) is not None


def check_settings(settings: Mapping[str, str], runner: Runner, uses_gpus: bool = False) -> Iterator[Finding]:
    """Findings about accounting and MinJobAge, and what they mean for the driver.

    Args:
        settings: The cluster's configuration.
        runner: Runs Slurm's commands.
        uses_gpus: Whether jobs request GPUs.
    """
    accounting, answers = has_accounting(settings), False
    if not accounting:
        storage = settings["AccountingStorageType"]
        sentence = (
            f"this cluster has none (AccountingStorageType={storage}): there are no costs, and the driver learns "
            "from squeue alone how a job ended"
        )
        yield Finding("note", "accounting", sentence)
    else:
        yield Finding("note", "accounting", choose_accounting(runner)[1])
        try:
            runner(["sacct", "--noheader", "--parsable2", "--format=JobIDRaw", "--starttime=now-1minutes"], TIMEOUT_S)
            answers = True
        except CommandFailed as error:
            yield Finding("note", "accounting", f"sacct does not answer: {error.message}")
    if accounting and not _stores_comments(settings):
        sentence = (
            "comments of jobs are not stored (AccountingStoreFlags has no job_comment): costs and reasons of ended "
            "jobs are assigned by the command line of their submission"
        )
        yield Finding("note", "accounting", sentence)
    if accounting and uses_gpus and not tracks_gpus(settings):
        sentence = (
            "GPUs are not recorded (AccountingStorageTRES has no gres/gpu): the costs show 0 GPUs and 0 GPU-hours "
            "for all jobs. The operators of the cluster can add it; this does not change earlier jobs"
        )
        yield Finding("note", "accounting", sentence)
    yield from _check_age(settings, answers)


def _stores_comments(settings: Mapping[str, str]) -> bool:
    """Whether comments of jobs are stored; True if this is not known."""
    flags = settings.get("AccountingStoreFlags")
    if flags is None:
        # The setting of releases before 21.08.
        return settings.get("AccountingStoreJobComment", "Yes") == "Yes"
    return "job_comment" in flags.split(",")


def _check_age(settings: Mapping[str, str], sacct_answers: bool) -> Iterator[Finding]:
    seconds = _seconds(settings.get("MinJobAge", ""))
    if seconds is None:
        yield Finding("note", "MinJobAge", "not known: scontrol show config does not print it")
    elif not sacct_answers:
        age = f"for {seconds} s" if seconds else "without an end"
        sentence = (
            f"squeue shows an ended job {age}, and no accounting answers: if the driver misses the end of a job, "
            "because it was suspended, the job counts as done if its outputs were made, and is repeated otherwise"
        )
        yield Finding("note", "MinJobAge", sentence)
    elif (pause := seconds_to_next_poll(LONGEST_PAUSE_S, 0, seconds, LONGEST_PAUSE_S)) < LONGEST_PAUSE_S:
        sentence = (
            f"squeue forgets an ended job after {seconds} s, so the driver asks every {pause:g} s; "
            "about jobs whose end it misses, because it was suspended, it asks sacct"
        )
        yield Finding("note", "MinJobAge", sentence)
    else:
        age = f"for {seconds} s" if seconds else "without an end"
        sentence = f"squeue shows an ended job {age}, and the driver asks every {LONGEST_PAUSE_S:g} s or more often"
        yield Finding("ok", "MinJobAge", sentence)


def _seconds(text: str) -> int | None:
    """A duration such as ``300 sec`` or ``1h``; None if it is not known."""
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.lower())
    return int(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else None


def check_preemption(
    key: str,
    partitions: list[Partition],
    everyone: Mapping[str, Partition],
    settings: Mapping[str, str],
    quality: Mapping[str, str] | None,
) -> Iterator[Finding]:
    """Findings about the preemption of a pool's jobs, and what it means for them.

    Args:
        key: The pool in the site file.
        partitions: The partitions of the pool.
        everyone: All partitions of the cluster.
        settings: The cluster's configuration.
        quality: The quality of service of the jobs (`hafabench.cluster.limits.Limits.quality`); None if unknown.
    """
    kind = settings.get("PreemptType", "preempt/none")
    # Modes by what they are a setting of.
    modes: dict[str, str] = {}
    if kind == "preempt/partition_prio":
        for partition in partitions:
            if any(other.tier > partition.tier for other in everyone.values()):
                modes[f"partition {partition.name}"] = partition.preempt_mode
    elif kind == "preempt/qos" and quality is not None and quality["preempted_by"]:
        mode = quality["preemptmode"].upper()
        modes[f"quality of service {quality['name']}"] = (
            settings.get("PreemptMode", "") if mode == "CLUSTER" else mode
        )
    for what, mode in modes.items():
        words = {word.strip().upper() for word in mode.split(",")}
        if "CANCEL" in words:
            sentence = (
                f"{what} has PreemptMode=CANCEL: Slurm ends a preempted job and does not queue it again. The driver "
                "submits it again, a training resumes from its last saved state, and one of the attempts that "
                "`retries` allows is used up"
            )
            yield Finding("note", f"{key} preemption", sentence)
        elif "SUSPEND" in words:
            sentence = (
                f"{what} has PreemptMode=SUSPEND: Slurm stops the processes of a preempted job and continues them "
                "later. Latencies that are measured meanwhile are not usable"
            )
            yield Finding("note", f"{key} preemption", sentence)
        elif "REQUEUE" in words:
            sentence = f"{what} has PreemptMode=REQUEUE: Slurm queues a preempted job again, and a training resumes"
            yield Finding("ok", f"{key} preemption", sentence)
