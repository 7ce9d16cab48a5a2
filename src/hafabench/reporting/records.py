"""The records of an experiment, each checked against everything that is known about it before it is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of_large
from hafabench.results.checks import (
    Repeated,
    evaluated_findings,
    missing_findings,
    prediction_findings,
    read_record_at,
    record_findings,
    unexpected_findings,
)
from hafabench.results.findings import Finding, Link
from hafabench.results.place import place_of
from hafabench.results.record import Record
from hafabench.runs.records import ExpectedRecord, expected_contents, imported_records


@dataclass(frozen=True)
class CheckedRecord:
    """One record that was checked.

    Attributes:
        record: Its content; None if it cannot be read.
        findings: What is wrong with it; then it cannot be used.
        compared: The links that it was compared with: predictions and a checkpoint that are on this machine.
        absent: Those that are not on this machine.
    """

    record: Record | None
    findings: list[Finding]
    compared: frozenset[Link] = frozenset()
    absent: frozenset[Link] = frozenset()


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
        compared: How many records were compared with predictions and with a checkpoint.
        absent: How many could not be, because these are not on this machine.
    """

    experiment: Experiment
    findings: list[Finding] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    incomplete: list[Finding] = field(default_factory=list)
    compared: Counter[Link] = field(default_factory=Counter)
    absent: Counter[Link] = field(default_factory=Counter)
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
            found = check_record(self.experiment, path, expected, is_measured=is_measured)
            self.findings += found.findings
            self.compared.update(found.compared)
            self.absent.update(found.absent)
            if found.record is not None and not found.findings:
                self._repeated.add(path, found.record)
                self.incomplete += missing_findings(path, found.record, expected.required)
                yield path, found.record
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


def check_record(experiment: Experiment, path: Path, expected: ExpectedRecord, *, is_measured: bool) -> CheckedRecord:
    """Read one record of an experiment and check it, against the predictions and the checkpoint beside it too.

    Args:
        experiment: The experiment.
        path: The file of the record.
        expected: What it has to contain.
        is_measured: Whether it is a measured record, and not an imported one.
    """
    place = place_of(path, experiment.results)
    try:
        record = read_record_at(path, place)
    except UserError as error:
        return CheckedRecord(None, [_of_problem(problem, path) for problem in error.problems])
    if place is None:
        message = "a record is never renamed; import it again or delete it"
        return CheckedRecord(record, [Finding("record", str(path), message)])
    found = record_findings(path, record, place)
    found = found or _of_another_experiment(experiment, path, record)
    if not found and record.fingerprint != expected.fingerprint:
        what = "made under another configuration" if is_measured else "imported for other data or sizes"
        advice = "make it again or delete it" if is_measured else "import it again or delete it"
        message = f"{what}: expected {expected.fingerprint}, found {record.fingerprint}; {advice}"
        found = [Finding("record", str(path), message, "fingerprint")]
    if not found and is_measured:
        found = unexpected_findings(path, record, expected.required | expected.possible)
    if found:
        return CheckedRecord(record, found)
    made_from: dict[Link, bool] = {}
    images = expected.run.dataset.images["val"] if expected.run is not None else None
    predictions = prediction_findings(path, record, images)
    if record.predictions_sha256 is not None or predictions is not None:
        made_from["predictions"] = predictions is not None
        found += predictions or []
    checkpoint = expected.run.checkpoint if expected.run is not None else None
    if checkpoint is not None and record.provenance.checkpoint_sha256 is not None:
        made_from["checkpoint"] = checkpoint.is_file()
        try:
            if checkpoint.is_file():
                found += evaluated_findings(record, checkpoint, sha256_of_large(checkpoint))
        except OSError as error:
            found.append(Finding("checkpoint", str(checkpoint), f"the file cannot be read: {error.strerror}"))
    compared = frozenset(link for link, is_present in made_from.items() if is_present)
    return CheckedRecord(record, found, compared, frozenset(made_from) - compared)


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
