"""The records of an experiment, each checked against everything that is known about it before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of_large
from hafabench.results.checks import (
    Repeated,
    checkpoint_findings,
    missing_findings,
    prediction_findings,
    record_findings,
    unexpected_findings,
)
from hafabench.results.findings import Finding
from hafabench.results.place import place_of
from hafabench.results.record import Record, read_record
from hafabench.runs.records import ExpectedRecord, expected_contents, imported_records


@dataclass
class RecordCheck:
    """The check of an experiment's records; complete after `usable` was read to its end.

    A record cannot be used if it cannot be read, was edited, is about something else than its path, was made under
    another configuration, has numbers that its verb does not measure, or was made from another checkpoint or other
    predictions than those beside it.

    Attributes:
        experiment: The experiment.
        findings: What is wrong with the records that cannot be used.
        missing: The files of measured records that do not exist or cannot be used.
        files: The files of all records that exist, of imported ones too.
        incomplete: What is wrong with records that can be used, but lack numbers.
    """

    experiment: Experiment
    findings: list[Finding] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    incomplete: list[Finding] = field(default_factory=list)
    _repeated: Repeated = field(default_factory=Repeated)

    def usable(self) -> Iterator[tuple[Path, Record]]:
        """Yield the file and the content of every record that can be used.

        Only the last record tells whether two describe the same evaluation; see `repeated`.
        """
        measured = expected_contents(self.experiment)
        imported = {path: ExpectedRecord(mark) for path, mark in imported_records(self.experiment).items()}
        for path, expected in (measured | imported).items():
            is_measured = path in measured
            if is_measured and not path.exists():
                self.missing.append(path)
                continue
            self.files.append(path)
            record, found = check_record(self.experiment, path, expected, is_measured=is_measured)
            self.findings += found
            if record is not None and not found:
                self._repeated.add(path, record)
                self.incomplete += missing_findings(path, record, expected.required)
                yield path, record
            elif is_measured:
                self.missing.append(path)

    def repeated(self) -> set[Path]:
        """Add the records that describe the same evaluation as another one to those that cannot be used.

        Returns:
            Their files.
        """
        found = self._repeated.findings()
        self.findings += found.values()
        self.missing += sorted(found)
        return set(found)


def check_record(
    experiment: Experiment, path: Path, expected: ExpectedRecord, *, is_measured: bool
) -> tuple[Record | None, list[Finding]]:
    """Read one record of an experiment and check it.

    Args:
        experiment: The experiment.
        path: The file of the record.
        expected: What it has to contain.
        is_measured: Whether it is a measured record, and not an imported one.

    Returns:
        The record, or None if it cannot be read; and what is wrong with it.
    """
    try:
        record = read_record(path)
    except UserError as error:
        return None, [_of_problem(problem, path) for problem in error.problems]
    place = place_of(path, experiment.results)
    found = record_findings(path, record, place) if place is not None else []
    found = found or _of_another_experiment(experiment, path, record)
    if not found and record.fingerprint != expected.fingerprint:
        what = "made under another configuration" if is_measured else "imported for other data or sizes"
        advice = "make it again or delete it" if is_measured else "import it again or delete it"
        message = f"{what}: expected {expected.fingerprint}, found {record.fingerprint}; {advice}"
        found = [Finding("record", str(path), message, "fingerprint")]
    if not found and is_measured:
        found = unexpected_findings(path, record, expected.required | expected.possible)
    found = found or prediction_findings(path, record) or []
    if not found and expected.run is not None and expected.run.checkpoint.is_file():
        try:
            digest = sha256_of_large(expected.run.checkpoint)
        except OSError as error:
            return record, [Finding("checkpoint", str(expected.run.checkpoint), f"cannot be read: {error.strerror}")]
        found = checkpoint_findings(record, expected.run.checkpoint, digest)
    return record, found


def _of_another_experiment(experiment: Experiment, path: Path, record: Record) -> list[Finding]:
    known = {"experiment": experiment.name, "scale": experiment.config.scale}
    advice = "a record is never moved from one experiment to another; delete it"
    return [
        Finding(
            "record",
            str(path),
            f"expected {value!r} in this experiment, found {getattr(record, key)!r}; {advice}",
            key,
        )
        for key, value in known.items()
        if getattr(record, key) != value
    ]


def _of_problem(problem: Problem | str, path: Path) -> Finding:
    if isinstance(problem, str):
        return Finding("record", str(path), problem)
    return Finding("record", problem.file, problem.message, problem.key)
