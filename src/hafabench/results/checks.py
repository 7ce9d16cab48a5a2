"""Checks of a record against its place, the predictions beside it, and the other records of its experiment.

Everything that takes numbers from records, and `hafabench audit`, uses these functions. `read_record` has already
checked that each number has a known name and unit and lies in its range.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from hafabench.config.recipes import TASKS
from hafabench.errors import Problem, UserError
from hafabench.results.findings import Finding, Link
from hafabench.results.place import Place, place_problems
from hafabench.results.predictions import PREDICTIONS_OF, Predictions, read_predictions
from hafabench.results.record import Record, predictions_beside, read_record, remedy

# Sums in another order differ by a few bits; this is in percent.
_ROUNDING = 1e-6
_RUN_ID = re.compile(rf"({'|'.join(TASKS)})/[^/\s]+/seed[0-9]+")
_SHOWN = 4


def read_record_at(path: Path, place: Place | None) -> Record:
    """Read and validate a record.

    Args:
        path: The file of the record.
        place: The place of the file; None if no record is stored at such a path.

    Raises:
        UserError: If `read_record` raises one. Every problem says how the record is made again.
    """
    try:
        return read_record(path)
    except UserError as error:
        if place is None or not path.exists():
            raise
        advice = remedy(place) if place.origin == "imported" else f"remove it, and {remedy(place)}"
        raise with_advice(error, advice, unless=remedy(place)) from None


def with_advice(error: UserError, advice: str, unless: str | None = None) -> UserError:
    """Return an error whose problems say what the user can do.

    Args:
        error: The error.
        advice: What the user can do, as a clause.
        unless: A problem that contains this text says so already; None is the advice.
    """

    def advised(problem: Problem | str) -> Problem | str:
        if isinstance(problem, str) or (unless or advice) in problem.message:
            return problem
        return replace(problem, message=f"{problem.message}; {advice}")

    return UserError([advised(problem) for problem in error.problems])


def record_findings(path: Path, record: Record, place: Place) -> list[Finding]:
    """Check that a record is about its place and that its numbers do not contradict each other.

    Args:
        path: The file of the record.
        record: The record.
        place: The place of the file, see `hafabench.results.place.place_of`.
    """
    problems = list(place_problems(record, place)) or [*_made_by_another_run(record), *_contradictions(record)]
    return _findings("record", path, problems, remedy(record))


def unexpected_findings(path: Path, record: Record, possible: Set[tuple[str, str]]) -> list[Finding]:
    """Check that a record has only numbers that its verb measures in this experiment.

    Args:
        path: The file of the record.
        record: The record.
        possible: The model and the name of every number that it may have.
    """
    more = {(metric.model, metric.name) for metric in record.metrics} - possible
    problems = [("metrics", f"the record should not contain {_numbers(more)}")] if more else []
    return _findings("record", path, problems, remedy(record))


def missing_findings(path: Path, record: Record, required: Set[tuple[str, str]]) -> list[Finding]:
    """Check that a record has every number that its verb measures in this experiment.

    Args:
        path: The file of the record.
        record: The record. One of a training that collapsed has no numbers.
        required: The model and the name of every number that it must have.
    """
    lost = required - {(metric.model, metric.name) for metric in record.metrics}
    problems = [("metrics", f"the record lacks {_numbers(lost)}")] if lost and record.collapse is None else []
    return _findings("record", path, problems, remedy(record))


def _numbers(pairs: Iterable[tuple[str, str]]) -> str:
    return _listed(f"{name} of {model}" for model, name in pairs)


def prediction_findings(path: Path, record: Record, images: int | None = None) -> list[Finding] | None:
    """Check that the predictions beside a record are those that it was made from, and that they give its numbers.

    Predictions are compared with a record that does not contain their SHA-256, too.

    Args:
        path: The file of the record.
        record: The record.
        images: The number of images of the validation split, if known.

    Returns:
        The findings; None if there is nothing to compare: the predictions are not on this machine, or the training
        collapsed.
    """
    file = predictions_beside(path)
    if not file.exists() or (record.predictions_sha256 is None and not _has_predictions(record)):
        return None
    try:
        found = read_predictions(file, record.predictions_sha256)
        problems = list(_unlike_predictions(record, found))
        if images is not None and len(found.images) != images:
            what = f"of {len(found.images)} images, but the validation split has {images}"
            problems.append(("predictions_sha256", f"the predictions beside the record are {what}"))
    except UserError as error:
        [problem] = error.problems
        message = getattr(problem, "message", str(problem))
        return [Finding("predictions", str(file), f"{message}; {remedy(record)}")]
    return _findings("predictions", path, problems, remedy(record))


def _has_predictions(record: Record) -> bool:
    return record.verb == "evaluate" and record.origin == "measured" and record.collapse is None


def evaluated_findings(record: Record, checkpoint: Path, sha256: str) -> list[Finding]:
    """Check that a checkpoint is the one that a record was made from.

    Args:
        record: The record of an evaluation.
        checkpoint: The file.
        sha256: The SHA-256 of the file.
    """
    known = record.provenance.checkpoint_sha256
    if known is None or known == sha256:
        return []
    message = f"its SHA-256 is {sha256[:12]}, but {record.id} was evaluated with {known[:12]}"
    return [Finding("checkpoint", str(checkpoint), f"{message}; {remedy(record)}")]


class Repeated:
    """Finds evaluations that were counted twice: records of different runs that describe the same evaluation.

    It keeps a few digits of each record, so that thousands of records can be compared.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, tuple[Path, str]]] = defaultdict(dict)

    def add(self, path: Path, record: Record) -> None:
        """Add a record."""
        if record.verb != "evaluate" or record.origin != "measured" or record.collapse is not None:
            return
        for what in filter(None, (record.provenance.checkpoint_sha256, _circumstances(record))):
            self._seen[what].setdefault(record.id, (path, remedy(record)))

    def findings(self) -> dict[Path, Finding]:
        """Return a finding for every record that describes the same evaluation as another one, by its file."""
        found = {}
        for same in self._seen.values():
            for name, (path, advice) in same.items():
                others = sorted(same.keys() - {name})
                if others:
                    message = f"it describes the same training and evaluation as {_listed(others)}; {advice}"
                    found[path] = Finding("record", str(path), message)
        return found


