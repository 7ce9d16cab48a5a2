"""The verification of a whole data set.

All files of embedded data are read. For full-scale data, every name and annotation is checked, a fixed sample of the
images is decoded, and the digest covers names and sizes.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

from hafabench.config.experiment import DatasetConfig
from hafabench.data import manifest
from hafabench.data.arrangement import arrangement_problems
from hafabench.data.listing import files_not_read, list_split
from hafabench.data.paths import SPLITS, required_paths
from hafabench.data.report import SCHEMA, DatasetReport
from hafabench.data.verify.ade20k import MaskValues, survey_ade20k
from hafabench.data.verify.coco import survey_coco
from hafabench.data.verify.findings import Findings, Survey
from hafabench.data.verify.imagenet import survey_imagenet
from hafabench.data.verify.images import check_image, has_expected_sizes
from hafabench.errors import Problem, UserError

DECODED_PER_SPLIT = 512
# A larger data set is read completely only on request. ADE20K has 1 GB, COCO 20 GB and ImageNet 150 GB.
READ_AT_MOST = 4 * 10**9
_SECONDS_BETWEEN_LINES = 10.0

Item = TypeVar("Item")

SURVEYS: dict[str, Callable[[DatasetConfig, Findings], Survey]] = {
    "imagenet": survey_imagenet,
    "ade20k": survey_ade20k,
    "coco": survey_coco,
}


def verify_dataset(dataset: DatasetConfig, *, contents: bool = False) -> DatasetReport:
    """Check a data set against its configuration.

    Args:
        dataset: The data set.
        contents: Whether all files are read, so that the report has digests of their contents. Otherwise they are
            read if the data set is generated, or has at most `READ_AT_MOST` bytes.

    Raises:
        UserError: With all problems: missing or empty folders and classes, wrong counts, images that cannot be
            decoded, masks that do not fit their images or classes, annotations with undefined ids.
    """
    if not dataset.root.is_dir():
        raise UserError(Problem(str(dataset.root), "", describe_missing_root(dataset)))
    findings = Findings()
    is_generated = dataset.generator is not None
    for problem in [] if is_generated else arrangement_problems(dataset):
        findings.add_problem("arrangements", problem)
    digest, digest_of = "", _digest_of(dataset)
    decoded: dict[str, int] = {}
    listings: dict[str, str] = {}
    content_digests: dict[str, str] = {}
    values = MaskValues(dataset)
    try:
        survey = SURVEYS[dataset.data_format](dataset, findings)
        sizes = manifest.file_sizes(survey.files)
        unreadable = {path: size for path, size in sizes.items() if isinstance(size, Problem)}
        for path in sorted(unreadable):
            findings.add_problem("files that are missing or no files", unreadable[path])
        for split, listed in survey.samples.items():
            present = [sample for sample in listed if not {sample.image, sample.mask} & unreadable.keys()]
            samples = present
            if not is_generated and len(samples) > DECODED_PER_SPLIT:
                samples = random.Random(0).sample(samples, DECODED_PER_SPLIT)
            decoded[split] = len(samples)
            for sample in _report_progress(samples, len(samples), f"{dataset.name}: decoding images of {split}"):
                mask = check_image(sample, dataset.num_classes, findings)
                if mask is not None:
                    values.add(split, mask)
            checked = set(samples)
            others = [sample for sample in present if sample not in checked]
            if any(sample.mask or sample.size for sample in others):
                for sample in _report_progress(others, len(others), f"{dataset.name}: comparing sizes of {split}"):
                    if not has_expected_sizes(sample):
                        check_image(sample, dataset.num_classes, findings)
            values.check_labelled(split, (sample.mask for sample in others if sample.mask), findings)
        if digest_of == "content":
            digest = _check_manifest(dataset, findings)
        elif not findings:
            digest = manifest.listing_digest(dataset.root, sorted(survey.files), sizes)
        notes = values.notes() + findings.notes(dataset.root, has_annotations=dataset.data_format != "imagenet")
        if not findings:
            is_read = contents or sum(size for size in sizes.values() if isinstance(size, int)) <= READ_AT_MOST
            for split in SPLITS:
                notes += files_not_read(dataset, split)
                own = list_split(dataset, split)
                digests = manifest.file_digests(own.files) if is_generated or is_read else None
                listings[split] = manifest.split_digest(dataset.root, own, sizes, digests if is_generated else None)
                if digests is not None and not is_generated:
                    content_digests[split] = manifest.split_digest(dataset.root, own, sizes, digests)
    except OSError as error:
        place = str(error.filename or dataset.root)
        raise UserError(Problem(place, "", f"cannot be read: {error.strerror}")) from None
    if findings:
        raise UserError([*findings.problems(), *(f"note: {note}" for note in notes)])
    written = manifest.read_manifest(dataset.root) if is_generated else None
    return DatasetReport(
        schema=SCHEMA,
        name=dataset.name,
        layout=dataset.data_format,
        identity=dataset.identity(),
        root=str(dataset.root),
        counts=survey.counts,
        classes=written["classes"] if written else survey.classes,
        digest=digest,
        digest_of=digest_of,
        decoded=decoded,
        details=survey.details,
        listings=listings,
        contents=content_digests,
        notes=notes,
    )


def describe_missing_root(dataset: DatasetConfig) -> str:
    """Describe what is expected in the folder of a data set that does not exist or is no folder."""
    if dataset.root.exists():
        return "expected a folder, found a file"
    if dataset.generator is not None:
        return "no such folder; `hafabench data prepare` makes it"
    needed = ", ".join(str(path.relative_to(dataset.root)) for path in required_paths(dataset))
    return f"no such folder; expected the data format {dataset.data_format!r} in it: {needed}"


def _digest_of(dataset: DatasetConfig) -> Literal["content", "listing"]:
    return "content" if dataset.generator is not None else "listing"


def _check_manifest(dataset: DatasetConfig, findings: Findings) -> str:
    """Check that a generated data set is as configured and unchanged; return the digest of its content."""
    for problem in manifest.parameter_problems(dataset) or manifest.content_problems(dataset):
        findings.add_problem("manifests", problem)
    return manifest.content_digest(dataset.root)


def _report_progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Yield ``items`` and print a line every few seconds."""
    last = time.monotonic()
    for index, item in enumerate(items):
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{label}: {index}/{total}", file=sys.stderr, flush=True)
        yield item
