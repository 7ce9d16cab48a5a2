"""Outputs of jobs that finished after their driver was killed, and that the next driver keeps."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from hafabench.runs.jobs import JobList
from hafabench.runs.run import Run
from hafabench.runs.snakemake import forget_incomplete, incomplete_outputs
from hafabench.runs.state import job_states

# The rules whose outputs are written atomically, and contain the fingerprint that they were made under.
_PROVABLE = (
    "train_run",
    "evaluate_run",
    "prepare_dataset",
    "count_complexity",
    "count_conventions",
    "measure_latency",
)


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
    for state in job_states(jobs, fresh_s=0).values():
        job = state.job
        if state.outputs != "done" or job.rule not in _PROVABLE or marked.isdisjoint(job.outputs):
            continue
        run = job.run if job.rule == "train_run" else None
        if run is None or not run.checkpoint.exists() or is_intact(run):
            complete += job.outputs
    return forget_incomplete(folder, complete)
