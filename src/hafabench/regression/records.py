"""One side of a comparison: a folder's records by cell, and the predictions beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hafabench.errors import Problem, UserError
from hafabench.results.predictions import FILE_NAME, Predictions, read_predictions
from hafabench.results.record import Metric, Record, read_record

# Where records lie below an experiment's folder, and below a baseline.
PATTERNS = ("*/*/seed*/evaluate.json", "complexity/*.json", "latency/*.json")


@dataclass(frozen=True, order=True)
class Cell:
    """What is compared: one metric of one model, over all its seeds.

    Attributes:
        verb: of the records.
        group: the measurement's id for complexity and latency; the task for evaluations.
        model, metric: names.
    """

    verb: str
    group: str
    model: str
    metric: str

    def __str__(self) -> str:
        return f"{self.group}/{self.model}/{self.metric}"


@dataclass(frozen=True)
class Entry:
    """One metric of one record."""

    path: Path
    record: Record
    metric: Metric


@dataclass(frozen=True)
class Side:
    """All records of one side.

    Attributes:
        folder: that holds them.
        paths: the records' files.
        cells: seed (-1 where there is none) -> entry, by cell.
    """

    folder: Path
    paths: tuple[Path, ...]
    cells: dict[Cell, dict[int, Entry]]

    @property
    def records(self) -> dict[str, Record]:
        """By id."""
        return {entry.record.id: entry.record for entries in self.cells.values() for entry in entries.values()}


def load_side(folder: Path) -> Side:
    """Read a folder's records.

    Raises:
        UserError: for a folder without any, unreadable ones (all at once), and records of several experiments.
    """
    paths = tuple(record_paths(folder))
    if not paths:
        message = "no records here; expected classification/<model>/seed<k>/evaluate.json, complexity/, latency/ ..."
        raise UserError(Problem(str(folder), "", message))
    cells: dict[Cell, dict[int, Entry]] = {}
    problems: list[Problem | str] = []
    experiments: dict[str, Path] = {}
    for path in paths:
        try:
            record = read_record(path)
        except UserError as error:
            problems += error.problems
            continue
        experiments.setdefault(record.experiment, path)
        for metric in record.metrics:
            group = metric.task if record.verb == "evaluate" else record.id
            cell = Cell(record.verb, group, metric.model, metric.name)
            seed = -1 if metric.seed is None else metric.seed
            cells.setdefault(cell, {})[seed] = Entry(path, record, metric)
    if len(experiments) > 1:
        found = ", ".join(f"{name} ({path})" for name, path in sorted(experiments.items()))
        problems.append(Problem(str(folder), "experiment", f"expected records of one experiment, found {found}"))
    if problems:
        raise UserError(problems)
    return Side(folder, paths, cells)


def record_paths(folder: Path) -> Iterator[Path]:
    """The records below ``folder``, sorted."""
    for pattern in PATTERNS:
        yield from sorted(Path(folder).glob(pattern))


def predictions_of(entry: Entry) -> Predictions | None:
    """What was kept of each image; None for a record that kept nothing, or not this metric.

    Raises:
        UserError: for a file that is missing, damaged, or not the one that the record was made with.
    """
    if entry.record.predictions_sha256 is None:
        return None
    found = _read(entry.path.with_name(FILE_NAME), entry.record.predictions_sha256)
    return found if entry.metric.name in found.metrics else None


@lru_cache(maxsize=16)
def _read(path: Path, sha256: str) -> Predictions:
    # Every metric of a run asks for the same file.
    return read_predictions(path, sha256)
