"""The checks of a data set on disk, one survey per layout, and the decoding of its images and masks.

A survey reads names and annotations only; what it finds wrong goes to `Findings`, so that a user sees all of it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json
from hafabench.data import paths
from hafabench.data.images import read_image
from hafabench.errors import Problem, UserError

# Upper limits of COCO's small and medium objects, in pixels of mask area.
_SMALL, _MEDIUM = 32**2, 96**2
_SHOWN = 10  # problems of one kind that are printed; a wrong path makes thousands
_QUIET_S = 10.0


class Findings:
    """Problems by kind."""

    def __init__(self) -> None:
        self._found: dict[str, list[Problem | str]] = defaultdict(list)

    def add(self, kind: str, file: Path, message: str, key: str = "") -> None:
        """Note a problem with ``file``; problems of one ``kind`` (a plural) are counted together."""
        self._found[kind].append(Problem(str(file), key, message))

    def take(self, kind: str, error: UserError) -> None:
        """Note the problems of an error."""
        self._found[kind].extend(error.problems)

    def __bool__(self) -> bool:
        return bool(self._found)

    def problems(self) -> list[Problem | str]:
        """All of them, the first few of each kind by name and the rest by number."""
        shown: list[Problem | str] = []
        for kind, found in self._found.items():
            shown += found[:_SHOWN]
            if len(found) > _SHOWN:
                shown.append(f"and {len(found) - _SHOWN} more {kind}")
        return shown


@dataclass(frozen=True)
class Sample:
    """An image to decode.

    Attributes:
        image: its file.
        mask: the file of its index mask, where the layout has them.
        size: (width, height) that an annotation claims, in pixels.
    """

    image: Path
    mask: Path | None = None
    size: tuple[int, int] | None = None


@dataclass
class Survey:
    """What the names and annotations of a data set say.

    Attributes:
        counts: images per split.
        classes: names, where the data set carries them.
        samples: every image, per split.
        files: every file of the data set.
        details: further counts worth reporting.
    """

    counts: dict[str, int] = field(default_factory=dict)
    classes: list[str] | None = None
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def survey_imagenet(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Class folders and their images."""
    survey = Survey()
    for split in paths.SPLITS:
        folder = paths.imagenet_folder(dataset, split)
        if not _is_folder(folder, findings):
            continue
        folders = paths.class_folders(folder)
        names = [path.name for path in folders]
        if len(names) != dataset.num_classes:
            findings.add("splits", folder, f"expected {dataset.num_classes} class folders, found {len(names)}")
        if survey.classes is None:
            survey.classes = names
        for name in sorted(set(names) ^ set(survey.classes)):
            findings.add("class folders", folder / name, "class folder in only one of train and val")
        images = []
        for path in folders:
            own = paths.image_files(path)
            if not own:
                findings.add("empty class folders", path, "class folder without images")
            images += own
        _check_count(dataset, split, len(images), folder, findings)
        survey.counts[split] = len(images)
        survey.samples[split] = [Sample(path) for path in images]
        survey.files += images
    return survey


