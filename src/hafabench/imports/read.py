"""Reads any file that can be imported."""

from __future__ import annotations

from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import Task
from hafabench.config.text_file import read_csv_table
from hafabench.errors import Problem, UserError
from hafabench.imports.csv import read_csv
from hafabench.imports.imported import Import
from hafabench.imports.mmengine import read_mmengine
from hafabench.imports.timm import read_timm

KINDS = ("timm", "mmengine", "csv")


def read_import(
    file: Path,
    experiment: Experiment,
    *,
    kind: str | None = None,
    task: Task | None = None,
    model: str | None = None,
    seed: int | None = None,
    epoch: str | None = None,
) -> Import:
    """Read a file for an experiment.

    Args:
        file: timm's ``summary.csv``, an OpenMMLab JSON log or a CSV file with one metric per line.
        experiment: The experiment whose models and data sets the numbers are about.
        kind: The format, one of `KINDS`; by default it follows from the file.
        task: The task, if the file does not contain it. A CSV with one metric per line contains all of these.
        model: The model, if the file does not contain it.
        seed: The seed, if the file does not contain it.
        epoch: ``last`` (the default), ``best`` or a position.

    Raises:
        UserError: With every problem of the file.
    """
    if not file.is_file():
        raise UserError(Problem(str(file), "", "no such file"))
    kind = kind or _detect_kind(file)
    if kind == "csv":
        given = {"--task": task, "--model": model, "--seed": seed, "--epoch": epoch}
        for option in (name for name, value in given.items() if value is not None):
            raise UserError(f"{option} is for the log of one training; a CSV file contains it on every line")
        return read_csv(file, experiment.models)
    if kind == "mmengine":
        return read_mmengine(file, experiment.models, model=model, epoch=epoch or "last", task=task, seed=seed)
    if task not in (None, "classification"):
        raise UserError(Problem(str(file), "", f"timm's summaries are about classification, not {task}"))
    if "classification" not in experiment.config.datasets:
        raise UserError(f"experiment {experiment.name} has no data set for classification")
    classes = experiment.config.datasets["classification"].num_classes
    return read_timm(file, experiment.models, num_classes=classes, epoch=epoch or "last", model=model, seed=seed)


def _detect_kind(file: Path) -> str:
    if file.suffix == ".json":
        return "mmengine"
    if file.suffix != ".csv":
        raise UserError(
            Problem(str(file), "", f"expected .csv or .json; give the format with --kind {'|'.join(KINDS)}")
        )
    header = read_csv_table(file).header
    return "timm" if "epoch" in header and "train_loss" in header else "csv"
