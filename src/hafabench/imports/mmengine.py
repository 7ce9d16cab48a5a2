"""JSON logs of OpenMMLab trainings: mmengine's ``vis_data/scalars.json``, and ``*.log.json`` of older versions.

Both have a JSON object per line. Lines about training steps are skipped. Each validation has a line with the metrics
under the libraries' names: mmdet's ``coco/bbox_mAP_50``, mmseg's ``mIoU``, mmpretrain's ``accuracy/top1``, and their
names in older versions. Old logs mark validations with ``"mode": "val"`` and give segmentation metrics as fractions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hafabench.config.base import shown
from hafabench.config.catalog import ModelSpec
from hafabench.config.json_file import parse_json
from hafabench.config.metrics import METRICS, main_metric
from hafabench.config.recipes import TASKS, Task
from hafabench.config.text_file import lines_of, read_text
from hafabench.errors import Problem, UserError
from hafabench.imports.imported import (
    Evaluation,
    Import,
    ImportedMetric,
    choose_evaluation,
    metric_in_record_unit,
    resolve_model,
    seed_in,
)

_AP = {"": "ap", "_50": "ap50", "_75": "ap75", "_s": "ap_s", "_m": "ap_m", "_l": "ap_l"}
NAMES = {
    **{f"bbox_mAP{suffix}": f"box_{name}" for suffix, name in _AP.items()},
    **{f"segm_mAP{suffix}": f"mask_{name}" for suffix, name in _AP.items()},
    "mIoU": "miou",
    "aAcc": "pixel_acc",
    "mAcc": "mean_acc",
    "top1": "top1",
    "top5": "top5",
    "accuracy_top-1": "top1",
    "accuracy_top-5": "top5",
}
"""This project's metric by the last part of its name in a log."""
_Validations = dict[Task, list[Evaluation]]


def read_mmengine(
    file: Path,
    models: Mapping[str, ModelSpec],
    *,
    model: str | None,
    epoch: str = "last",
    task: Task | None = None,
    seed: int | None = None,
) -> Import:
    """Read the metrics of one validation of an OpenMMLab training.

    Args:
        file: The log.
        models: The known models by name.
        model: The name of the trained model, which these logs do not contain.
        epoch: ``last``, ``best`` or a position: the ``step`` in the log, or the ``epoch`` in old logs.
        task: The task; needed only if the log has validations of several tasks.
        seed: The seed, if the log does not contain it.

    Raises:
        UserError: If the file is not such a log or has no validation, no model is given, or a value is out of range.
    """
    if model is None:
        raise UserError(Problem(str(file), "", "these logs do not contain the model's name; give --model"))
    model = resolve_model(model, models)
    validations, training, old = _validations(file)
    found: list[Task] = list(validations)
    if task is None and len(found) > 1:
        raise UserError(Problem(str(file), "", f"validations of {' and '.join(found)}; give --task"))
    task = task or found[0]
    if task not in validations:
        raise UserError(Problem(str(file), "", f"no validation of {task}, only of {', '.join(found)}"))
    position_name = "epoch" if old else "step"
    chosen, part = choose_evaluation(validations[task], epoch, main_metric(task).name, position_name, file)
    if seed is None:
        seed = seed_in(training.get("seed"), file, "seed")
    unit = "fraction" if task == "detection" or (old and task == "segmentation") else "%"
    convention = "OpenMMLab's validation" + (", rounded to 0.1 in its log" if task == "detection" else "")
    metrics = []
    for name, value in chosen.values.items():
        # COCO's -1 means that the data has no object of that size.
        if task == "detection" and value == -1:
            continue
        try:
            metric = metric_in_record_unit(task, model, seed, name, value, unit, convention=convention)
        except UserError as error:
            raise UserError(Problem(str(file), name, str(error), chosen.line)) from None
        metrics.append(ImportedMetric(metric, part, chosen.line))
    if not metrics:
        raise UserError(Problem(str(file), "", "all of its values are undefined (-1)", chosen.line))
    return Import("mmengine", file, tuple(metrics), training=training or None)


def _validations(file: Path) -> tuple[_Validations, dict[str, Any], bool]:
    """Return the validations by task, the properties of the training, and whether the log is older than mmengine."""
    found: _Validations = {}
    training: dict[str, Any] = {}
    old = False
    for number, entry in _entries(file):
        if "env_info" in entry:
            training = {key: entry[key] for key in ("seed", "exp_name", "config") if key in entry}
            continue
        if entry.get("mode", "val") != "val":
            continue
        values = _metrics(file, number, entry)
        if not values:
            continue
        old = old or "mode" in entry
        position = entry.get("epoch" if "mode" in entry else "step")
        if type(position) is not int or not 0 <= position < 2**63:
            raise UserError(Problem(str(file), "", "a validation without its step or epoch", number))
        for task in TASKS:
            of_task = {name: value for name, value in values.items() if task in METRICS[name].tasks}
            if not of_task:
                continue
            found.setdefault(task, []).append(Evaluation(position, number, of_task))
    if not found:
        message = "no line contains the metrics of a validation (bbox_mAP, segm_mAP, mIoU, aAcc, mAcc, top1, top5)"
        raise UserError(Problem(str(file), "", message))
    return found, training, old


def _entries(file: Path) -> list[tuple[int, dict[str, Any]]]:
    text = read_text(file)
    if not text.strip():
        raise UserError(Problem(str(file), "", "the file is empty; expected a JSON object per line"))
    lines = lines_of(text)
    entries: list[tuple[int, dict[str, Any]]] = []
    last = len(lines)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except json.JSONDecodeError as error:
            if number == last and entries:
                break  # The training was killed while it wrote this line.
            raise UserError(Problem(str(file), "", f"not a JSON object: {error.msg}", number)) from None
        if not isinstance(entry, dict):
            raise UserError(Problem(str(file), "", f"expected a JSON object, found {line[:40]!r}", number))
        entries.append((number, entry))
    return entries


def _metrics(file: Path, number: int, entry: dict[str, Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for key, value in entry.items():
        name = NAMES.get(key.rsplit("/", 1)[-1])
        if name is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(Problem(str(file), key, f"expected a number, found {shown(value)}", number))
        if name in values:
            raise UserError(Problem(str(file), key, f"a second value of {name} in the same validation", number))
        try:
            values[name] = float(value)
        except OverflowError:
            raise UserError(Problem(str(file), key, "the number is too large", number)) from None
    return values