def survey_ade20k(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Images and masks, which have to come in pairs of one stem."""
    survey = Survey()
    for split in paths.SPLITS:
        folder, mask_folder = paths.ade20k_images(dataset, split), paths.ade20k_masks(dataset, split)
        present = [_is_folder(folder, findings), _is_folder(mask_folder, findings)]
        if not all(present):
            continue
        images = {path.stem: path for path in paths.image_files(folder)}
        masks = {path.stem: path for path in paths.image_files(mask_folder) if path.suffix == ".png"}
        for stem in sorted(images.keys() - masks.keys()):
            findings.add("images without mask", images[stem], f"no mask {mask_folder / stem}.png")
        for stem in sorted(masks.keys() - images.keys()):
            findings.add("masks without image", masks[stem], f"no image of this name in {folder}")
        _check_count(dataset, split, len(images), folder, findings)
        survey.counts[split] = len(images)
        survey.samples[split] = [Sample(path, masks[stem]) for stem, path in images.items() if stem in masks]
        survey.files += [*images.values(), *masks.values()]
    return survey


def survey_coco(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Annotation files: every id that is named exists, every image that is listed is there."""
    survey = Survey()
    categories_of: dict[str, list[tuple[int, str]]] = {}
    for split in paths.SPLITS:
        folder, file = paths.coco_images(dataset, split), paths.coco_annotations(dataset, split)
        there = _is_folder(folder, findings)
        try:
            content = read_json(file)
        except UserError as error:
            findings.take("annotation files", error)
            continue
        if not isinstance(content, dict):
            findings.add("annotation files", file, "expected an object with images, annotations and categories")
            continue
        images = _by_id(file, content, "images", ("id", "file_name", "width", "height"), findings)
        categories = _by_id(file, content, "categories", ("id", "name"), findings)
        if len(categories) != dataset.num_classes:
            message = f"expected {dataset.num_classes} categories, found {len(categories)}"
            findings.add("annotation files", file, message, "categories")
        categories_of[split] = [(number, entry["name"]) for number, entry in categories.items()]
        survey.details[f"{split} instances"] = _check_annotations(file, content, images, categories, findings)
        _check_count(dataset, split, len(images), file, findings)
        survey.counts[split] = len(images)
        survey.files.append(file)
        if not there:
            continue
        present = {path.name for path in paths.image_files(folder)}
        samples = []
        for number, entry in images.items():
            path = folder / str(entry["file_name"])
            if entry["file_name"] not in present:
                findings.add("missing images", path, f"no such image; image {number} of {file}")
                continue
            samples.append(Sample(path, size=(entry["width"], entry["height"])))
        survey.samples[split] = samples
        survey.files += [sample.image for sample in samples]
    survey.classes = [name for _, name in next(iter(categories_of.values()), [])] or None
    if len(categories_of) == 2 and categories_of["train"] != categories_of["val"]:
        file = paths.coco_annotations(dataset, "val")
        findings.add("annotation files", file, "other categories than in the training annotations", "categories")
    return survey


SURVEYS: dict[str, Callable[[DatasetConfig, Findings], Survey]] = {
    "imagenet": survey_imagenet,
    "ade20k": survey_ade20k,
    "coco": survey_coco,
}


def decode(sample: Sample, num_classes: int, findings: Findings) -> None:
    """Decode one image, and its mask where it has one, completely."""
    try:
        image = read_image(sample.image)
    except UserError as error:
        findings.take("unreadable images", error)
        return
    if sample.size is not None and image.size != sample.size:
        message = f"the annotations say {_times(sample.size)} pixels, found {_times(image.size)}"
        findings.add("images of another size", sample.image, message)
    if sample.mask is None:
        return
    try:
        mask = read_image(sample.mask, mode=None)
    except UserError as error:
        findings.take("unreadable masks", error)
        return
    if mask.mode not in {"L", "P"}:
        message = f"expected one 8-bit channel of class indices, found mode {mask.mode}"
        findings.add("masks of another kind", sample.mask, message)
        return
    if mask.size != image.size:
        message = f"mask of {_times(mask.size)} pixels, its image has {_times(image.size)}"
        findings.add("masks of another size", sample.mask, message)
    largest = int(np.asarray(mask).max())
    if largest > num_classes:
        message = f"mask value {largest}; expected 0 (unlabelled) to {num_classes}"
        findings.add("masks with values out of range", sample.mask, message)


def announced(items: Iterable[Any], total: int, doing: str) -> Iterator[Any]:
    """``items``, with a line on standard error every ten seconds, for work that takes that long."""
    last = time.monotonic()
    for index, item in enumerate(items):
        if time.monotonic() - last > _QUIET_S:
            last = time.monotonic()
            print(f"{doing}: {index}/{total}", file=sys.stderr, flush=True)
        yield item


def _is_folder(path: Path, findings: Findings) -> bool:
    if path.is_dir():
        return True
    findings.add("folders", path, "no such folder" if not path.exists() else "expected a folder, found a file")
    return False


def _check_count(dataset: DatasetConfig, split: str, found: int, place: Path, findings: Findings) -> None:
    expected = dataset.images.get(split)
    if found == 0:
        findings.add("empty splits", place, "no images in it" + (f"; expected {expected}" if expected else ""))
    elif expected is not None and found != expected:
        findings.add("counts", place, f"expected {expected} images, found {found}")


def _by_id(
    file: Path, content: dict[str, Any], key: str, needed: tuple[str, ...], findings: Findings
) -> dict[int, dict[str, Any]]:
    """The sound entries of the list ``key`` by their id, in the list's order."""
    found: dict[int, dict[str, Any]] = {}
    for at, entry in _sound(file, content, key, needed, findings):
        if entry["id"] in found:
            findings.add(f"ids given twice in {key}", file, f"id {entry['id']} given twice", at)
        found[entry["id"]] = entry
    return found


def _sound(
    file: Path, content: dict[str, Any], key: str, needed: tuple[str, ...], findings: Findings
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of the list ``key`` that have every needed value and whole ids, each with its place."""
    entries = content.get(key)
    if not isinstance(entries, list):
        findings.add("annotation files", file, "expected a list", key)
        return
    for index, entry in enumerate(entries):
        missing = [name for name in needed if not isinstance(entry, dict) or name not in entry]
        wrong = [name for name in needed if name.endswith("id") and not missing and not isinstance(entry[name], int)]
        if missing:
            findings.add(f"incomplete {key}", file, f"without {', '.join(missing)}", f"{key}[{index}]")
        elif wrong:
            message = f"expected an integer, found {entry[wrong[0]]!r}"
            findings.add(f"{key} with wrong ids", file, message, f"{key}[{index}].{wrong[0]}")
        else:
            yield f"{key}[{index}]", entry


def _check_annotations(
    file: Path,
    content: dict[str, Any],
    images: dict[int, dict[str, Any]],
    categories: dict[int, dict[str, Any]],
    findings: Findings,
) -> dict[str, int]:
    """Check every instance; returns how many are small, medium and large as COCO's evaluation counts them."""
    sizes: Counter[str] = Counter(small=0, medium=0, large=0)
    ids: set[int] = set()
    needed = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
    for at, entry in _sound(file, content, "annotations", needed, findings):
        at = f"{at} (id {entry['id']})"
        if entry["id"] in ids:
            findings.add("annotation ids given twice", file, "id given twice", at)
        ids.add(entry["id"])
        if entry["image_id"] not in images:
            message = f"image_id {entry['image_id']} is no image of this file"
            findings.add("annotations of no image", file, message, at)
        if entry["category_id"] not in categories:
            message = f"category_id {entry['category_id']} is no category of this file"
            findings.add("annotations of no category", file, message, at)
        if not _is_box(entry["bbox"]):
            message = f"expected bbox [x, y, width, height] in pixels, found {entry['bbox']!r}"
            findings.add("annotations with a wrong bbox", file, message, at)
        if not _is_segmentation(entry["segmentation"]):
            message = "expected polygons [[x0, y0, x1, y1, ...], ...] or a run-length mask as segmentation"
            findings.add("annotations with a wrong segmentation", file, message, at)
        if not _is_number(entry["area"]):
            findings.add("annotations with a wrong area", file, f"expected a number, found {entry['area']!r}", at)
        elif not entry["iscrowd"]:
            sizes["small" if entry["area"] < _SMALL else "medium" if entry["area"] < _MEDIUM else "large"] += 1
    return dict(sizes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value[2:]))


def _is_segmentation(value: Any) -> bool:
    if isinstance(value, dict):
        return {"counts", "size"} <= value.keys()
    # Polygons of less than three points occur in real data and are left out by mmdet and pycocotools.
    return isinstance(value, list) and all(isinstance(part, list) and len(part) % 2 == 0 for part in value)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
