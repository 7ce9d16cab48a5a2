"""Jobs that Slurm refused for now. They wait, and are submitted again one after the other, after growing pauses.

Jobs that were refused with the same words wait together, and one of them is tried for all. When Slurm accepts it, the
next one follows at once. A wait costs a job nothing: it is no attempt.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hafabench.cluster.refusals import Refusal

J = TypeVar("J", bound=Hashable)

# Words that do not tell whether Slurm will ever accept a job are taken for a final refusal after so many tries.
_TRIES_IF_UNKNOWN = 6
# The first jobs that are refused together are announced together after this time, and again after the other one.
_ANNOUNCED_AFTER_S = 2.0
_REMINDED_AFTER_S = 3600.0


@dataclass
class _Group(Generic[J]):
    """Jobs that were refused with the same words.

    Attributes:
        refusal: The refusal.
        pause: The pause after the last try, in seconds.
        next_try: The time of the next try.
        since: The time of the first refusal.
        jobs: The jobs that wait, each with its kind.
        tried: The job that is being submitted again.
        tries: The tries since Slurm last accepted one of the jobs.
        announced: The time of the last message about this group.
        submitted: The number of jobs that waited and were accepted.
    """

    refusal: Refusal
    pause: float
    next_try: float
    since: float
    jobs: deque[tuple[J, str]] = field(default_factory=deque)
    tried: tuple[J, str] | None = None
    tries: int = 0
    announced: float | None = None
    submitted: int = 0


class WaitingJobs(Generic[J]):
    """The jobs of a driver that Slurm refused for now. All methods may be called by any thread.

    Times are seconds of a clock that is never set.

    Args:
        first_pause: The seconds before the second try; each further pause is twice as long.
        longest_pause: The longest pause in seconds.
    """

    def __init__(self, first_pause: float, longest_pause: float):
        self._first = first_pause
        self._longest = max(first_pause, longest_pause)
        self._groups: dict[str, _Group[J]] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(group.jobs) + (group.tried is not None) for group in self._groups.values())

    def hold_back(self, job: J, kind: str) -> bool:
        """Let a new job wait without a try if jobs like it wait or Slurm does not answer. Return whether it waits.

        Args:
            job: The job.
            kind: Jobs of one kind make similar requests.
        """
        with self._lock:
            if self._group_of(job) is not None:
                return False
            for group in self._groups.values():
                kinds = {other for _, other in (*group.jobs, *([group.tried] if group.tried else []))}
                if kind in kinds or group.refusal.is_silence:
                    group.jobs.append((job, kind))
                    return True
            return False

    def refuse(self, job: J, kind: str, refusal: Refusal, now: float) -> list[J]:
        """Let a refused job wait. Return the jobs that Slurm has refused for good instead, which no longer wait.

        Args:
            job: The job.
            kind: Jobs of one kind make similar requests.
            refusal: Why it was refused, for now or for an unknown time.
            now: The present time.
        """
        with self._lock:
            key = "no answer" if refusal.is_silence else re.sub(r"\d+", "#", refusal.words)
            before, group = self._group_of(job), self._groups.get(key)
            if before is not None:
                before.tried = None
                if before is not group:
                    before.next_try = now
                    self._forget_if_empty(before)
            if group is None:
                group = self._groups[key] = _Group(refusal, self._first, now + self._first, now)
            if before is group:
                group.jobs.appendleft((job, kind))
                group.tries += 1
                group.pause = min(2 * group.pause, self._longest)
                group.next_try = now + group.pause
                group.refusal = refusal
            else:
                group.jobs.append((job, kind))
            if refusal.kind == "unknown" and group.tries >= _TRIES_IF_UNKNOWN - 1:
                del self._groups[key]
                return [waiting for waiting, _ in group.jobs]
            return []

    def leave(self, job: J, now: float, *, accepted: bool = True) -> str | None:
        """Note that a job waits no longer; return a message if it was the last one of its group.

        Args:
            job: Any job that was just submitted.
            now: The present time.
            accepted: Whether Slurm has accepted it. Otherwise it is refused for good.
        """
        with self._lock:
            group = self._group_of(job)
            if group is None:
                return None
            group.tried, group.pause, group.next_try, group.tries = None, self._first, now, 0
            group.submitted += accepted
            if not self._forget_if_empty(group) or group.announced is None:
                return None
            return f"No job waits for its submission any longer: Slurm has accepted {group.submitted} of them."

    def due(self, now: float) -> list[tuple[J, Refusal]]:
        """Return the jobs to submit again now, each with its last refusal. `refuse` or `leave` has to follow.

        Args:
            now: The present time.
        """
        with self._lock:
            found = []
            for group in self._groups.values():
                if group.tried is None and group.jobs and now >= group.next_try:
                    group.tried = group.jobs.popleft()
                    found.append((group.tried[0], group.refusal))
            return found

    def make_room(self, now: float) -> None:
        """Note that a Slurm job has ended, so that limits of their number may allow another one soon."""
        with self._lock:
            for group in self._groups.values():
                if group.refusal.is_limit:
                    group.next_try = min(group.next_try, now + min(self._first, 1.0))

    def messages(self, now: float) -> list[str]:
        """Return a message about each group of jobs that begins to wait, and another one after an hour."""
        with self._lock:
            found = []
            for group in self._groups.values():
                is_new = group.announced is None and now - group.since >= min(self._first, _ANNOUNCED_AFTER_S)
                if is_new or (group.announced is not None and now - group.announced >= _REMINDED_AFTER_S):
                    group.announced = now
                    found.append(self._describe(group, now))
            return found

    def clear(self) -> list[J]:
        """Forget all jobs, and return those that are not being submitted at present."""
        with self._lock:
            found = [job for group in self._groups.values() for job, _ in group.jobs]
            self._groups.clear()
            return found

    def _describe(self, group: _Group[J], now: float) -> str:
        count = len(group.jobs) + (group.tried is not None)
        jobs = "1 job waits" if count == 1 else f"{count} jobs wait"
        seconds = max(1, round(group.next_try - now))
        after = "This uses no attempt."
        if group.refusal.kind == "unknown":
            after = f"If Slurm refuses it {_TRIES_IF_UNKNOWN} times, it has failed."
        if group.refusal.is_limit:
            after = f"{after} `hafabench cluster check` shows the limits."
        words = group.refusal.words.rstrip(".")
        return f"Slurm refuses jobs for now: {words}. {jobs}; the next try is in {seconds} s. {after}"

    def _group_of(self, job: J) -> _Group[J] | None:
        """The group whose job is being submitted again, if it is this one."""
        return next((group for group in self._groups.values() if group.tried and group.tried[0] == job), None)

    def _forget_if_empty(self, group: _Group[J]) -> bool:
        if group.jobs or group.tried:
            return False
        self._groups = {key: other for key, other in self._groups.items() if other is not group}
        return True
