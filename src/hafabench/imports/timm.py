"""timm's ``summary.csv`` with one line per epoch, and the ``args.yaml`` that its training script writes beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hafabench.config.base import shown
from hafabench.config.catalog import ModelSpec
from hafabench.config.metrics import main_metric
from hafabench.config.text_file import parse_number, read_csv_table
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of
from hafabench.imports.imported import (
    Evaluation,
    Import,
    ImportedMetric,
    choose_evaluation,
    metric_in_record_unit,
    resolve_model,
    seed_in,
)

ARGUMENTS = "args.yaml"
_COLUMNS = {"eval_top1": "top1", "eval_top5": "top5"}


def read_timm(
    file: Path,
    models: Mapping[str, ModelSpec],
    *,
    num_classes: int,
    epoch: str = "last",
    model: str | None = None,
    seed: int | None = None,
) -> Import:
    """Read top-1 and top-5 of one epoch of a timm training.

    Args:
        file: The summary. The file ``args.yaml`` beside it contains the model, the seed and the number of epochs.
        models: The known models by name.
        num_classes: The number of classes of the experiment's data set.
        epoch: ``last``, ``best`` or an epoch, counted from 0 as in timm.
        model: The model's name, if ``args.yaml`` does not contain it.
        seed: The seed, if ``args.yaml`` does not contain it.

    Raises:
        UserError: If the file is not a summary, the model is unknown, the number of classes differs, the training
            ended early (unless an epoch is given), or a value is not a percentage.
    """
    arguments, also = _arguments(file.with_name(ARGUMENTS))
    name = model or arguments.get("model")
    if not isinstance(name, str):
        raise UserError(
            Problem(str(file), "", f"there is no {ARGUMENTS} beside it with the model's name; give --model")
        )
    try:
        name = resolve_model(name, models)
    except UserError as error:
        if model is not None:
            raise
        raise UserError(Problem(str(file.with_name(ARGUMENTS)), "model", str(error))) from None
    # 1000 classes are timm's default.
    classes = (arguments.get("num_classes") or 1000) if arguments else num_classes
    if classes != num_classes:
        message = f"trained for {classes} classes, but the experiment's data set has {num_classes}"
        raise UserError(Problem(str(file.with_name(ARGUMENTS)), "num_classes", message))
    evaluations = _evaluations(file)
    planned, reached = arguments.get("epochs"), evaluations[-1].position + 1
    if epoch == "last" and type(planned) is int and reached < planned:
        message = (
            f"its last epoch is {reached - 1}, but {ARGUMENTS} has {planned} epochs: the training has not finished; "
            f"--epoch {reached - 1} imports it as it is"
        )
        raise UserError(Problem(str(file), "", message, evaluations[-1].line))
    chosen, part = choose_evaluation(evaluations, epoch, main_metric("classification").name, "epoch", file)
    if seed is None:
        seed = seed_in(arguments.get("seed"), file.with_name(ARGUMENTS), "seed")
    convention = "timm's validation" + (" of averaged weights (EMA)" if arguments.get("model_ema") else "")
    metrics = []
    for metric, value in chosen.values.items():
        try:
            found = metric_in_record_unit("classification", name, seed, metric, value, "%", convention=convention)
        except UserError as error:
            raise UserError(Problem(str(file), f"eval_{metric}", str(error), chosen.line)) from None
        metrics.append(ImportedMetric(found, part, chosen.line))
    training = {"epochs": reached, "configuration": arguments} if arguments else None
    return Import("timm", file, tuple(metrics), also, training)


def _arguments(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    if not path.is_file():
        return {}, {}
    return YamlFile(path).content, {str(path): sha256_of(path)}


def _evaluations(file: Path) -> list[Evaluation]:
    table = read_csv_table(file)
    header = table.header
    if "epoch" not in header or "eval_top1" not in header:
        message = f"expected timm's columns epoch and eval_top1; found {shown(', '.join(header))}"
        raise UserError(Problem(str(file), "", message, 1))
    evaluations, problems = [], []
    for number, fields in table.rows:
        # A resumed training writes its header again. An epoch that was not evaluated has fewer fields.
        if [field.strip() for field in fields] == header or len(fields) < len(header):
            continue
        if len(fields) > len(header):
            message = f"{len(fields)} fields under {len(header)} columns; is a comma used as decimal point?"
            problems.append(Problem(str(file), "", message, number))
            continue
        row = dict(zip(header, fields, strict=True))
        wanted = {"epoch": "epoch"} | {column: name for column, name in _COLUMNS.items() if column in row}
        values = {}
        for column, name in wanted.items():
            try:
                values[name] = parse_number(row[column])
            except ValueError as error:
                problems.append(Problem(str(file), column, str(error), number))
        epoch = values.pop("epoch", None)
        if epoch is not None and epoch.is_integer() and 0 <= epoch < 2**63:
            evaluations.append(Evaluation(int(epoch), number, values))
        elif epoch is not None:
            message = f"expected the number of an epoch, found {shown(row['epoch'])}"
            problems.append(Problem(str(file), "epoch", message, number))
    if problems:
        raise UserError(problems)
    if not evaluations:
        raise UserError(Problem(str(file), "", "no epoch was evaluated: no complete line below the header"))
    return evaluations
