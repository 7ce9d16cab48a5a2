"""Writes imported numbers to records, which are stored apart from the measured ones.

An earlier import is replaced only if the user asks for it. A number with an unknown seed is never combined with
numbers that have a seed, because it may be a repetition of one of them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.errors import Problem, UserError
from hafabench.files import remove_made, sha256_of
from hafabench.imports.imported import Import, ImportedMetric
from hafabench.results.predictions import made_outputs
from hafabench.results.record import (
    ImportSource,
    Provenance,
    Record,
    outputs_beside,
    predictions_beside,
    read_record,
    write_record,
)
from hafabench.runs.experiment_file import store_experiment_file
from hafabench.runs.fingerprints import imported_fingerprint
from hafabench.runs.paths import complexity_record, imported_folder


@dataclass(frozen=True)
class Stored:
    """A record that was written.

    Attributes:
        path: The file.
        record: Its content.
        replaced: The files of earlier imports that were deleted.
        is_measured: Whether the model was also measured in this project. Tables then show the measured number.
    """

    path: Path
    record: Record
    replaced: tuple[Path, ...]
    is_measured: bool


def now() -> str:
    """Return the current time as in records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def store_import(experiment: Experiment, imported: Import, *, replace: bool = False) -> list[Stored]:
    """Write the records of an import: one per task, model, seed and verb.

    Raises:
        UserError: If a number is given twice, the experiment has no data set for a task, or numbers were imported
            before. Nothing is written then.
    """
    return store_records(experiment, _records(experiment, imported), replace=replace)


def store_records(experiment: Experiment, records: Sequence[Record], *, replace: bool = False) -> list[Stored]:
    """Write imported records; raises `UserError` as `store_import` does."""
    places = [(_path(experiment, record), record) for record in records]
    clashes = {path: _clashes(path, record) for path, record in places}
    problems = [
        Problem(str(other), "", message)
        for found in clashes.values()
        for other, (both, rest) in found.items()
        if (message := _refusal(both, rest, replace))
    ]
    if problems:
        raise UserError(problems)
    store_experiment_file(experiment)
    stored = []
    for path, record in places:
        write_record(path, record)
        replaced = tuple(other for other in clashes[path] if other != path)
        for other in replaced:
            other.unlink()
            remove_made(outputs_beside(other), made_outputs(predictions_beside(other)))
            predictions_beside(other).unlink(missing_ok=True)
        stored.append(Stored(path, record, replaced, _is_measured(experiment, record)))
    return stored


def refuse_earlier(experiment: Experiment, task: str, model: str, seed: int | None, digest: str) -> None:
    """Check before an evaluation that `store_records` will accept its record.

    Args:
        experiment: The experiment.
        task: The task of the evaluation.
        model: The model's name.
        seed: The seed of the weights, if known.
        digest: The SHA-256 of the weights.

    Raises:
        UserError: If evaluations of the model were imported from another file.
    """
    folder = imported_folder(experiment, "evaluate", task, model)
    earlier = [path for path in sorted(folder.glob("*.json")) if not path.stem.endswith(digest[:8])]
    problems = [
        Problem(str(path), "", _refusal([metric.name for metric in record.metrics], [], replace=False))
        for path in earlier
        if _may_be_same(seed, (record := read_record(path)).metrics[0].seed)
    ]
    if problems:
        raise UserError(problems)


def _may_be_same(seed: int | None, other: int | None) -> bool:
    return seed is None or other is None or seed == other


def _records(experiment: Experiment, imported: Import) -> list[Record]:
    groups: dict[tuple[str, str, str, int | None], list[ImportedMetric]] = {}
    for found in imported.metrics:
        key = (found.verb, found.metric.task, found.metric.model, found.metric.seed)
        groups.setdefault(key, []).append(found)
    problems = [problem for group in groups.values() for problem in _problems(experiment, imported.file, group)]
    for verb, task, model, seed in groups:
        if seed is None and any(other[:3] == (verb, task, model) and other[3] is not None for other in groups):
            message = f"{model} on {task} with and without a seed; a number without one may belong to any seed"
            problems.append(Problem(str(imported.file), "", message))
    if problems:
        raise UserError(problems)
    digest = sha256_of(imported.file)
    return [_record(experiment, imported, digest, group) for group in groups.values()]