def _circumstances(record: Record) -> str | None:
    """Return what no two evaluations share: times to the millisecond, memory, host; None for incomplete records."""
    training = record.training or {}
    if not training.get("started") or not training.get("seconds"):
        return None
    training = {key: value for key, value in training.items() if key != "command"}
    provenance = record.provenance
    own = [provenance.host, provenance.started, provenance.duration_s, provenance.peak_memory_mb]
    return json.dumps([own, training], sort_keys=True)


def _made_by_another_run(record: Record) -> Iterator[tuple[str, str]]:
    """Yield the commands in a record's provenance that train or evaluate another run."""
    if record.verb != "evaluate" or record.origin != "measured":
        return
    for key, provenance in (("provenance", record.provenance.model_dump()), ("training", record.training or {})):
        command = provenance.get("command")
        try:
            words = shlex.split(command) if isinstance(command, str) else []
        except ValueError:
            continue
        named = next((word for word in words if _RUN_ID.fullmatch(word)), record.id)
        # The outcome of a training that did not begin is that of the run whose weights it would start from.
        if named != record.id and not (record.collapse is not None and named == record.collapse.run):
            yield f"{key}.command", f"the record of {record.id} was made by the command of {named}"


def _contradictions(record: Record) -> Iterator[tuple[str, str]]:
    values = {(metric.model, metric.seed, metric.name): metric for metric in record.metrics}
    for (model, seed, name), metric in values.items():
        for smaller, larger in (("top1", "top5"), ("top1_ema", "top5_ema"), ("params_trainable", "params")):
            other = values.get((model, seed, larger))
            if name == smaller and other is not None and metric.value > other.value:
                yield "metrics", f"{smaller} of {model} is {metric.value:g}, more than its {larger}, {other.value:g}"
        is_share = record.origin == "measured" and metric.task == "classification" and record.verb == "evaluate"
        if is_share and metric.repeats:
            right = metric.value * metric.repeats / 100
            if abs(right - round(right)) > _ROUNDING * metric.repeats:
                yield (
                    "metrics",
                    f"{name} of {model} is {metric.value:g} %, which is no share of {metric.repeats} images",
                )


def _unlike_predictions(record: Record, found: Predictions) -> Iterator[tuple[str, str]]:
    """Yield every number of a record that is not the one that its predictions give."""
    task = record.metrics[0].task if record.metrics else None
    if task is None or not isinstance(found, PREDICTIONS_OF[task]):
        yield "predictions_sha256", f"the predictions beside the record are none of {task}"
        return
    present = {metric.name: (index, metric) for index, metric in enumerate(record.metrics)}
    everything = np.ones((1, len(found.images)), dtype=np.int64)
    for name in found.metrics:
        value = float(found.resampled(name, everything).item())
        if name not in present:
            if np.isfinite(value):
                yield "metrics", f"the record lacks {name}, which is {value:g} % by its predictions"
            continue
        index, metric = present[name]
        if not abs(metric.value - value) <= _ROUNDING:
            is_ = f"is {metric.value:g} %, but {value:g} % by its predictions"
            yield f"metrics[{index}].value", f"{name} of {metric.model} {is_}"
        elif metric.repeats is not None and metric.repeats != len(found.images):
            what = f"{metric.repeats} images, but its predictions are of {len(found.images)}"
            yield f"metrics[{index}].repeats", f"{name} of {metric.model} is given for {what}"


def _findings(link: Link, path: Path, problems: Iterable[tuple[str, str]], advice: str) -> list[Finding]:
    return [Finding(link, str(path), f"{message}; {advice}", key) for key, message in problems]


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
