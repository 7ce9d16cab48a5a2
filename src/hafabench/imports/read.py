"""One way to read any file that can be imported."""

from __future__ import annotations

import csv
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.errors import Problem, UserError
from hafabench.imports.csv import read_plain
from hafabench.imports.imported import Import
from hafabench.imports.mmengine import read_mmengine
from hafabench.imports.timm import read_timm

KINDS = ("timm", "mmengine", "csv")


def read_import(
    file: Path,
    experiment: Experiment,
    *,
    kind: str | None = None,
    task: str | None = None,
    model: str | None = None,
    seed: int | None = None,
    which: str | None = None,
) -> Import:
    """Read a file for an experiment.

    Args:
        file: timm's ``summary.csv``, an OpenMMLab JSON log or a plain CSV.
        kind: one of `KINDS`; by default what the file looks like.
        task, model, seed, which: what the file does not say, or which epoch to take (``last`` by default); a plain
            CSV says them line by line.

    Raises:
        UserError: with every problem of the file.
    """
    if not file.is_file():
        raise UserError(Problem(str(file), "", "no such file"))
    kind = kind or _looks_like(file)
    if kind == "csv":
        given = {"--task": task, "--model": model, "--seed": seed, "--epoch": which}
        for option in (name for name, value in given.items() if value is not None):
            raise UserError(f"{option} is for logs of one training; a plain CSV says it line by line")
        return read_plain(file, experiment.models)
    if kind == "mmengine":
        return read_mmengine(file, experiment.models, model=model, which=which or "last", task=task, seed=seed)
    if task not in (None, "classification"):
        raise UserError(Problem(str(file), "", f"timm's summaries are of classification, not of {task}"))
    if "classification" not in experiment.config.datasets:
        raise UserError(f"experiment {experiment.name} has no data set for classification")
    classes = experiment.config.datasets["classification"].num_classes
    return read_timm(file, experiment.models, num_classes=classes, which=which or "last", model=model, seed=seed)


def _looks_like(file: Path) -> str:
    if file.suffix == ".json":
        return "mmengine"
    if file.suffix != ".csv":
        raise UserError(
            Problem(str(file), "", f"expected .csv or .json; say what it is with --kind {'|'.join(KINDS)}")
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            header = next(csv.reader(handle), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Problem(str(file), "", f"cannot be read as CSV: {error}")) from None
    return "timm" if "epoch" in header and "train_loss" in header else "csv"
