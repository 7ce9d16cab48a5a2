"""Checks of a data set in COCO's data format: annotations with their boxes and masks, and the images they list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json
from hafabench.data import listing, paths
from hafabench.data.verify.findings import Findings, Sample, Survey, check_count, check_folder
from hafabench.errors import UserError

# Upper limits of COCO's small and medium objects, in pixels of mask area.
_SMALL, _MEDIUM = 32**2, 96**2


def survey_coco(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Check the annotation files: every id that is used is defined, and every image that is listed exists."""
    survey = Survey()
    categories_of: dict[str, list[tuple[int, str]]] = {}
    for split in paths.SPLITS:
        file = paths.coco_annotations(dataset, split)
        has_images = check_folder(paths.coco_images(dataset, split), findings)
        try:
            content = read_json(file)
        except UserError as error:
            findings.add_error("annotation files", error)
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
        check_count(dataset, split, len(images), file, findings)
        survey.counts[split] = len(images)
        survey.files.append(file)
        if not has_images:
            continue
        samples = []
        for number, entry in images.items():
            path = listing.coco_image_file(dataset, split, str(entry["file_name"]))
            if not path.is_file():
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


def _by_id(
    file: Path, content: dict[str, Any], key: str, needed: tuple[str, ...], findings: Findings
) -> dict[int, dict[str, Any]]:
    """Return the valid entries of the list ``key`` by their id, in the order of the list."""
    found: dict[int, dict[str, Any]] = {}
    for at, entry in _valid_entries(file, content, key, needed, findings):
        if entry["id"] in found:
            findings.add(f"ids given twice in {key}", file, f"id {entry['id']} given twice", at)
        found[entry["id"]] = entry
    return found


def _valid_entries(
    file: Path, content: dict[str, Any], key: str, needed: tuple[str, ...], findings: Findings
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of the list ``key`` that have every needed value and integer ids, with their position."""
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
    """Check every instance; return the numbers of small, medium and large ones as COCO's evaluation counts them."""
    sizes: Counter[str] = Counter(small=0, medium=0, large=0)
    ids: set[int] = set()
    needed = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
    for at, entry in _valid_entries(file, content, "annotations", needed, findings):
        at = f"{at} (id {entry['id']})"
        if entry["id"] in ids:
            findings.add("annotation ids given twice", file, "id given twice", at)
        ids.add(entry["id"])
        if entry["image_id"] not in images:
            message = f"image_id {entry['image_id']} is not an image of this file"
            findings.add("annotations of no image", file, message, at)
        if entry["category_id"] not in categories:
            message = f"category_id {entry['category_id']} is not a category of this file"
            findings.add("annotations of no category", file, message, at)
        if not _is_box(entry["bbox"]):
            message = f"expected bbox [x, y, width, height] in pixels, found {entry['bbox']!r}"
            findings.add("annotations with a wrong bbox", file, message, at)
        if not _is_mask(entry["segmentation"]):
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


def _is_mask(value: Any) -> bool:
    """Return whether a segmentation has the form of a run-length mask or of polygons."""
    if isinstance(value, dict):
        return {"counts", "size"} <= value.keys()
    # Real data contains polygons of less than three points, which mmdet and pycocotools ignore.
    return isinstance(value, list) and all(isinstance(part, list) and len(part) % 2 == 0 for part in value)
