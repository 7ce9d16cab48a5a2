"""The report of a verified data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.experiment import Experiment
from hafabench.config.json_file import read_json_model
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

    def summary(self) -> str:
        """Return the report as a few lines of text."""
        lines = [f"{self.name} ({self.data_format}) at {self.root}: no problems found"]
        for split, count in self.counts.items():
            lines.append(f"  {split}: {count} images, {self.decoded[split]} decoded")
        for name, value in self.details.items():
            shown = ", ".join(f"{n} {key}" for key, n in value.items()) if isinstance(value, dict) else value
            lines.append(f"  {name}: {shown}")
        lines.append(f"  digest of {self.digest_of}: {self.digest}")
        return "\n".join(lines)


def read_report(path: Path) -> DatasetReport:
    """Read the report of a verified data set.

    Raises:
        UserError: If the file is missing, is not valid JSON, or has another schema or wrong content.
    """
    message = "no such report; `hafabench data prepare` verifies the data set and writes it"
    return read_json_model(path, DatasetReport, missing=message)


def dataset_digest(experiment: Experiment, task: str) -> str | None:
    """Return the digest that `hafabench data prepare` computed, or None if that command has not run."""
    path = dataset_report(experiment, task)
    if not path.is_file():
        return None
    return read_report(path).digest
