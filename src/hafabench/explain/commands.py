"""The command that makes the number of a cell again, and the commands that do the same by hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from hafabench.runs.jobs import Job, JobList, job_id
from hafabench.runs.run import Run
from hafabench.runs.snakemake import workflow_command


@dataclass(frozen=True)
class Reproduction:
    """How to make the number of a cell again.

    Attributes:
        command: One line for the shell.
        by_hand: Commands that do the same one after another.
    """

    command: str
    by_hand: tuple[str, ...]


def reproduce_runs(jobs: JobList, runs: Sequence[Run], *, again: bool) -> Reproduction:
    """Train and evaluate runs.

    Args:
        jobs: The jobs of the experiment.
        runs: The runs.
        again: Whether to repeat trainings that are done, which the workflow would skip.
    """
    forced = [str(run.checkpoint) for run in runs] if again else []
    trained: dict[str, Run] = {}
    for run in runs:
        if run.parent is not None and not run.parent.checkpoint.is_file():
            trained[run.parent.id] = run.parent
        trained[run.id] = run
    wanted = {run.id for run in runs}
    steps = [job_id("prepare_dataset", task) for task in dict.fromkeys(run.task for run in trained.values())]
    for name in trained:
        steps += [job_id("train_run", name), *([job_id("evaluate_run", name)] if name in wanted else [])]
    by_hand = [jobs[step].command for step in steps]
    if forced:
        # The command skips a finished training.
        by_hand.insert(0, shlex.join(["rm", *forced]))
    records = [run.record for run in runs]
    return Reproduction(workflow_command(jobs.experiment, records, forced), tuple(by_hand))


def reproduce_record(jobs: JobList, job: Job) -> Reproduction:
    """Make the record of one job, even if it is up to date."""
    (record,) = job.outputs
    forced = [str(record)] if record.is_file() else []
    return Reproduction(workflow_command(jobs.experiment, [record], forced), (job.command,))
