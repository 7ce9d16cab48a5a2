"""Checkpoints and records of jobs that finished after their driver was killed, which the next driver keeps.

They are written atomically and belong to one fingerprint, so that it can be proven that they are complete.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from hafabench.runs.jobs import JobList
from hafabench.runs.run import Run
from hafabench.runs.snakemake import forget_incomplete, incomplete_outputs
from hafabench.runs.state import run_state


def has_intact_archive(run: Run) -> bool:
    """Return whether all checksums in the archive of a run's final checkpoint hold, without importing torch."""
    try:
        with zipfile.ZipFile(run.checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return False


def keep_finished(jobs: JobList, folder: Path, is_intact: Callable[[Run], bool] = has_intact_archive) -> list[Path]:
    """Remove Snakemake's marks from outputs that are complete and current, and return these outputs.

    Snakemake marks the outputs of a job as incomplete while the job runs. A killed driver leaves these marks behind,
    and the next one would delete the outputs and repeat the jobs, even if the jobs finished later.

    Args:
        jobs: The jobs of an experiment.
        folder: The working folder of the workflow.
        is_intact: Tells whether the content of a run's final checkpoint is as it was written.
    """
    marked = set(incomplete_outputs(folder))
    if not marked:
        return []
    complete: list[Path] = []
    for job in (*jobs.values(), *jobs.optional.values()):
        # With thousands of runs, only the few of marked outputs are looked at.
        if job.run is None or marked.isdisjoint(job.outputs):
            continue
        state = run_state(job.run).state
        if job.rule == "evaluate_run":
            is_complete = state == "done"
        else:
            is_lost = not job.run.checkpoint.exists()
            is_complete = state in ("done", "trained") and (is_lost or is_intact(job.run))
        complete += job.outputs if is_complete else ()
    return forget_incomplete(folder, complete)
