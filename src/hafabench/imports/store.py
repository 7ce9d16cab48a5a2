"""Imported numbers become records, beside the measured ones and never among them.

A number that was imported before is not replaced unless that is asked for, and a number of an unknown seed never
joins numbers of known seeds: it may be one of theirs.
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
from hafabench.files import sha256_of
from hafabench.imports.imported import Import, Reading
from hafabench.results.record import ImportSource, Metric, Provenance, Record, read_record, write_record
from hafabench.runs.fingerprints import imported_fingerprint
from hafabench.runs.paths import complexity_record, imported_folder


@dataclass(frozen=True)
class Stored:
    """A record that was written.

    Attributes:
        replaced: files of earlier imports that it took the place of.
        is_measured: whether the same model was measured here, so that tables show that.
    """

    path: Path
    record: Record
    replaced: tuple[Path, ...]
    is_measured: bool


def now() -> str:
    """The present moment as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def store_import(experiment: Experiment, imported: Import, *, replace: bool = False) -> list[Stored]:
    """Write the records of an import: one per task, model, seed and kind of measurement.

    Raises:
        UserError: for a number given twice, tasks that the experiment has no data for, or numbers that were imported
            already; nothing is written then.
    """
    records = _records(experiment, imported)
    return store_records(experiment, records, replace=replace)


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
    stored = []
    for path, record in places:
        write_record(path, record)
        replaced = tuple(other for other in clashes[path] if other != path)
        for other in replaced:
            other.unlink()
        stored.append(Stored(path, record, replaced, _is_measured(experiment, record)))
    return stored


def refuse_earlier(experiment: Experiment, task: str, model: str, seed: int | None, digest: str) -> None:
    """Refuse, before anything is evaluated, what `store_records` would refuse afterwards.

    Raises:
        UserError: where evaluations of the model were imported from another file already.
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
    groups: dict[tuple, list[Reading]] = {}
    for reading in imported.readings:
        groups.setdefault((reading.verb, reading.task, reading.model, reading.seed), []).append(reading)
    problems = [problem for group in groups.values() for problem in _misfits(experiment, imported.file, group)]
    for verb, task, model, seed in groups:
        if seed is None and any(other[:3] == (verb, task, model) and other[3] is not None for other in groups):
            message = f"{model} on {task} with and without a seed: a number without one may be any seed's"
            problems.append(Problem(str(imported.file), "", message))
    if problems:
        raise UserError(problems)
    digest = sha256_of(imported.file)
    return [_record(experiment, imported, digest, group) for group in groups.values()]


def _misfits(experiment: Experiment, file: Path, group: Sequence[Reading]) -> Iterable[Problem]:
    first = group[0]
    if first.verb == "evaluate" and first.task not in experiment.config.datasets:
        message = f"experiment {experiment.name} has no data set for {first.task}"
        yield Problem(str(file), "", message, first.line)
    seen: dict[str, int] = {}
    for reading in group:
        if reading.name in seen:
            message = f"{reading.name} of {reading.model} is given twice: also in line {seen[reading.name]}"
            yield Problem(str(file), "", message, reading.line)
        seen[reading.name] = reading.line
        if (reading.device, reading.commit) != (first.device, first.commit):
            message = f"another device or commit than line {first.line}, which is of the same model and seed"
            yield Problem(str(file), "", message, reading.line)


def _record(experiment: Experiment, imported: Import, digest: str, group: Sequence[Reading]) -> Record:
    first = group[0]
    return Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        origin="imported",
        verb=first.verb,
        id=imported_id(first.task, first.model, first.seed),
        fingerprint=imported_fingerprint(experiment, first.verb, first.task),
        metrics=[
            Metric(
                task=r.task,
                model=r.model,
                seed=r.seed,
                name=r.name,
                value=r.value,
                unit=r.unit,
                convention=r.convention,
            )
            for r in group
        ],
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
            read="; ".join(dict.fromkeys(reading.read for reading in group)),
            imported=now(),
            also=imported.also,
        ),
    )


def imported_id(task: str, model: str, seed: int | None) -> str:
    """``imported/segmentation/pvt_tiny/seed0``; without a seed, ``seed_unknown``."""
    return f"imported/{task}/{model}/seed{'_unknown' if seed is None else seed}"


def _is_measured(experiment: Experiment, record: Record) -> bool:
    metric = record.metrics[0]
    if record.verb == "complexity":
        path = complexity_record(experiment, metric.task)
        return path.is_file() and any(found.model == metric.model for found in read_record(path).metrics)
    return any((experiment.results / metric.task / metric.model).glob("seed*/evaluate.json"))


def _path(experiment: Experiment, record: Record) -> Path:
    metric = record.metrics[0]
    folder = imported_folder(experiment, record.verb, metric.task, metric.model)
    return folder / f"{record.id.rsplit('/', 1)[-1]}-{record.source.sha256[:8]}.json"


def _refusal(both: Sequence[str], rest: Sequence[str], replace: bool) -> str:
    """Why an earlier import stays that holds ``both`` of the new metrics and ``rest`` besides; empty: it goes."""
    if not replace:
        return f"holds {', '.join(both)} already, imported; --replace puts the new import in its place"
    if rest:
        return f"also holds {', '.join(rest)}, which the new import does not: delete it by hand if that may go"
    return ""


def _clashes(path: Path, record: Record) -> dict[Path, tuple[list[str], list[str]]]:
    """Earlier imports that hold metrics of the new one: their common metrics, and what else each holds.

    The very same import, made again, is none.
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
