"""Slurm jobs of earlier drivers that still live: a new Slurm job for the same job of the workflow waits for them.

A driver that was killed leaves its Slurm jobs behind. Without this, a driver that is started after `--unlock` would
submit the same jobs again. The lease of a run (`hafabench.runs.lease`) lets only one of two trainings write, but the
other one would occupy nodes meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from hafabench.cluster.commands import CommandFailed, Runner, run
from hafabench.cluster.queue import QueuedJob, live_jobs

# An answer of squeue is used for this time, because a driver may submit hundreds of jobs at once.
CACHE_S = 10.0


class EarlierJobs:
    """The live Slurm jobs of a folder and an experiment.

    Args:
        folder: The working folder of the workflow.
        prefix: The beginning of the names of the experiment's Slurm jobs.
        runner: Runs Slurm's commands.
        clock: Returns the time in seconds, from any beginning.
    """

    def __init__(self, folder: Path, prefix: str, runner: Runner = run, clock: Callable[[], float] = time.monotonic):
        self._folder, self._prefix, self._runner, self._clock = folder, prefix, runner, clock
        self._guard = threading.Lock()
        self._jobs: list[QueuedJob] = []
        self._until: float | None = None

    def ids(self, comment: str) -> list[str]:
        """Slurm's ids of the live Slurm jobs with a comment; none if squeue does not answer.

        The ids are those of submissions: a task of an array job has the id of the array.
        """
        found = (job.id.partition("_")[0] for job in self._live() if job.comment == comment)
        return list(dict.fromkeys(found))

    def ask_again(self) -> None:
        """Use no older answer, because one of the Slurm jobs has ended, and its repetition need not wait for it."""
        with self._guard:
            self._until = None

    def _live(self) -> list[QueuedJob]:
        with self._guard:
            if self._until is None or self._clock() >= self._until:
                try:
                    jobs = live_jobs(self._folder, self._runner)
                except CommandFailed:
                    jobs = []
                # The executor appends an underscore and an identifier without underscores.
                self._jobs = [job for job in jobs if job.name.rpartition("_")[0] == self._prefix]
                self._until = self._clock() + CACHE_S
            return self._jobs


def dependency(ids: list[str]) -> list[str]:
    """The option of sbatch that lets a Slurm job wait until others have ended. Slurm ignores ids that it forgot."""
    return [f"--dependency=afterany:{':'.join(ids)}"] if ids else []
