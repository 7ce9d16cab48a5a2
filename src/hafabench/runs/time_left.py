"""The time that a driver still needs, from the durations of the jobs that it has finished."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from hafabench.formatting.durations import format_duration
from hafabench.runs.jobs import Job

# No time is told while less than this share of the remaining work is of a kind that has been measured.
_BASIS = 0.5
# A job that has taken longer than estimated is assumed to need this share of the estimate yet.
_LEAST = 0.05


class TimeLeft:
    """Estimates the time that the jobs of a driver still need.

    The estimate from which a job's request is derived (`hafabench.runs.resources`) tells how long a job takes
    relative to similar ones. It is corrected by the durations of finished jobs of the same rule and task, or else of
    the same rule. Otherwise those of all trainings and evaluations count, or those of all other jobs.

    Args:
        jobs: The jobs that the driver runs, by id.
    """

    def __init__(self, jobs: Mapping[str, Job]):
        self._kinds = {name: _kinds(job) for name, job in jobs.items()}
        self._estimates = {name: job.resources().estimated_minutes * 60 for name, job in jobs.items()}

    def seconds(self, finished: Mapping[str, float], running: Mapping[str, float], elapsed: float) -> float | None:
        """Return the seconds that are left; None while too little has been measured.

        Args:
            finished: The seconds that each finished job took, by id.
            running: The seconds for which each running job has run, by id.
            elapsed: The seconds since the first job began.
        """
        ratios = self._ratios(finished)
        left = measured = 0.0
        for name, estimate in self._estimates.items():
            if name in finished:
                continue
            ratio = next((ratios[kind] for kind in self._kinds[name] if kind in ratios), None)
            seconds = estimate * (1.0 if ratio is None else ratio)
            seconds = max(seconds - running.get(name, 0.0), _LEAST * seconds)
            left += seconds
            measured += 0.0 if ratio is None else seconds
        if not left or measured < _BASIS * left:
            return None
        # Jobs that run at the same time share the time.
        at_a_time = (sum(finished.values()) + sum(running.values())) / elapsed if elapsed > 0 else 1.0
        return left / max(at_a_time, 1.0)

    def _ratios(self, finished: Mapping[str, float]) -> dict[str, float]:
        """Measured seconds per estimated second of every kind of which a job has finished."""
        measured: dict[str, float] = defaultdict(float)
        estimated: dict[str, float] = defaultdict(float)
        for name, seconds in finished.items():
            for kind in self._kinds.get(name, ()):
                measured[kind] += seconds
                estimated[kind] += self._estimates[name]
        return {kind: measured[kind] / total for kind, total in estimated.items() if total > 0}


def _kinds(job: Job) -> tuple[str, ...]:
    """The kinds that a job is of, the narrowest first."""
    every = "trainings and evaluations" if job.run is not None else "other jobs"
    return f"{job.rule} {job.wildcards.get('task', '')}", job.rule, every


def describe(seconds: float) -> str:
    """Return a remaining time in words, rounded to what can be known: ``about 4 min left``."""
    if seconds < 55:
        rounded = max(10.0, round(seconds, -1))
        return f"about {rounded:.0f} s left"
    step = 60 if seconds < 3600 else 600
    return f"about {format_duration(max(round(seconds / step), 1) * step)} left"