def _problems(experiment: Experiment, file: Path, group: Sequence[ImportedMetric]) -> Iterable[Problem]:
    first = group[0]
    if first.verb == "evaluate" and first.metric.task not in experiment.config.datasets:
        message = f"experiment {experiment.name} has no data set for {first.metric.task}"
        yield Problem(str(file), "", message, first.line)
    lines: dict[str, int] = {}
    for found in group:
        name = found.metric.name
        if name in lines:
            message = f"{name} of {found.metric.model} is given twice: also in line {lines[name]}"
            yield Problem(str(file), "", message, found.line)
        lines[name] = found.line
        if (found.device, found.commit) != (first.device, first.commit):
            message = f"another device or commit than in line {first.line}, which has the same model and seed"
            yield Problem(str(file), "", message, found.line)


def _record(experiment: Experiment, imported: Import, digest: str, group: Sequence[ImportedMetric]) -> Record:
    first, metric = group[0], group[0].metric
    return Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        origin="imported",
        verb=first.verb,
        id=imported_id(metric.task, metric.model, metric.seed),
        fingerprint=imported_fingerprint(experiment, first.verb, metric.task),
        metrics=[found.metric for found in group],
        provenance=Provenance(
            command=shlex.join(["hafabench", *sys.argv[1:]]),
            git_commit=first.commit,
            git_dirty=None,
            packages={},
            python=None,
            device=first.device,
            threads=None,
            host=None,
            started=None,
            duration_s=None,
            peak_memory_mb=None,
        ),
        training=imported.training,
        source=ImportSource(
            kind=imported.kind,
            file=str(imported.file),
            sha256=digest,
            read="; ".join(dict.fromkeys(found.part for found in group)),
            imported=now(),
            also=imported.also,
        ),
    )


def imported_id(task: str, model: str, seed: int | None) -> str:
    """Return the id of an imported record, such as ``imported/segmentation/pvt_tiny/seed0``."""
    return f"imported/{task}/{model}/seed{'_unknown' if seed is None else seed}"


def _is_measured(experiment: Experiment, record: Record) -> bool:
    metric = record.metrics[0]
    if record.verb == "complexity":
        path = complexity_record(experiment, metric.task)
        return path.is_file() and any(found.model == metric.model for found in read_record(path).metrics)
    return any((experiment.results / metric.task / metric.model).glob("seed*/evaluate.json"))


def imported_path(experiment: Experiment, verb: str, identifier: str, digest: str) -> Path:
    """Return the path of an imported record.

    Args:
        experiment: The experiment.
        verb: The verb of the record.
        identifier: The id of the record, see `imported_id`.
        digest: The SHA-256 of the file that it was imported from.
    """
    _, task, model, seed = identifier.split("/")
    return imported_folder(experiment, verb, task, model) / f"{seed}-{digest[:8]}.json"


def _path(experiment: Experiment, record: Record) -> Path:
    assert record.source is not None
    return imported_path(experiment, record.verb, record.id, record.source.sha256)


def _refusal(both: Sequence[str], rest: Sequence[str], replace: bool) -> str:
    """Return why an earlier import with the metrics ``both`` and ``rest`` must not be replaced; empty if it may be.

    Only ``both`` are also in the new import.
    """
    if not replace:
        return f"an earlier import contains {', '.join(both)}; --replace replaces it"
    if rest:
        hint = "delete the file by hand if they are not needed"
        return f"it also contains {', '.join(rest)}, which the new import does not; {hint}"
    return ""


def _clashes(path: Path, record: Record) -> dict[Path, tuple[list[str], list[str]]]:
    """Return the earlier imports with metrics of the new record: the common metrics, and the other ones of each.

    An import that is repeated without any change does not clash.
    """
    seed = record.metrics[0].seed
    new = {metric.name: metric.value for metric in record.metrics}
    found = {}
    for other in sorted(path.parent.glob("*.json")):
        old = read_record(other)
        both = [metric.name for metric in old.metrics if metric.name in new]
        again = other == path and {metric.name: metric.value for metric in old.metrics} == new
        if _may_be_same(seed, old.metrics[0].seed) and both and not again:
            found[other] = both, [metric.name for metric in old.metrics if metric.name not in new]
    return found
