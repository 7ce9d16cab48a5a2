"""List scheduling of jobs on a number of GPUs, longest remaining path first."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from hafabench.errors import UserError
from hafabench.plan.hours import PlannedJob


@dataclass(frozen=True)
class Schedule:
    """A simulated run of the workflow.

    Attributes:
        gpus: The number of GPUs; jobs without GPUs are not limited.
        hours: Wall-clock hours until the last job ends.
        start: The hour at which each job starts.
        critical_path: The ids of the longest chain of jobs that wait for each other, in order.
        critical_hours: The length of this chain, which no number of GPUs can shorten.
        busy: The share of the GPUs' time that is used.
    """

    gpus: int
    hours: float
    start: dict[str, float]
    critical_path: tuple[str, ...]
    critical_hours: float
    busy: float


def schedule(jobs: Mapping[str, PlannedJob], gpus: int) -> Schedule:
    """Start jobs as soon as the jobs that they need are done and GPUs are free, those on the longest path first.

    Args:
        jobs: The jobs by id, every job after those that it needs.
        gpus: The number of GPUs that the jobs share.

    Raises:
        UserError: If a single job needs more GPUs.
    """
    too_big = [job for job in jobs.values() if job.hours and job.resources.gpus > gpus]
    if too_big:
        most = max(too_big, key=lambda job: job.resources.gpus)
        raise UserError(f"{most.id} needs {most.resources.gpus} GPUs, but the plan has only {gpus}")
    to_go = _hours_to_go(jobs)
    waiting = {identifier: len(job.job.needs) for identifier, job in jobs.items()}
    followers: dict[str, list[str]] = {identifier: [] for identifier in jobs}
    for job in jobs.values():
        for need in job.job.needs:
            followers[need].append(job.id)
    ready = [identifier for identifier, count in waiting.items() if not count]
    start: dict[str, float] = {}
    running: list[tuple[float, str]] = []
    now, free = 0.0, gpus
    while ready or running:
        for identifier in sorted(ready, key=lambda identifier: -to_go[identifier]):
            job = jobs[identifier]
            needed = job.resources.gpus if job.hours else 0
            if needed <= free:
                ready.remove(identifier)
                free -= needed
                start[identifier] = now
                heapq.heappush(running, (now + job.hours, identifier))
        now, ended = heapq.heappop(running)
        free += jobs[ended].resources.gpus if jobs[ended].hours else 0
        for follower in followers[ended]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    path = _critical_path(jobs, to_go)
    used = sum(job.gpu_hours for job in jobs.values())
    return Schedule(
        gpus=gpus,
        hours=now,
        start=start,
        critical_path=path,
        critical_hours=sum(jobs[identifier].hours for identifier in path),
        busy=used / (gpus * now) if now else 0.0,
    )


def _hours_to_go(jobs: Mapping[str, PlannedJob]) -> dict[str, float]:
    """Hours from each job's start to the end of the longest chain after it."""
    to_go = {identifier: job.hours for identifier, job in jobs.items()}
    for job in reversed(list(jobs.values())):
        for need in job.job.needs:
            to_go[need] = max(to_go[need], jobs[need].hours + to_go[job.id])
    return to_go


def _critical_path(jobs: Mapping[str, PlannedJob], to_go: dict[str, float]) -> tuple[str, ...]:
    followers: dict[str, list[str]] = {}
    for job in jobs.values():
        for need in job.job.needs:
            followers.setdefault(need, []).append(job.id)
    firsts = [job.id for job in jobs.values() if not job.job.needs]
    path: list[str] = []
    candidates = firsts
    while candidates:
        longest = max(candidates, key=lambda identifier: to_go[identifier])
        if jobs[longest].hours:
            path.append(longest)
        candidates = followers.get(longest, [])
    return tuple(path)
