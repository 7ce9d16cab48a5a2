"""Options that several commands share, and functions that load what they name."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hafabench.config.bounds import MAX_THREADS
from hafabench.config.shipped import own_or_shipped

if TYPE_CHECKING:
    from hafabench.config.experiment import Experiment
    from hafabench.reporting.report import Report

DEFAULT_EXPERIMENT = "digits"


class ExperimentPath(click.Path):
    """The path of an experiment file.

    A bare name is the name of a file in ``configs/`` of the working directory, or else of a shipped file.
    """

    def convert(self, value, param, ctx) -> Path:
        path = Path(str(super().convert(value, param, ctx)))
        bare = len(path.parts) == 1 and not path.suffix and not path.is_file()
        return own_or_shipped(Path("configs"), f"{path}.yaml") if bare else path


def experiment_option(command=None, *, default: str = DEFAULT_EXPERIMENT):
    """Decorator that adds ``--experiment`` to a command. It can be used with or without a ``default``."""
    option = click.option(
        "--experiment",
        "-e",
        type=ExperimentPath(),
        default=default,
        show_default=True,
        help="The experiment's YAML file, or the name of a file in configs/.",
    )
    return option if command is None else option(command)


class FiniteFloat(click.FloatRange):
    """A number within limits. Unlike click's own type it is neither ``nan`` nor ``inf``."""

    name = "number"

    def convert(self, value, param, ctx) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


threads_option = click.option(
    "--threads", type=click.IntRange(min=1, max=MAX_THREADS), help="Number of CPU threads of torch."
)
task_argument = click.argument("task", type=click.Choice(["classification", "segmentation", "detection"]))


def set_threads(threads: int | None) -> None:
    """Set the size of every thread pool. This must be called before torch is imported."""
    if threads is not None:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(threads)


@contextmanager
def attempt(experiment: Experiment, rule: str, subject: str = "") -> Iterator[None]:
    """Mark the beginning and the end of an attempt of a job in its log, which is standard error.

    Nothing is written to the log if the workflow does not call the command, nor by the processes of a training other
    than the first one. The experiment file is stored beside the results.

    Args:
        experiment: The experiment.
        rule: The rule of the job.
        subject: The subject of the job.
    """
    from hafabench.runs.attempts import is_job, logged_attempt
    from hafabench.runs.experiment_file import store_experiment_file
    from hafabench.runs.jobs import JobList, job_id

    is_first = os.environ.get("RANK", "0") == "0"
    if is_first:
        store_experiment_file(experiment)
    if not is_job() or not is_first:
        yield
        return
    identifier, jobs = job_id(rule, subject), JobList(experiment)
    job = jobs.get(identifier) or jobs.optional[identifier]
    with logged_attempt(job.id, job.fingerprint):
        yield


def report_left_out(report: Report) -> None:
    """Name the records in the frame of a report that are left out because they do not belong to its experiment."""
    for reason, ids in report.not_shown.items():
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        click.echo(f"left out: {', '.join(ids[:3])}{more}: {reason}", err=True)


def load(experiment: Path):
    """Load and check an experiment file. Its results must not belong to another file."""
    from hafabench.config.experiment import load_experiment
    from hafabench.runs.experiment_file import check_experiment_file

    loaded = load_experiment(experiment)
    check_experiment_file(loaded)
    return loaded


def find_run(experiment: Path, run_id: str, *, is_trained: bool = True):
    """Return a run of an experiment file by its id; see `hafabench.runs.run.find_run`."""
    from hafabench.runs import run

    return run.find_run(load(experiment), run_id, is_trained=is_trained)
