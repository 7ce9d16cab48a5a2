"""Data sets made where they can be made, verified in any case, and reported.

Embedded data is read whole. Of full-scale data every name and annotation is checked and a fixed sample of images is
decoded; its digest is over names and sizes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hafabench.config.experiment import DatasetConfig, Experiment
from hafabench.config.json_file import read_json_model
from hafabench.data import manifest, paths
from hafabench.data.checks import SURVEYS, Findings, announced, decode
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.runs.paths import dataset_report

SCHEMA = "hafabench.dataset_report/1"
DECODED_PER_SPLIT = 512


class DatasetReport(BaseModel):
    """What a verified data set holds. The same data gives the same report.

    Attributes:
        identity: what was asked for, without the place.
        root: where it lies.
        counts: images per split.
        classes: names in the order of the classes, where the data set carries them.
        digest: SHA-256, over everything (``content``) or over names and sizes (``listing``).
        decoded: images (and their masks) that were decoded completely, per split.
        details: further counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")
    name: str
    layout: str
    identity: dict[str, Any]
    root: str
    counts: dict[str, int]
    classes: list[str] | None
    digest: str
    digest_of: Literal["content", "listing"]
    decoded: dict[str, int]
    details: dict[str, Any] = {}

    def summary(self) -> str:
        """The report in a few lines of text."""
        lines = [f"{self.name} ({self.layout}) at {self.root}: in order"]
        for split, count in self.counts.items():
            lines.append(f"  {split}: {count} images, {self.decoded[split]} decoded")
        for name, value in self.details.items():
            shown = ", ".join(f"{n} {key}" for key, n in value.items()) if isinstance(value, dict) else value
            lines.append(f"  {name}: {shown}")
        lines.append(f"  digest of {self.digest_of}: {self.digest}")
        return "\n".join(lines)


def verify_dataset(dataset: DatasetConfig) -> DatasetReport:
    """Check a data set against its configuration.

    Raises:
        UserError: with everything that is wrong: missing or empty folders and classes, counts, images that cannot
            be decoded, masks that do not fit their images or classes, annotations with unknown ids.
    """
    if not dataset.root.is_dir():
        raise UserError(Problem(str(dataset.root), "", _absent(dataset)))
    findings = Findings()
    embedded = dataset.generator is not None
    try:
        survey = SURVEYS[dataset.data_format](dataset, findings)
        decoded = {}
        for split, samples in survey.samples.items():
            if not embedded and len(samples) > DECODED_PER_SPLIT:
                samples = random.Random(0).sample(samples, DECODED_PER_SPLIT)
            decoded[split] = len(samples)
            for sample in announced(samples, len(samples), f"{dataset.name}: decoding images of {split}"):
                decode(sample, dataset.num_classes, findings)
        if embedded:
            digest = _verified_digest(dataset, findings)
        elif not findings:
            files = announced(sorted(survey.files), len(survey.files), f"{dataset.name}: listing files")
            digest = manifest.listing_digest(dataset.root, files)
    except OSError as error:
        raise UserError(
            Problem(str(error.filename or dataset.root), "", f"cannot be read: {error.strerror}")
        ) from None
    if findings:
        raise UserError(findings.problems())
    own = manifest.read_manifest(dataset.root) if embedded else None
    return DatasetReport(
        schema=SCHEMA,
        name=dataset.name,
        layout=dataset.data_format,
        identity=dataset.identity(),
        root=str(dataset.root),
        counts=survey.counts,
        classes=own["classes"] if own else survey.classes,
        digest=digest,
        digest_of="content" if embedded else "listing",
        decoded=decoded,
        details=survey.details,
    )


def prepare_dataset(dataset: DatasetConfig, report_path: Path) -> DatasetReport:
    """Make a data set where it has a generator and is not there as it was made; verify it; write the report.

    Raises:
        UserError: as `verify_dataset` and `hafabench.data.digits.make_digits` do; no report is written then.
    """
    if dataset.generator is not None and not manifest.is_as_made(dataset):
        from hafabench.data.digits import make_digits

        make_digits(dataset)
    report = verify_dataset(dataset)
    write_text(report_path, json.dumps(report.model_dump(by_alias=True), indent=2) + "\n")
    return report


def read_report(path: Path) -> DatasetReport:
    """Read the report of a verified data set.

    Raises:
        UserError: for a missing file, invalid JSON, another schema or wrong content.
    """
    message = "no such report; `hafabench data prepare` verifies the data set and writes it"
    return read_json_model(path, DatasetReport, missing=message)


def missing_datasets(datasets: Mapping[str, DatasetConfig]) -> list[str]:
    """A sentence for each data set that is not there and cannot be made; looks at names only.

    Args:
        datasets: by task, as in an experiment.
    """
    sentences = []
    for task, dataset in datasets.items():
        if dataset.generator is not None:
            continue
        if not dataset.root.is_dir():
            sentences.append(f"{task}: {dataset.name} is not at {dataset.root}: {_absent(dataset)}")
            continue
        absent = [path for path in paths.required_paths(dataset) if _is_nothing(path)]
        if absent:
            names = ", ".join(str(path.relative_to(dataset.root)) for path in absent)
            sentences.append(f"{task}: {dataset.name} at {dataset.root} is incomplete: missing or empty: {names}")
    return sentences


def _is_nothing(path: Path) -> bool:
    if path.is_dir():
        return next(path.iterdir(), None) is None
    return not path.is_file()


def _absent(dataset: DatasetConfig) -> str:
    if dataset.generator is not None:
        return "no such folder; `hafabench data prepare` makes it"
    needed = ", ".join(str(path.relative_to(dataset.root)) for path in paths.required_paths(dataset))
    return f"no such folder; expected the layout {dataset.data_format!r} in it: {needed}"


def _verified_digest(dataset: DatasetConfig, findings: Findings) -> str:
    found = manifest.read_manifest(dataset.root)
    digest = manifest.content_digest(dataset.root)
    file = dataset.root / manifest.NAME
    again = "`hafabench data prepare` makes the data set anew"
    if found is None:
        findings.add("manifests", file, f"no manifest that can be read; {again}")
    elif found.get("parameters") != manifest.parameters(dataset):
        findings.add("manifests", file, f"made with other parameters than configured; {again}", "parameters")
    elif found.get("digest") != digest:
        message = f"files changed since they were made: expected {found.get('digest')}, found {digest}; {again}"
        findings.add("manifests", file, message, "digest")
    return digest


def dataset_digest(experiment: Experiment, task: str) -> str | None:
    """The digest that `hafabench data prepare` verified, or None where it has not run."""
    path = dataset_report(experiment, task)
    if not path.is_file():
        return None
    return read_report(path).digest
