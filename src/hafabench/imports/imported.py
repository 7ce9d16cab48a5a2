"""Parts that the readers of all file formats share: metrics in record units, model names, choice of an epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hafabench.config.base import shown
from hafabench.config.bounds import MAX_IMPORTED_SEED
from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import unknown_model
from hafabench.config.metrics import METRICS, Verb, importable_metrics, unknown_metric
from hafabench.config.recipes import Task
from hafabench.errors import Problem, UserError
from hafabench.results.record import Metric


@dataclass(frozen=True)
class ImportedMetric:
    """One number of a file.

    Attributes:
        metric: The number under this project's names and in the unit of records.
        part: The part of the file that contains it, as a clause.
        line: The line of the file.
        device: The device that it was measured on; None if the file does not contain it.
        commit: The commit of the code that measured it; None if the file does not contain it.
    """

    metric: Metric
    part: str
    line: int
    device: str | None = None
    commit: str | None = None

    @property
    def verb(self) -> Verb:
        """The verb that measures the metric in this project."""
        return METRICS[self.metric.name].verb


@dataclass(frozen=True)
class Import:
    """The content of a file.

    Attributes:
        kind: The format of the file, as in `hafabench.results.record.ImportSource`.
        file: The file.
        metrics: The numbers in the file.
        also: Other files that were read, each with its SHA-256.
        training: What the file contains about the training; None if nothing.
    """

    kind: Literal["timm", "mmengine", "csv"]
    file: Path
    metrics: tuple[ImportedMetric, ...]
    also: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] | None = None


def resolve_model(name: str, models: Mapping[str, ModelSpec]) -> str:
    """Return this project's name of a model that may also be given by its name in timm.

    Raises:
        UserError: If no model or several models have the name. The message contains similar names.
    """
    if name in models:
        return name
    architecture = name.split(".")[0]  # timm adds a tag for pretrained weights.
    found = [spec.name for spec in models.values() if spec.architecture == architecture and not spec.has_mergers]
    if len(found) != 1:
        raise UserError(unknown_model(name, dict(models)))
    return found[0]


def seed_in(found: Any, file: Path, key: str, line: int | None = None) -> int | None:
    """Return the seed of a training as a file contains it; None if there is none.

    Args:
        found: The value in the file.
        file: The file, for the message.
        key: The key of the value, for the message.
        line: The line of the value, for the message.

    Raises:
        UserError: If the value is no seed.
    """
    if found is None:
        return None
    if type(found) is not int or not 0 <= found <= MAX_IMPORTED_SEED:
        message = (
            f"expected a whole number from 0 to {MAX_IMPORTED_SEED}, found {shown(found)}; --seed gives the seed"
        )
        raise UserError(Problem(str(file), key, message, line))
    return found


def metric_in_record_unit(
    task: Task,
    model: str,
    seed: int | None,
    name: str,
    value: float,
    unit: str,
    *,
    convention: str | None = None,
) -> Metric:
    """Return a metric with its value converted to the unit of records.

    Args:
        task: The task that the metric is about.
        model: This project's name of the model.
        seed: The seed of the training, if known.
        name: The name of the metric.
        value: Its value in ``unit``.
        unit: One of the units that the metric may be imported in.
        convention: How it was measured, if known.

    Raises:
        UserError: If the task does not have the metric, it cannot be given in the unit, or the value is not finite or
            out of range.
    """
    if name in METRICS and METRICS[name].verb == "latency":
        raise UserError("latencies are not imported: they can only be compared within the same process")
    known = importable_metrics(task)
    if name not in known:
        raise UserError(unknown_metric(name, known, task=task))
    spec = known[name]
    if unit not in spec.import_units:
        raise UserError(f"unknown unit {shown(unit)} of {name}; expected {' or '.join(map(repr, spec.import_units))}")
    if not math.isfinite(value):
        raise UserError(f"{name} is {value}, expected a finite number")
    converted = value * spec.import_units[unit]
    problem = spec.range_problem(converted)
    if problem:
        raise UserError(f"{name} is {value:g} {unit}, {problem.partition(', ')[2]}")
    return Metric(
        task=task, model=model, seed=seed, name=name, value=converted, unit=spec.unit, convention=convention
    )


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during a training.

    Attributes:
        position: The epoch or the step.
        line: The line of the file.
        values: The value of each metric as in the file.
    """

    position: int
    line: int
    values: dict[str, float]


def choose_evaluation(
    evaluations: Sequence[Evaluation], epoch: str, metric: str, position_name: str, file: Path
) -> tuple[Evaluation, str]:
    """Return the evaluation to import, and a clause that describes the choice.

    Args:
        evaluations: The evaluations in the file's order. If a resumed training repeats a position, the later one
            counts.
        epoch: ``last``, ``best`` or a position.
        metric: The metric that ``best`` maximises. The first of equal evaluations is chosen.
        position_name: What positions are: ``epoch`` or ``step``.
        file: The file, for messages.

    Raises:
        UserError: If the position was not evaluated, or the metric never has a finite value.
    """
    by_position = {evaluation.position: evaluation for evaluation in evaluations}
    if epoch == "last":
        chosen, how = evaluations[-1], "the last"
    elif epoch == "best":
        finite = [item for item in by_position.values() if math.isfinite(item.values.get(metric, math.nan))]
        if not finite:
            raise UserError(Problem(str(file), metric, f"no {position_name} has a finite value, so none is the best"))
        chosen, how = max(finite, key=lambda item: item.values[metric]), f"the best by {metric}"
    elif re.fullmatch("[0-9]{1,18}", epoch) and int(epoch) in by_position:
        chosen, how = by_position[int(epoch)], "chosen by number"
    else:
        evaluated = ", ".join(map(str, list(by_position)[-5:]))
        message = f"no {position_name} {shown(epoch)} was evaluated; expected last, best, or one of ... {evaluated}"
        raise UserError(Problem(str(file), "", message))
    clause = f"{position_name} {chosen.position}, {how} of {len(by_position)} evaluated (line {chosen.line})"
    return chosen, clause
