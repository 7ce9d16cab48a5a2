"""The embedded data: scenes of handwritten digits, written in the data formats of the real data sets.

- ``imagenet``: one digit per image, with the classes ``digit_0`` to ``digit_9``.
- ``coco``: several digits per image, with the category ids 1-10. An instance is the visible part of a digit's
  silhouette as polygons. It includes the eye of a 6, as COCO's own polygons include the gap between arm and body,
  because polygons cannot represent holes. No digit is completely inside another. Area and box are computed from the
  polygons.
- ``ade20k``: the same kind of scenes with index masks: 0 is unlabelled (pixels half covered by ink), 1-10 the ink of
  ``digit_0`` to ``digit_9``, 11 background. With ADE20K's ``reduce_zero_label`` these are classes 0-10.

Scene i of a split depends only on the seed, the data format, the split and i.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from hafabench.config.experiment import DatasetConfig, DigitsGenerator
from hafabench.data import manifest, paths
from hafabench.data.scans import split_scans
from hafabench.data.scenes import Scene, Style, compose_portrait, compose_scene
from hafabench.errors import Problem, UserError
from hafabench.files import atomic_folder

DIGIT_NAMES = [f"digit_{label}" for label in range(10)]
CLASSES = {"imagenet": DIGIT_NAMES, "coco": DIGIT_NAMES, "ade20k": [*DIGIT_NAMES, "background"]}
_BACKGROUND = 11
_CLOSE_UP_EVERY = 4
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 92, "subsampling": 0}
_PNG: dict[str, Any] = {"format": "PNG"}
_OUTLINE_SAMPLES = 4  # per pixel and axis, for outlines that are finer than pixels
_LEAST_PART = 4.0  # pixels; smaller separate parts of an instance get no polygon

Scans = dict[str, list[int]]


def make_digits(dataset: DatasetConfig) -> None:
    """Make an embedded data set, completely or not at all.

    Args:
        dataset: A data set with a ``digits`` generator. Its folder is replaced if this function made all files of it.

    Raises:
        UserError: If the generator cannot produce what is configured, the folder contains other files, or the disk is
            full.
    """
    generator = _check(dataset)
    started = time.perf_counter()
    with atomic_folder(dataset.root, manifest.made_files(dataset.root) or (lambda _path: False)) as folder:
        temporary = dataset.model_copy(update={"root": folder})
        scans = _WRITERS[dataset.data_format](temporary, generator)
        manifest.write_manifest(folder, dataset, classes=CLASSES[dataset.data_format], scans=scans)
    total = sum(dataset.images.values())
    print(f"{dataset.root}: made {total} images in {time.perf_counter() - started:.1f} s", file=sys.stderr)


def _check(dataset: DatasetConfig) -> DigitsGenerator:
    """Return the generator, after checking that it can produce what is configured."""
    name = f"data set {dataset.name!r} ({dataset.data_format})"
    if dataset.generator is None:
        raise UserError(Problem(name, "generator", "no generator is configured, so the data set has to be provided"))
    problems: list[Problem | str] = [Problem(name, key, message) for key, message in dataset.problems().items()]
    problems += _problems_of_root(dataset.root)
    if problems:
        raise UserError(problems)
    return dataset.generator


def _problems_of_root(root: Path) -> Iterator[Problem]:
    """Yield why the folder of a data set must not be made or replaced."""
    around = next((folder for folder in root.resolve().parents if manifest.read_manifest(folder) is not None), None)
    if around is not None:
        message = (
            f"it is in {around}, another generated data set, which is replaced as a whole; expected another folder"
        )
        yield Problem(str(root), "", message)
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if manifest.read_manifest(root) is None:
        message = f"not overwritten: it contains files but no {manifest.NAME}, so it was not made here; move it away"
        yield Problem(str(root), "", message)
    elif manifest.made_files(root) is None:
        message = (
            f"not overwritten: an earlier version made it, whose {manifest.NAME} does not list the files, and files "
            "were changed or added since; move it away, or delete it if nothing in it is yours"
        )
        yield Problem(str(root), "", message)


def _encoded(image: np.ndarray, options: dict[str, Any]) -> bytes:
    # If Pillow writes the file itself, its error need not say that the disk is full.
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()


def _write_imagenet(dataset: DatasetConfig, generator: DigitsGenerator) -> Scans:
    pools = split_scans(generator.seed)
    used: Scans = {}
    for split in paths.SPLITS:
        shown = []
        for name in DIGIT_NAMES:
            (paths.imagenet_folder(dataset, split) / name).mkdir(parents=True)
        for index in range(dataset.images[split]):
            label = index % 10
            # Every scan of a class is used once before any is used again.
            pool = pools[split][label]
            scan = int(pool[index // 10 % len(pool)])
            rng = _generator(generator, "imagenet", split, index)
            scene = compose_portrait(rng, label, scan, generator.image_size, _style(generator))
            file = paths.imagenet_folder(dataset, split) / DIGIT_NAMES[label] / f"{split}_{index:05d}.JPEG"
            file.write_bytes(_encoded(scene.image, _JPEG))
            shown.append(scan)
        used[split] = sorted(set(shown))
    return used


def _write_ade20k(dataset: DatasetConfig, generator: DigitsGenerator) -> Scans:
    used: Scans = {}
    for split in paths.SPLITS:
        images, masks = paths.ade20k_images(dataset, split), paths.ade20k_masks(dataset, split)
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        shown: set[int] = set()
        for index, scene in _scenes(dataset, generator, split):
            stem = f"ADE_{split}_{index + 1:08d}"
            (images / f"{stem}.jpg").write_bytes(_encoded(scene.image, _JPEG))
            (masks / f"{stem}.png").write_bytes(_encoded(scene.index_mask(_BACKGROUND), _PNG))
            shown.update(instance.scan for instance in scene.instances)
        used[split] = sorted(shown)
    return used


def _write_coco(dataset: DatasetConfig, generator: DigitsGenerator) -> Scans:
    side = generator.image_size
    used: Scans = {}
    # Ids are unique over both splits, as in COCO.
    first_id, ids = 1, count(1)
    for split in paths.SPLITS:
        folder, file = paths.coco_images(dataset, split), paths.coco_annotations(dataset, split)
        folder.mkdir(parents=True)
        file.parent.mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        shown: set[int] = set()
        for index, scene in _scenes(dataset, generator, split):
            image_id = first_id + index
            name = f"{image_id:012d}.jpg"
            (folder / name).write_bytes(_encoded(scene.image, _JPEG))
            images.append({"id": image_id, "file_name": name, "width": side, "height": side, **_IMAGE_FIELDS})
            for instance in scene.instances:
                labelled = {"id": next(ids), "image_id": image_id, "category_id": instance.label + 1, "iscrowd": 0}
                annotations.append(labelled | annotate(instance.visible))
                shown.add(instance.scan)
        content = {"info": _INFO, "licenses": _LICENSES, "images": images}
        content |= {"annotations": annotations, "categories": _CATEGORIES}
        file.write_text(json.dumps(content), encoding="utf-8")
        used[split] = sorted(shown)
        first_id += len(images)
    return used


def annotate(visible: np.ndarray) -> dict[str, Any]:
    """Compute outline, area and box of an instance in COCO's format.

    Args:
        visible: (H, W) float32, the share of each pixel that the instance covers.

    Returns:
        ``segmentation`` (polygons ``[x0, y0, x1, y1, ...]`` in pixels, the corner of the image at 0, 0), ``area``
        (pixels, of the polygons drawn as a mask) and ``bbox`` (x, y, width, height).
    """
    height, width = visible.shape
    size = (width * _OUTLINE_SAMPLES, height * _OUTLINE_SAMPLES)
    fine = (cv2.resize(visible, size, interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlines = sorted(outlines, key=cv2.contourArea, reverse=True)
    least = _LEAST_PART * _OUTLINE_SAMPLES**2
    kept = [outline for index, outline in enumerate(outlines) if index == 0 or cv2.contourArea(outline) >= least]
    polygons = []
    for outline in kept:
        points = cv2.approxPolyDP(outline, 1.0, closed=True)[:, 0]
        polygons.append(np.round((points + 0.5) / _OUTLINE_SAMPLES, 2))
    corners = np.concatenate(polygons)
    low, high = corners.min(0), corners.max(0)
    segmentation = [polygon.ravel().tolist() for polygon in polygons]
    drawn = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return {
        "segmentation": segmentation,
        "area": float(coco_mask.area(drawn)),
        "bbox": np.round([*low, *(high - low)], 2).tolist(),
    }


def _scenes(dataset: DatasetConfig, generator: DigitsGenerator, split: paths.Split) -> Iterator[tuple[int, Scene]]:
    pool, style = split_scans(generator.seed)[split], _style(generator)
    for index in range(dataset.images[split]):
        rng = _generator(generator, dataset.data_format, split, index)
        close_up = generator.heights is None and index % _CLOSE_UP_EVERY == 0
        yield (
            index,
            compose_scene(rng, pool, generator.image_size, generator.max_objects, close_up=close_up, style=style),
        )


def _style(generator: DigitsGenerator) -> Style:
    return Style(
        min_objects=generator.min_objects,
        heights=generator.heights,
        plain=generator.background == "plain",
        bold=generator.strokes == "bold",
        pale=generator.ink == "pale",
        upright=generator.poses == "upright",
    )


def _generator(generator: DigitsGenerator, data_format: str, split: paths.Split, index: int) -> np.random.Generator:
    format_index, split_index = list(CLASSES).index(data_format), paths.SPLITS.index(split)
    return np.random.default_rng([generator.seed, 2, format_index, split_index, index])


_INFO = {
    "description": "Handwritten digits on textured backgrounds, in the layout of COCO 2017",
    "url": "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    "version": str(manifest.COMPOSITION),
    "year": 1998,
    "contributor": "scans: E. Alpaydin, C. Kaynak; scenes: hafabench",
    "date_created": "1998/07/01",
}
_LICENSES = [{"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}]
_IMAGE_FIELDS = {"license": 1, "coco_url": "", "flickr_url": "", "date_captured": "1998-07-01 00:00:00"}
_CATEGORIES = [{"id": label + 1, "name": name, "supercategory": "digit"} for label, name in enumerate(DIGIT_NAMES)]
_WRITERS: dict[str, Callable[[DatasetConfig, DigitsGenerator], Scans]] = {
    "imagenet": _write_imagenet,
    "coco": _write_coco,
    "ade20k": _write_ade20k,
}
