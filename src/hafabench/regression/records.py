"""The records of a folder by metric key, and the predictions stored beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from hafabench.config.metrics import Verb
from hafabench.errors import Problem, UserError
from hafabench.results.checks import Repeated, prediction_findings, read_record_at, record_findings, with_advice
from hafabench.results.findings import Finding
from hafabench.results.place import COMPLEXITIES, EVALUATIONS, IMPORTED_EVALUATIONS, LATENCIES, place_of
from hafabench.results.predictions import Predictions, read_predictions
from hafabench.results.record import Collapse, Metric, Record, predictions_beside, remedy

_PATTERNS = (EVALUATIONS, COMPLEXITIES, LATENCIES, IMPORTED_EVALUATIONS)


@dataclass(frozen=True, order=True)
class MetricKey:
    """What identifies a metric in the gate: one metric of one model, over all its seeds.

    Attributes:
        verb: The verb that made the records.
        group: The task of an evaluation (``imported/<task>`` if foreign weights were evaluated); the id of a
            measurement of complexity or latency.
        model: The model's name.
        metric: The metric's name.
    """

    verb: Verb
    group: str
    model: str
    metric: str

    def __str__(self) -> str:
        return f"{self.group}/{self.model}/{self.metric}"


@dataclass(frozen=True)
class RecordedMetric:
    """One metric of one record."""

    path: Path
    record: Record
    metric: Metric


@dataclass(frozen=True)
class RecordSet:
    """All records of a folder: those of the baseline or those of the candidate.

    Attributes:
        folder: The folder that contains them.
        experiment: The name of their experiment.
        paths: The files of the records.
        metrics: The metric of each seed, by metric key. Metrics without a seed have seed -1.
        collapses: The outcome of each run without numbers, by the id of the run.
    """

    folder: Path
    experiment: str
    paths: tuple[Path, ...]
    metrics: dict[MetricKey, dict[int, RecordedMetric]]
    collapses: dict[str, Collapse] = field(default_factory=dict)

    @property
    def records(self) -> dict[str, Record]:
        """The records by id."""
        return {found.record.id: found.record for by_seed in self.metrics.values() for found in by_seed.values()}


def read_records(folder: Path) -> RecordSet:
    """Read the records of a folder.

    Raises:
        UserError: If the folder has no records, some are unreadable (all are listed), they belong to several
            experiments, a number is given twice, or a record does not agree with its path or its predictions.
    """
    paths = []
    metrics: dict[MetricKey, dict[int, RecordedMetric]] = {}
    problems: list[Problem | str] = []
    experiments: dict[str, Path] = {}
    collapses: dict[str, Collapse] = {}
    repeated = Repeated()
    for path in record_paths(folder):
        try:
            record = read_record_at(path, place_of(path, folder))
        except UserError as error:
            problems += error.problems
            continue
        # Numbers that were measured elsewhere are not compared. Foreign weights that were evaluated here are.
        if record.origin == "imported" and record.predictions_sha256 is None:
            continue
        findings = _findings(path, record, folder)
        if findings:
            problems += [finding.as_problem() for finding in findings]
            continue
        repeated.add(path, record)
        paths.append(path)
        experiments.setdefault(record.experiment, path)
        if record.collapse is not None:
            collapses[record.id] = record.collapse
        for metric in record.metrics:
            group = metric.task if record.verb == "evaluate" else record.id
            # Numbers with a measured and with an imported origin are never compared.
            group = f"imported/{group}" if record.origin == "imported" else group
            key = MetricKey(record.verb, group, metric.model, metric.name)
            seed = -1 if metric.seed is None else metric.seed
            by_seed = metrics.setdefault(key, {})
            if seed in by_seed:
                where = "twice" if by_seed[seed].path == path else f"also in {by_seed[seed].path}"
                message = f"{key}{'' if seed < 0 else f'/seed{seed}'} is given {where}; expected every number once"
                problems.append(Problem(str(path), "metrics", message))
                continue
            by_seed[seed] = RecordedMetric(path, record, metric)
    problems += [finding.as_problem() for finding in repeated.findings().values()]
    if len(experiments) > 1:
        found = ", ".join(f"{name} ({path})" for name, path in sorted(experiments.items()))
        problems.append(Problem(str(folder), "experiment", f"expected records of one experiment, found {found}"))
    if not paths and not problems:
        message = "no records; expected classification/<model>/seed<k>/evaluate.json, complexity/, latency/ ..."
        problems.append(Problem(str(folder), "", message))
    if problems:
        raise UserError(problems)
    return RecordSet(folder, next(iter(experiments)), tuple(paths), metrics, collapses)


def _findings(path: Path, record: Record, folder: Path) -> list[Finding]:
    """Return what is wrong with a record, in the folder of all records of the baseline or of the candidate."""
    place = place_of(path, folder)
    if place is None:
        message = "no record is stored at such a path; expected <task>/<model>/seed<k>/evaluate.json"
        return [Finding("record", str(path), message)]
    return record_findings(path, record, place) or prediction_findings(path, record) or []


def record_paths(folder: Path) -> Iterator[Path]:
    """Return the files of all records below a folder, sorted, with those of numbers that were measured elsewhere."""
    for pattern in _PATTERNS:
        yield from sorted(Path(folder).glob(pattern))


def predictions_of(recorded: RecordedMetric) -> Predictions | None:
    """Return the predictions that a metric was computed from; None if none are stored for it.

    Raises:
        UserError: If the file is missing or damaged, or the record was made with another file.
    """
    digest = recorded.record.predictions_sha256
    if digest is None:
        return None
    path = predictions_beside(recorded.path)
    about = path.stat() if path.is_file() else None
    version = (about.st_size, about.st_mtime_ns) if about is not None else None
    try:
        found = _read_predictions(path, digest, version)
    except UserError as error:
        raise with_advice(error, remedy(recorded.record)) from None
    return found if recorded.metric.name in found.metrics else None


@lru_cache(maxsize=16)
def _read_predictions(path: Path, sha256: str, _version: tuple[int, int] | None) -> Predictions:
    # Every metric of a run needs the same file. A file that changes is read again.
    return read_predictions(path, sha256)
