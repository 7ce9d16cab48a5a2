"""Checks of a data set in COCO's data format: annotations with their boxes and masks, and the images they list."""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import Image

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json
from hafabench.data import listing, paths
from hafabench.data.paths import Split
from hafabench.data.verify.findings import Findings, Sample, Survey, check_count, check_folder, normal_form
from hafabench.data.verify.instances import (
    LARGEST_ID,
    MARGIN,
    box_problem,
    fit_problem,
    is_finite,
    is_integer,
    mask_extent,
    mask_problem,
    shortened,
    too_small_problem,
)
from hafabench.errors import UserError

# Upper limits of COCO's small and medium objects, in pixels of mask area.
_SMALL, _MEDIUM = 32**2, 96**2
# Pillow refuses to decode more pixels.
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
# COCO 2017 contains a few boxes without height among 860,001. A data set with a larger share of them is wrong.
_TOLERATED_SHARE = 0.01
SMALLEST_TRAINED = 32
"""Training leaves out images with a shorter side below this number of pixels, as mmdet's configurations do."""

Entry = dict[str, Any]


@dataclass
class AnnotationFile:
    """The checked content of an annotation file.

    Attributes:
        images: The images by their id, in the order of the file.
        categories: Ids and names in the order of the file.
        sizes: The numbers of small, medium and large instances as COCO's evaluation counts them.
        too_small: The number of instances that training leaves out because of their size.
    """

    images: dict[int, Entry] = field(default_factory=dict)
    categories: list[tuple[int, str]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    too_small: int = 0


def survey_coco(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Check the annotation files: every value that is used, and that every image that is listed exists."""
    survey = Survey()
    categories_of: dict[Split, list[tuple[int, str]]] = {}
    elsewhere = _Elsewhere(dataset.root)
    for split in paths.SPLITS:
        file = paths.coco_annotations(dataset, split)
        has_images = check_folder(paths.coco_images(dataset, split), findings)
        content = check_annotation_file(dataset, split, findings)
        if content is None:
            continue
        categories_of[split] = content.categories
        survey.details[f"{split} instances"] = content.sizes
        if content.too_small:
            survey.details[f"{split} instances too small for training"] = content.too_small
        check_count(dataset, split, len(content.images), file, findings)
        survey.counts[split] = len(content.images)
        survey.files.append(file)
        if not has_images:
            continue
        samples = []
        for number, entry in content.images.items():
            path = listing.coco_image_file(dataset, split, entry["file_name"])
            # What is there, but is no regular file, is reported with the sizes of all files.
            if not os.path.lexists(path):
                message = f"no such image; image {number} of {file}{elsewhere.hint(path)}"
                findings.add("missing images", path, message)
                continue
            samples.append(Sample(path, size=(entry["width"], entry["height"])))
        survey.samples[split] = samples
        survey.files += [sample.image for sample in samples]
    survey.classes = [name for _, name in next(iter(categories_of.values()), [])] or None
    if len(categories_of) == 2 and categories_of["train"] != categories_of["val"]:
        file = paths.coco_annotations(dataset, "val")
        findings.add("annotation files", file, "other categories than in the training annotations", "categories")
    return survey


def read_annotation_file(dataset: DatasetConfig, split: str, *, only_form: bool = False) -> AnnotationFile:
    """Read and check an annotation file, before pycocotools or mmdet read it.

    Args:
        dataset: The data set.
        split: ``train`` or ``val``.
        only_form: Whether to check only the form of the values, and not whether the split as a whole can be used.

    Raises:
        UserError: With all problems.
    """
    findings = Findings()
    content = check_annotation_file(dataset, split, findings, only_form=only_form)
    if findings or content is None:
        raise UserError(findings.problems())
    return content


def check_annotation_file(
    dataset: DatasetConfig, split: str, findings: Findings, *, only_form: bool = False
) -> AnnotationFile | None:
    """Check every value of an annotation file that training, evaluation or previews use.

    Args:
        dataset: The data set.
        split: ``train`` or ``val``.
        findings: Receives the problems.
        only_form: Whether to check only the form of the values, and not whether the split as a whole can be used.

    Returns:
        The valid content; None if the file cannot be read.
    """
    file = paths.coco_annotations(dataset, split)
    try:
        content = read_json(file)
    except UserError as error:
        findings.add_error("annotation files", error)
        return None
    if _starts_with_mark(file):
        message = "begins with a byte order mark, which pycocotools does not read; save the file without it"
        findings.add("annotation files", file, message)
    if not isinstance(content, dict):
        findings.add("annotation files", file, "expected an object with images, annotations and categories")
        return None
    checked = AnnotationFile(
        images=_check_images(file, content, findings),
        categories=_check_categories(file, content, dataset.num_classes, findings),
    )
    checks = _InstanceChecks(file, checked, findings, _ids_in(content, "images"), _ids_in(content, "categories"))
    for at, entry in _valid_entries(file, content, "annotations", _INSTANCE_KEYS, findings):
        checks.add(at, entry)
    if not only_form:
        checks.finish(split, content)
    return checked


def _valid_entries(
    file: Path, content: Entry, key: str, needed: tuple[str, ...], findings: Findings
) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of the list ``key`` that have every needed value and integer ids, with their position."""
    entries = content.get(key)
    if not isinstance(entries, list):
        findings.add("annotation files", file, "expected a list", key)
        return
    ids = [name for name in needed if name.endswith("id")]
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            findings.add(f"incomplete {key}", file, f"expected an object, found {entry!r}", f"{key}[{index}]")
            continue
        at = f"{key}[{index}]"
        if is_integer(entry.get("id")):
            at += f" (id {shortened(entry['id'])})"
        missing = [name for name in needed if name not in entry]
        wrong = [name for name in ids if name in entry and not is_integer(entry[name])]
        if missing:
            message = f"expected an object with {', '.join(needed)}, found one without {', '.join(missing)}"
            findings.add(f"incomplete {key}", file, message, at)
        elif wrong:
            found = entry[wrong[0]]
            as_text = ", which is text" if isinstance(found, str) else ""
            message = f"expected an integer, found {found!r}{as_text}"
            findings.add(f"{key} with wrong ids", file, message, f"{at}.{wrong[0]}")
        elif any(abs(entry[name]) > LARGEST_ID for name in ids):
            (name, *_) = [name for name in ids if abs(entry[name]) > LARGEST_ID]
            message = f"expected an id from -{LARGEST_ID} to {LARGEST_ID}, found {shortened(entry[name])}"
            findings.add(f"{key} with wrong ids", file, message, f"{at}.{name}")
        else:
            yield at, entry


def _check_images(file: Path, content: Entry, findings: Findings) -> dict[int, Entry]:
    """Check names and sizes of the images; return the valid ones by their id."""
    found: dict[int, Entry] = {}
    names: dict[PurePosixPath, int] = {}
    for at, entry in _valid_entries(file, content, "images", ("id", "file_name", "width", "height"), findings):
        problem = listing.coco_name_problem(entry["file_name"])
        if problem:
            findings.add("images with wrong names", file, problem, f"{at}.file_name")
            continue
        problem = _image_size_problem(entry)
        if problem:
            findings.add("images with wrong sizes", file, problem, at)
            continue
        if entry["id"] in found:
            findings.add("ids given twice in images", file, f"id {entry['id']} given twice", at)
        name = PurePosixPath(entry["file_name"])
        if name in names:
            message = f"file_name {entry['file_name']!r} is also that of image {names[name]}"
            findings.add("images given twice", file, message, at)
        names[name] = entry["id"]
        found[entry["id"]] = entry
    return found


def _image_size_problem(entry: Entry) -> str | None:
    size = (entry["width"], entry["height"])
    if any(isinstance(value, str) for value in size):
        return f"expected numbers of pixels as width and height, found text: {size[0]!r} and {size[1]!r}"
    if not all(map(is_integer, size)) or min(size) < 1:
        return f"expected width and height as integers from 1, in pixels, found {size[0]!r} and {size[1]!r}"
    if size[0] * size[1] > _MOST_PIXELS:
        return f"an image of {size[0]} x {size[1]} pixels; expected at most {_MOST_PIXELS} pixels"
    return None


def _check_categories(file: Path, content: Entry, num_classes: int, findings: Findings) -> list[tuple[int, str]]:
    """Check ids and names of the categories; return the valid ones in the order of the file."""
    found: dict[int, str] = {}
    for at, entry in _valid_entries(file, content, "categories", ("id", "name"), findings):
        name = entry["name"]
        if entry["id"] in found:
            findings.add("ids given twice in categories", file, f"id {entry['id']} given twice", at)
        if not isinstance(name, str) or not name.strip():
            findings.add("categories with wrong names", file, f"expected a name, found {name!r}", f"{at}.name")
            continue
        if name in found.values():
            findings.add("names given twice in categories", file, f"name {name!r} given twice", at)
        found[entry["id"]] = name
    if len(found) != num_classes:
        findings.add("annotation files", file, f"expected {num_classes} categories, found {len(found)}", "categories")
    return list(found.items())


_INSTANCE_KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")


def _ids_in(content: Entry, key: str) -> set[int]:
    """Return the integer ids in the list ``key``."""
    entries = content.get(key)
    found = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {number for number in found if isinstance(number, int) and is_integer(number)}


class _InstanceChecks:
    """Checks of the instances of one file.

    Args:
        file: The annotation file.
        content: Its valid images and categories; receives the counts.
        findings: Receives the problems.
        image_ids: The ids of all images, also of those that have a problem of their own.
        category_ids: The same of the categories.
    """

    def __init__(
        self,
        file: Path,
        content: AnnotationFile,
        findings: Findings,
        image_ids: set[int],
        category_ids: set[int],
    ):
        self._file, self._content, self._findings = file, content, findings
        self._image_ids, self._category_ids = image_ids, category_ids
        self._ids: set[int] = set()
        self._sizes: Counter[str] = Counter(small=0, medium=0, large=0)
        self._number = 0
        # Problems that a large data set may have a few of.
        self._too_small: list[tuple[str, str]] = []
        self._misfits: list[tuple[str, str]] = []
        self._trainable: set[int] = set()
        self._has_problem = False

    def add(self, at: str, entry: Entry) -> None:
        """Check an instance that has every key and integer ids."""
        self._number += 1
        self._check_ids(at, entry)
        if type(entry["iscrowd"]) not in {int, float, bool} or entry["iscrowd"] not in (0, 1):
            message = f"expected 0 or 1 as iscrowd, found {entry['iscrowd']!r}"
            self._report("annotations with a wrong iscrowd", message, at)
        image = self._content.images.get(entry["image_id"])
        if image is None:
            self._has_problem = True
            if entry["image_id"] not in self._image_ids:
                message = f"image_id {entry['image_id']} is not an image of this file"
                self._report("annotations of no image", message, at)
            return
        width, height = image["width"], image["height"]
        box, area, segmentation = entry["bbox"], entry["area"], entry["segmentation"]
        wrong_box = box_problem(box, width, height)
        if wrong_box:
            self._report("annotations with a wrong bbox", wrong_box, at)
        wrong_mask = mask_problem(segmentation, width, height)
        if wrong_mask:
            self._report("annotations with a wrong segmentation", wrong_mask, at)
        if not is_finite(area) or not 0 <= area <= (width + 2 * MARGIN) * (height + 2 * MARGIN):
            expected = f"expected the area of the mask in pixels, a number from 0 to {width * height}"
            self._report("annotations with a wrong area", f"{expected}, found {shortened(area)}", at)
            return
        if wrong_box or wrong_mask:
            return
        if entry["iscrowd"]:
            return
        self._sizes["small" if area < _SMALL else "medium" if area < _MEDIUM else "large"] += 1
        extent = mask_extent(segmentation)
        too_small = too_small_problem(box, area, segmentation, extent)
        if too_small:
            self._too_small.append((at, too_small))
            return
        misfit = fit_problem(box, area, extent)
        if misfit:
            self._misfits.append((at, misfit))
        if not entry.get("ignore"):
            self._trainable.add(entry["image_id"])

    def finish(self, split: str, content: Entry) -> None:
        """Report problems of which there are too many, and a split in which no instance is left."""
        kinds = {"annotations that are too small": self._too_small, "annotations that do not fit": self._misfits}
        for kind, found in kinds.items():
            if len(found) > _TOLERATED_SHARE * self._number:
                for at, message in found:
                    self._report(kind, message, at)
        self._content.sizes = dict(self._sizes)
        self._content.too_small = len(self._too_small)
        # Other problems are the reason if there are instances and none of them is valid.
        if self._has_problem or not self._content.images or (content.get("annotations") and not self._number):
            return
        if split == "val" and not sum(self._sizes.values()):
            message = "no instance but crowds" if self._number else "no instance in it"
            self._report("splits without instances", f"{message}: there is nothing to measure", "annotations")
        if split == "train":
            self._check_trainable()

    def _check_trainable(self) -> None:
        """Check that training keeps an instance after mmdet's filters."""
        if not self._trainable:
            message = "no instance but crowds and ignored ones" if self._number else "no instance in it"
            self._report("splits without instances", f"{message}: there is nothing to train on", "annotations")
            return
        images = self._content.images
        if not any(min(images[own]["width"], images[own]["height"]) >= SMALLEST_TRAINED for own in self._trainable):
            message = (
                f"every image with instances has a shorter side below {SMALLEST_TRAINED} pixels. mmdet's filter "
                "(min_size) leaves such images out, so that there is nothing to train on"
            )
            self._report("splits without instances", message, "images")

    def _check_ids(self, at: str, entry: Entry) -> None:
        number = entry["id"]
        if number < 1:
            message = f"expected ids from 1, found {number}: pycocotools takes 0 for no match"
            self._report("annotation ids below 1", message, at)
        if number in self._ids:
            self._report("annotation ids given twice", "id given twice", at)
        self._ids.add(number)
        if entry["category_id"] not in self._category_ids:
            message = f"category_id {entry['category_id']} is not a category of this file"
            self._report("annotations of no category", message, at)

    def _report(self, kind: str, message: str, at: str) -> None:
        self._has_problem = True
        self._findings.add(kind, self._file, message, at)


class _Elsewhere:
    """The files of a data set by their stem, to say where a missing image is instead."""

    def __init__(self, root: Path):
        self._root = root

    def hint(self, path: Path) -> str:
        """Return the end of a message about a missing file; empty if no file has its stem."""
        name = PureWindowsPath(path.name).name
        near = self._files.get(_folded(PureWindowsPath(name).stem))
        if not near:
            return ""
        split = self._root / path.relative_to(self._root).parts[0]
        found = min(near, key=lambda other: (split not in other.parents, other.name.lower() != name.lower(), other))
        differs = found.name != name and normal_form(found.name) == normal_form(name)
        form = ", whose name has another Unicode normal form" if differs else ""
        return f"; there is {found.relative_to(self._root)}{form}"

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                found.setdefault(_folded(path.stem), []).append(path)
        return found


def _folded(stem: str) -> str:
    return normal_form(stem).lower()


def _starts_with_mark(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(3) == codecs.BOM_UTF8
