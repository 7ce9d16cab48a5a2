"""What readers of other tools' files have in common: this project's names and units, and the choice of an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import unknown_model
from hafabench.config.metrics import METRICS, Verb, importable_metrics, unknown_metric
from hafabench.errors import Problem, UserError


@dataclass(frozen=True)
class Reading:
    """One number of a file, under this project's names and in the record's unit.

    Attributes:
        task, model, seed, name, value, unit, convention: as in `hafabench.results.record.Metric`.
        read: which part of the file it is, a clause.
        line: in the file.
        device, commit: where and with which code it was measured; None where the file does not say.
    """

    task: str
    model: str
    seed: int | None
    name: str
    value: float
    unit: str
    read: str
    line: int
    convention: str | None = None
    device: str | None = None
    commit: str | None = None

    @property
    def verb(self) -> Verb:
        """What would have measured it here."""
        return METRICS[self.name].verb


@dataclass(frozen=True)
class Import:
    """Everything that was read of a file.

    Attributes:
        kind, file, also: as in `hafabench.results.record.ImportSource`; ``also`` maps files to SHA-256.
        readings: the numbers.
        training: what the file says of the training, for the record; None where it says nothing.
    """

    kind: Literal["timm", "mmengine", "csv"]
    file: Path
    readings: tuple[Reading, ...]
    also: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] | None = None


def resolve_model(name: str, models: Mapping[str, ModelSpec]) -> str:
    """This project's name of a model that may be called by timm's.

    Raises:
        UserError: for a name that is neither, with the nearest names.
    """
    if name in models:
        return name
    bare = name.split(".")[0]  # timm's tag of pretrained weights
    found = [spec.name for spec in models.values() if spec.architecture == bare and not spec.has_mergers]
    if len(found) != 1:
        raise UserError(unknown_model(name, dict(models)))
    return found[0]


def in_record_unit(task: str, name: str, value: float, unit: str) -> tuple[float, str]:
    """A number in the unit that records hold it in, and that unit.

    Raises:
        UserError: for a metric that the task does not have, a unit that it is not given in, a number that is not
            finite or out of range.
    """
    known = importable_metrics(task)
    if name in METRICS and METRICS[name].verb == "latency":
        raise UserError("latencies are not imported: they mean something only beside those of the same process")
    if name not in known:
        raise UserError(unknown_metric(name, known, task=task))
    metric = known[name]
    if unit not in metric.import_units:
        units = " or ".join(map(repr, metric.import_units))
        raise UserError(f"unknown unit {unit!r} of {name}; expected {units}")
    if not math.isfinite(value):
        raise UserError(f"{name} is {value}, expected a finite number")
    converted = value * metric.import_units[unit]
    if converted < 0 or (metric.is_percentage and converted > 100):
        limits = "0 to 100 %" if metric.is_percentage else "0 or more"
        raise UserError(f"{name} is {value:g} {unit}, expected {limits}")
    return converted, metric.unit


@dataclass(frozen=True)
class Evaluation:
    """One evaluation along a training: metric -> value as the file has it, and where it stands."""

    position: int
    line: int
    values: dict[str, float]


def choose(evaluations: Sequence[Evaluation], which: str, main: str, word: str, file: Path) -> tuple[Evaluation, str]:
    """The evaluation to import, and a clause that says which it is.

    Args:
        evaluations: in the file's order; where a resumed training repeats a position, the later one counts.
        which: ``last``, ``best`` (of ``main``; the first of equal ones) or a position.
        word: what positions count, ``epoch`` or ``step``.

    Raises:
        UserError: for a position that was not evaluated, or no finite value to be the best.
    """
    at = {evaluation.position: evaluation for evaluation in evaluations}
    if which == "last":
        chosen, how = evaluations[-1], "the last"
    elif which == "best":
        known = [item for item in at.values() if math.isfinite(item.values.get(main, math.nan))]
        if not known:
            raise UserError(Problem(str(file), main, f"no {word} has a finite value, so none is the best"))
        chosen, how = max(known, key=lambda item: item.values[main]), f"the best by {main}"
    elif which.isdecimal() and int(which) in at:
        chosen, how = at[int(which)], "asked for by number"
    else:
        named = ", ".join(map(str, list(at)[-5:]))
        message = f"no {word} {which!r} was evaluated; expected last, best, or one of ... {named}"
        raise UserError(Problem(str(file), "", message))
    return chosen, f"{word} {chosen.position}, {how} of {len(at)} evaluated (line {chosen.line})"
