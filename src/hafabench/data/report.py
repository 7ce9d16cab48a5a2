"""The report of a verified data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.experiment import DatasetConfig, Experiment
from hafabench.config.json_file import read_json_model
from hafabench.config.recipes import Task
from hafabench.data import manifest
from hafabench.data.listing import list_split
from hafabench.data.paths import SPLITS
from hafabench.errors import Problem, UserError
from hafabench.results.findings import Finding
from hafabench.runs.paths import dataset_report
from hafabench.runs.verified_data import SPLIT_NAMES

SCHEMA: Final = "hafabench.dataset_report/1"


class DatasetReport(StrictModel):
    """The contents of a verified data set. The same data gives the same report.

    Attributes:
        name: The name of the data set in the experiment.
        data_format: Its data format.
        identity: Its configuration without its folder.
        root: Its folder.
        counts: Images per split.
        classes: Names in the order of the classes, if the data set contains them.
        digest: SHA-256 of all files (``content``), or of their names and sizes (``listing``).
        digest_of: ``content`` or ``listing``.
        decoded: Number of images per split that were decoded completely, with their masks.
        details: Further counts.
        listings: SHA-256 of the files of each split (`hafabench.data.manifest.split_digest`), with which training and
            evaluation compare the files that they read. Reports of earlier versions have none.
        contents: SHA-256 of the names, sizes and contents of the files of each split, if they were read completely
            although the data set was not generated. An image that was exchanged for another one of the same size
            changes these digests only.
        notes: Sentences about files that are not read, and about unusual annotations.
    """

    schema_: Literal["hafabench.dataset_report/1"] = Field(SCHEMA, alias="schema")
    name: str
    data_format: str = Field(alias="layout")
    identity: dict[str, Any]
    root: str
    counts: dict[str, int]
    classes: list[str] | None
    digest: str
    digest_of: Literal["content", "listing"]
    decoded: dict[str, int]
    details: dict[str, Any] = Field(default_factory=dict)
    listings: dict[str, str] = Field(default_factory=dict)
    contents: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    def summary(self) -> str:
        """Return the report as a few lines of text."""
        lines = [f"{self.name} ({self.data_format}) at {self.root}: no problems found"]
        for split, count in self.counts.items():
            lines.append(f"  {split}: {count} images, {self.decoded[split]} decoded")
        for name, value in self.details.items():
            shown = ", ".join(f"{n} {key}" for key, n in value.items()) if isinstance(value, dict) else value
            lines.append(f"  {name}: {shown}")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  digest of {self.digest_of}: {self.digest}")
        return "\n".join(lines)


def read_report(path: Path) -> DatasetReport:
    """Read the report of a verified data set.

    Raises:
        UserError: If the file is missing, is not valid JSON, or has another schema or wrong content.
    """
    message = "no such report; `hafabench data prepare` verifies the data set and writes it"
    return read_json_model(path, DatasetReport, missing=message)


def compared_digest(dataset: DatasetConfig, split: str, report: Path | None) -> str:
    """Compare the files of a split with those that were verified.

    Args:
        dataset: The data set.
        split: ``train`` or ``val``.
        report: The report of the verified data set. If it does not exist, or is about another configuration, only
            generated data is compared, with its manifest.

    Returns:
        The digest of the files.

    Raises:
        UserError: If the files differ from the verified ones or, for generated data, from those that were made with
            the configured parameters; also if files are missing, or the report cannot be read.
    """
    is_generated = dataset.generator is not None
    if is_generated and dataset.root.is_dir():
        problems = manifest.parameter_problems(dataset)
        if problems:
            raise UserError(problems)
    files = list_split(dataset, split)
    sizes = manifest.file_sizes(files.files)
    unreadable = [size for size in sizes.values() if isinstance(size, Problem)]
    if unreadable:
        advice = f"and {len(unreadable) - 1} more; `hafabench data verify` lists all problems"
        raise UserError([unreadable[0], advice] if len(unreadable) > 1 else unreadable)
    digests = manifest.file_digests(files.files) if is_generated else None
    if digests is not None:
        changed = manifest.content_problems(dataset, digests)
        if changed:
            raise UserError(changed)
    digest = manifest.split_digest(dataset.root, files, sizes, digests)
    verified = read_report(report) if report is not None and report.is_file() else None
    if verified is None or verified.identity != dataset.identity():
        return digest
    count, expected = len(files.images), verified.counts.get(split)
    what = ""
    if count != expected:
        what = f"{expected} images were verified, and there are {count} now"
    elif digest != verified.listings.get(split, digest):
        what = f"other files than the {count} images that were verified{_modified_since(files.files, report)}"
    if what:
        name = SPLIT_NAMES[split]
        task = report.stem if report is not None else ""
        advice = f"run `hafabench data prepare {task}` with this experiment to verify the data again"
        raise UserError(Problem(str(files.folder), "", f"the {name} split has changed: {what}; {advice}"))
    return digest


def data_findings(dataset: DatasetConfig, report: Path) -> list[Finding] | None:
    """Compare all files of a data set with those that were made (generated data) and verified.

    Contents of data that was not generated are compared if they were read completely when it was verified.

    Args:
        dataset: The data set.
        report: The report of the verified data set, which need not exist.

    Returns:
        What does not hold; None if the data set is not on this machine, or was neither generated nor verified.
    """
    if not dataset.root.is_dir() or (dataset.generator is None and not report.is_file()):
        return None
    problems: list[Problem | str] = []
    if dataset.generator is not None:
        problems += manifest.parameter_problems(dataset) or manifest.content_problems(dataset)
    try:
        verified = read_report(report) if report.is_file() else None
        if verified is not None and verified.identity != dataset.identity():
            message = (
                "the data was verified under another configuration than that of the experiment; run "
                f"`hafabench data prepare {report.stem}` with this experiment"
            )
            problems.append(Problem(str(report), "identity", message))
            verified = None
        for split in SPLITS:
            if not problems:
                compared_digest(dataset, split, report)
            if not problems and verified is not None and split in verified.contents:
                problems += _content_problems(dataset, split, report, verified.contents[split])
        if not problems and verified is not None and verified.digest_of == "content":
            problems += _digest_problems(dataset, report, verified.digest)
    except UserError as error:
        problems += error.problems
    except OSError as error:
        problems.append(Problem(str(error.filename or dataset.root), "", f"cannot be read: {error.strerror}"))
    return [
        Finding("data", problem.file, problem.message, problem.key)
        if isinstance(problem, Problem)
        else Finding("data", str(dataset.root), problem)
        for problem in problems
    ]


def _content_problems(dataset: DatasetConfig, split: str, report: Path, expected: str) -> list[Problem]:
    files = list_split(dataset, split)
    sizes, digests = manifest.file_sizes(files.files), manifest.file_digests(files.files)
    if manifest.split_digest(dataset.root, files, sizes, digests) == expected:
        return []
    message = (
        f"the content of files of the {SPLIT_NAMES[split]} split has changed since they were verified"
        f"{_modified_since(files.files, report)}; restore them, or run `hafabench data prepare {report.stem}` to "
        "verify the data again"
    )
    return [Problem(str(files.folder), "", message)]


def _digest_problems(dataset: DatasetConfig, report: Path, expected: str) -> list[Problem]:
    digest = manifest.content_digest(dataset.root)
    if digest == expected:
        return []
    message = (
        f"the digest of {dataset.root} is {digest[:12]}, but {expected[:12]} in this report, which was edited or is "
        f"about other files; run `hafabench data prepare {report.stem}` to verify the data again"
    )
    return [Problem(str(report), "digest", message)]


def _modified_since(files: Sequence[Path], report: Path | None) -> str:
    """Return a clause that names the file that was modified last, if that was after the report was written."""
    if report is None:
        return ""
    try:
        last = max(files, key=lambda file: file.stat().st_mtime)
        return f" ({last} was modified since)" if last.stat().st_mtime > report.stat().st_mtime else ""
    except (OSError, ValueError):
        return ""


def dataset_digest(experiment: Experiment, task: Task) -> str | None:
    """Return the digest that `hafabench data prepare` computed.

    Returns:
        The digest, or None if that command has not run under the present configuration of the data set.
    """
    path = dataset_report(experiment, task)
    if not path.is_file():
        return None
    report = read_report(path)
    return report.digest if report.identity == experiment.config.datasets[task].identity() else None
