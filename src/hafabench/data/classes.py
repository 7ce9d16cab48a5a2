"""Names and colours of classes."""

from __future__ import annotations

import colorsys
import functools
from importlib import resources

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json
from hafabench.data import listing, manifest, paths
from hafabench.errors import Problem, UserError

Colour = tuple[int, int, int]

# Ten hues that are distinguishable on any background (matplotlib's tab10, brightened), then grey.
_DISTINCT: list[Colour] = [
    (31, 140, 220),
    (255, 127, 14),
    (44, 190, 44),
    (230, 40, 40),
    (160, 100, 230),
    (160, 90, 70),
    (240, 110, 200),
    (250, 220, 40),
    (150, 220, 60),
    (23, 205, 220),
    (130, 130, 130),
]


def imagenet_classes(dataset: DatasetConfig) -> list[str]:
    """List the names of the training split's class folders, in the order of the class indices.

    Raises:
        UserError: If there is no folder of the training split.
    """
    folder = paths.imagenet_folder(dataset, "train")
    if not folder.is_dir():
        raise UserError(Problem(str(folder), "", "no such folder"))
    return [path.name for path in listing.class_folders(folder)]


def coco_classes(dataset: DatasetConfig) -> list[str]:
    """List the names of the categories in the order of the class indices, which is that of the annotation file.

    Raises:
        UserError: If the validation annotations cannot be read.
    """
    file = paths.coco_annotations(dataset, "val")
    try:
        return [category["name"] for category in read_json(file)["categories"]]
    except (KeyError, TypeError):
        raise UserError(Problem(str(file), "categories", "expected a list of categories with names")) from None


def segmentation_classes(dataset: DatasetConfig) -> list[str] | None:
    """List the class names in the order after ``reduce_zero_label``; None if they are not known.

    A generated data set contains its names. A data set of 150 classes whose name begins with ``ade20k`` has those of
    ADE20K. Other data sets in this data format have no file of names.
    """
    found = manifest.read_manifest(dataset.root)
    if found:
        return found["classes"]
    names = ade20k_classes()
    is_ade20k = dataset.data_format == "ade20k" and dataset.name.startswith("ade20k")
    return list(names) if is_ade20k and dataset.num_classes == len(names) else None


@functools.cache
def ade20k_classes() -> tuple[str, ...]:
    """List the names of ADE20K's 150 classes (SceneParse150), in mmseg's short form."""
    return tuple((resources.files("hafabench.data") / "ade20k_classes.txt").read_text("utf-8").splitlines())


def class_palette(count: int) -> list[Colour]:
    """Return ``count`` colours (RGB, 0-255); equal counts give equal colours."""
    if count <= len(_DISTINCT):
        return _DISTINCT[:count]
    colours = []
    for index in range(count):
        # Steps of the golden ratio never repeat a hue; three brightness levels separate similar hues.
        hue, value = (index * 0.618034) % 1, (1.0, 0.75, 0.5)[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours
