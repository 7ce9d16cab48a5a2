"""The preparation of a data set: it is made if it has a generator, and always verified."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hafabench.config.experiment import DatasetConfig
from hafabench.data import manifest
from hafabench.data.arrangement import arrangement_problems, is_missing_or_empty
from hafabench.data.paths import required_paths
from hafabench.data.report import DatasetReport, read_report
from hafabench.data.verify import describe_missing_root, verify_dataset
from hafabench.errors import UserError
from hafabench.files import write_text


def prepare_dataset(dataset: DatasetConfig, report_path: Path, *, contents: bool = False) -> DatasetReport:
    """Make the data set if it has a generator and is missing or changed; verify it; write the report.

    Args:
        dataset: The data set.
        report_path: Where the report is written.
        contents: Whether all files are read, however large the data set is; see `verify_dataset`.

    Raises:
        UserError: As in `verify_dataset` and `hafabench.data.digits.make_digits`. Then no report is written, and an
            earlier one is kept.
    """
    if dataset.generator is not None and not manifest.is_unchanged(dataset):
        from hafabench.data.digits import make_digits

        make_digits(dataset)
    report = verify_dataset(dataset, contents=contents)
    before = _report_of_same_data(report, report_path)
    if before is not None and not report.contents:
        # What was read once is compared as long as names and sizes are the same.
        report = report.model_copy(update={"contents": before.contents})
    made = report_path.stat().st_mtime if before is not None else None
    write_text(report_path, json.dumps(report.model_dump(by_alias=True), indent=2) + "\n")
    if made is not None:
        # Otherwise the workflow would train again on the same data, as if it had changed.
        os.utime(report_path, (made, made))
    return report


def _report_of_same_data(report: DatasetReport, path: Path) -> DatasetReport | None:
    """Return the report at ``path`` if it is about the same data, perhaps in another folder."""
    try:
        before = read_report(path)
    except UserError:
        return None
    same = (before.identity, before.counts, before.digest) == (report.identity, report.counts, report.digest)
    # Digests that one of the two reports does not contain are not known to differ.
    same = same and before.listings in ({}, report.listings)
    same = same and ({} in (before.contents, report.contents) or before.contents == report.contents)
    return before if same else None


def missing_datasets(datasets: Mapping[str, DatasetConfig]) -> dict[str, list[str]]:
    """Describe every data set without generator that is missing or arranged in another way; only names are checked.

    Args:
        datasets: The data sets by task, as in an experiment.

    Returns:
        The sentences about each data set that cannot be read, by task.
    """
    return {task: found for task, dataset in datasets.items() if (found := list(_missing(task, dataset)))}


def _missing(task: str, dataset: DatasetConfig) -> Iterator[str]:
    if dataset.generator is not None:
        return
    if not dataset.root.is_dir():
        yield f"{task}: {dataset.name} is not at {dataset.root}: {describe_missing_root(dataset)}"
        return
    missing = [path for path in required_paths(dataset) if is_missing_or_empty(path)]
    if missing:
        names = ", ".join(str(path.relative_to(dataset.root)) for path in missing)
        yield f"{task}: {dataset.name} at {dataset.root} is incomplete: missing or empty: {names}"
    yield from (f"{task}: {problem}" for problem in arrangement_problems(dataset))
