"""Outputs of jobs that finished after their driver was killed, and that the next driver keeps."""

from __future__ import annotations

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


def keep_finished(jobs: JobList, folder: Path, is_intact: Callable[[Run], bool] = lambda _run: True) -> list[Path]:
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
        is_training = job.rule == "train_run" and job.run is not None and job.run.checkpoint.exists()
        if not is_training or is_intact(job.run):
            complete += job.outputs
    return forget_incomplete(folder, complete)
