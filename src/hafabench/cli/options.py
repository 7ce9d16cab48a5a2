"""What verbs share: options, and finding what they name."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hafabench.errors import Problem, UserError

DEFAULT_EXPERIMENT = Path("configs/digits.yaml")


class ExperimentPath(click.Path):
    """An experiment's file; a bare name stands for the file of that name in ``configs/``."""

    def convert(self, value, param, ctx) -> Path:
        path = Path(str(super().convert(value, param, ctx)))
        bare = len(path.parts) == 1 and not path.suffix and not path.exists()
        return Path("configs") / f"{path}.yaml" if bare else path


def experiment_option(command=None, *, default: Path = DEFAULT_EXPERIMENT):
    """``--experiment``, as every verb takes it; usable with and without a default of the verb's own."""
    option = click.option(
        "--experiment",
        "-e",
        type=ExperimentPath(),
        default=default,
        show_default=True,
        help="The experiment's YAML file, or its name.",
    )
    return option if command is None else option(command)


threads_option = click.option("--threads", type=click.IntRange(min=1), help="CPU threads for torch.")
task_argument = click.argument("task", type=click.Choice(["classification", "segmentation", "detection"]))


def set_threads(threads: int | None) -> None:
    """Fix the size of every thread pool; must happen before torch is imported."""
    if threads is not None:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(threads)


def load(experiment: Path):
    """The checked experiment of a file."""
    from hafabench.config.experiment import load_experiment

    return load_experiment(experiment)


def find_run(experiment: Path, run_id: str):
    """The run of that name, or an error with the nearest names."""
    from difflib import get_close_matches

    from hafabench.runs.run import expand

    runs = expand(load(experiment))
    if run_id not in runs:
        near = get_close_matches(run_id, runs, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`hafabench runs` lists them"
        raise UserError(Problem(str(experiment), "", f"no run {run_id!r} in this experiment; {hint}"))
    return runs[run_id]
