"""The report of a verified data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.experiment import DatasetConfig, Experiment
from hafabench.config.json_file import read_json_model
from hafabench.data import manifest
from hafabench.data.listing import list_split
from hafabench.errors import Problem, UserError
from hafabench.runs.paths import dataset_report

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
        report: The report of the verified data set. If it does not exist, or is about another configuration, nothing
            is compared.

    Returns:
        The digest of the files.

    Raises:
        UserError: If the files differ from the verified ones, are missing, or the report cannot be read.
    """
    files = list_split(dataset, split)
    sizes = manifest.file_sizes(files.files)
    problems = [size for size in sizes.values() if isinstance(size, Problem)]
    if problems:
        advice = f"and {len(problems) - 1} more; `hafabench data verify` lists all problems"
        raise UserError([problems[0], advice] if len(problems) > 1 else problems)
    digest = manifest.split_digest(dataset.root, files, sizes, content=dataset.generator is not None)
    verified = read_report(report) if report is not None and report.is_file() else None
    if verified is None or verified.identity != dataset.identity():
        return digest
    count, expected = len(files.images), verified.counts.get(split)
    what = ""
    if count != expected:
        what = f"{expected} images were verified, and there are {count} now"
    elif digest != verified.listings.get(split, digest):
        what = f"other files than the {count} images that were verified"
    if what:
        name = {"train": "training", "val": "validation"}[split]
        task = report.stem if report is not None else ""
        advice = f"run `hafabench data prepare {task}` with this experiment to verify the data again"
        raise UserError(Problem(str(files.folder), "", f"the {name} split has changed: {what}; {advice}"))
    return digest


def dataset_digest(experiment: Experiment, task: str) -> str | None:
    """Return the digest that `hafabench data prepare` computed, or None if that command has not run."""
    path = dataset_report(experiment, task)
    if not path.is_file():
        return None
    return read_report(path).digest
