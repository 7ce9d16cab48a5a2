"""JSON logs of OpenMMLab trainings, one object a line: mmengine's ``vis_data/scalars.json``, older ``*.log.json``.

Both hold training lines, which are passed over, and one line per validation, which carry the metrics under the
libraries' names: mmdet's ``coco/bbox_mAP_50``, mmseg's ``mIoU``, mmpretrain's ``accuracy/top1``, and their names of
before mmengine. Old logs mark validations with ``"mode": "val"`` and give segmentation as fractions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hafabench.config.catalog import ModelSpec
from hafabench.config.metrics import METRICS, main_metric
from hafabench.errors import Problem, UserError
from hafabench.imports.imported import (
    Evaluation,
    Import,
    Reading,
    choose,
    in_record_unit,
    resolve_model,
)

_AP = {"": "ap", "_50": "ap50", "_75": "ap75", "_s": "ap_s", "_m": "ap_m", "_l": "ap_l"}
# Last part of a logged name -> this project's.
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
_Validations = dict[str, list[Evaluation]]


def read_mmengine(
    file: Path,
    models: Mapping[str, ModelSpec],
    *,
    model: str | None,
    which: str = "last",
    task: str | None = None,
    seed: int | None = None,
) -> Import:
    """The metrics of one validation of an OpenMMLab training.

    Args:
        file: the log.
        models: names that a model may have.
        model: what was trained; these logs do not say.
        which: ``last``, ``best`` or a position: the log's ``step`` (old logs: ``epoch``).
        task: expected; by default what the metrics are of.

    Raises:
        UserError: for a file that is no such log or holds no validation, without a model, or a value out of range.
    """
    if model is None:
        raise UserError(Problem(str(file), "", "these logs do not say which model was trained: give --model"))
    model = resolve_model(model, models)
    validations, facts, old = _validations(file)
    found = list(validations)
    if task is None and len(found) > 1:
        raise UserError(Problem(str(file), "", f"validations of {' and '.join(found)}: give --task"))
    task = task or found[0]
    if task not in validations:
        raise UserError(Problem(str(file), "", f"no validation of {task}, only of {', '.join(found)}"))
    word = "epoch" if old else "step"
    chosen, read = choose(validations[task], which, main_metric(task).name, word, file)
    seed = facts.get("seed") if seed is None else seed
    unit = "fraction" if task == "detection" or (old and task == "segmentation") else "%"
    readings = []
    for name, value in chosen.values.items():
        # COCO's -1 is no value: the data has no object of that size.
        if task == "detection" and value == -1:
            continue
        try:
            held, held_unit = in_record_unit(task, name, value, unit)
        except UserError as error:
            raise UserError(Problem(str(file), name, str(error), chosen.line)) from None
        convention = "OpenMMLab's validation" + (", rounded to 0.1 in its log" if task == "detection" else "")
        readings.append(Reading(task, model, seed, name, held, held_unit, read, chosen.line, convention=convention))
    if not readings:
        raise UserError(Problem(str(file), "", "all of its values are undefined (-1)", chosen.line))
    return Import("mmengine", file, tuple(readings), training=facts or None)


def _validations(file: Path) -> tuple[_Validations, dict[str, Any], bool]:
    """Validations by task, what the log says of the training, and whether it is one of before mmengine."""
    found: _Validations = {}
    facts: dict[str, Any] = {}
    old = False
    for number, entry in _entries(file):
        if "env_info" in entry:
            facts = {key: entry[key] for key in ("seed", "exp_name", "config") if key in entry}
            if not isinstance(facts.get("seed"), int):
                facts.pop("seed", None)
            continue
        if entry.get("mode", "val") != "val":
            continue
        values = _metrics(file, number, entry)
        if not values:
            continue
        old = old or "mode" in entry
        position = entry.get("epoch" if "mode" in entry else "step")
        if not isinstance(position, int):
            raise UserError(Problem(str(file), "", "a validation without its step or epoch", number))
        for task in dict.fromkeys(METRICS[name].tasks[0] for name in values):
            of_task = {name: value for name, value in values.items() if METRICS[name].tasks[0] == task}
            found.setdefault(task, []).append(Evaluation(position, number, of_task))
    if not found:
        message = "no line holds a validation's metrics (bbox_mAP, segm_mAP, mIoU, aAcc, mAcc, top1, top5)"
        raise UserError(Problem(str(file), "", message))
    return found, facts, old


def _entries(file: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(file), "", f"cannot be read as UTF-8 text: {error}")) from None
    entries, last = [], len(lines)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number == last and entries:
                break  # torn: the training was killed while it wrote
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
            raise UserError(Problem(str(file), key, f"expected a number, found {value!r}", number))
        if name in values:
            raise UserError(Problem(str(file), key, f"a second {name} in one validation: of which data set?", number))
        values[name] = float(value)
    return values
