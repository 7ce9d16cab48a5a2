"""Contact sheets: images of a data set with their labels, boxes and masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json
from hafabench.data import listing, manifest, paths
from hafabench.data.classes import Colour, class_palette, imagenet_classes, segmentation_classes
from hafabench.data.images import read_image
from hafabench.data.masks import read_mask
from hafabench.data.verify.coco import read_annotation_file
from hafabench.errors import Problem, UserError
from hafabench.files import atomic_path
from hafabench.formatting.text import one_line

TILE = 192  # pixels: side of a picture
CAPTION = 20  # pixels below a picture
TITLE = 34  # pixels above a split
LEGEND_COLUMNS = 6
_GAP = 6
_PAPER: Colour = (250, 250, 250)
_INK: Colour = (30, 30, 30)
_OPACITY = 0.4

Tile = tuple[Image.Image, str]
Item = TypeVar("Item")


def draw_preview(dataset: DatasetConfig, path: Path, columns: int = 6, count: int = 24) -> None:
    """Draw images of both splits with all their annotations, and write the sheet as a PNG file.

    Args:
        dataset: A data set of any data format.
        path: The PNG file.
        columns: Number of pictures per row.
        count: Number of pictures per split, spread evenly over it.

    Raises:
        UserError: If a part of the data set is missing or cannot be read, or if the folder of a generated data set
            contains one with other parameters.
    """
    for needed in (dataset.root, *paths.required_paths(dataset)):
        if not needed.exists():
            raise UserError(Problem(str(needed), "", "no such file or folder; nothing to draw"))
    problems = manifest.parameter_problems(dataset) if dataset.generator is not None else []
    if problems:
        raise UserError(problems)
    for split in paths.SPLITS:
        listing.list_split(dataset, split)
    tiles = {split: _TILES[dataset.data_format](dataset, split, count) for split in paths.SPLITS}
    legend = _legend(dataset) if dataset.data_format == "ade20k" else []
    sheet = _sheet(dataset, tiles, columns, legend)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        sheet.save(handle, format="PNG")


def sheet_size(tiles: Sequence[int], columns: int, legend: int = 0) -> tuple[int, int]:
    """Return (width, height) of a sheet in pixels.

    Args:
        tiles: Number of pictures of each split.
        columns: Number of pictures per row.
        legend: Number of entries of the legend.
    """
    width = columns * (TILE + _GAP) + _GAP
    height = sum(TITLE + _rows(number, columns) * (TILE + CAPTION + _GAP) for number in tiles)
    return width, height + _rows(legend, LEGEND_COLUMNS) * CAPTION + _GAP


def _sheet(
    dataset: DatasetConfig, tiles: dict[paths.Split, list[Tile]], columns: int, legend: list[tuple[str, Colour]]
) -> Image.Image:
    size = sheet_size([len(own) for own in tiles.values()], columns, len(legend))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(17), ImageFont.load_default(12)
    top = 0
    for split, own in tiles.items():
        title = (
            f"{dataset.name} ({dataset.data_format}): {split}, {len(own)} of {dataset.images.get(split, '?')} images"
        )
        draw.text((_GAP, top + TITLE / 2), title, _INK, large, anchor="lm")
        top += TITLE
        for index, (picture, caption) in enumerate(own):
            left = _GAP + index % columns * (TILE + _GAP)
            y = top + index // columns * (TILE + CAPTION + _GAP)
            sheet.paste(picture, (left, y))
            draw.text((left + 2, y + TILE + CAPTION / 2), _shorten(caption, small), _INK, small, anchor="lm")
        top += _rows(len(own), columns) * (TILE + CAPTION + _GAP)
    width = (size[0] - 2 * _GAP) / LEGEND_COLUMNS
    for index, (name, colour) in enumerate(legend):
        x, y = _GAP + index % LEGEND_COLUMNS * width, top + index // LEGEND_COLUMNS * CAPTION
        draw.rectangle((x, y + 4, x + 12, y + 16), fill=colour)
        draw.text((x + 18, y + CAPTION / 2), _shorten(name, small), _INK, small, anchor="lm")
    return sheet


def _imagenet_tiles(dataset: DatasetConfig, split: str, count: int) -> list[Tile]:
    images_of = listing.list_imagenet_images(dataset, split)
    files = [(path, folder.name) for folder, own in images_of.items() for path in own]
    indices = {name: index for index, name in enumerate(imagenet_classes(dataset))}
    return [
        (_fit_tile(read_image(path))[0], f"{indices.get(name, '?')}: {name}") for path, name in spread(files, count)
    ]


def _ade20k_tiles(dataset: DatasetConfig, split: str, count: int) -> list[Tile]:
    names = segmentation_classes(dataset)
    # Index 0 is unlabelled. At these pixels the image is drawn unchanged.
    palette = np.array([(0, 0, 0), *class_palette(dataset.num_classes)], np.float32)
    tiles = []
    for path, mask_file in spread(listing.list_ade20k_pairs(dataset, split), count):
        picture, _ = _fit_tile(read_image(path))
        mask = Image.fromarray(read_mask(mask_file))
        indices = np.asarray(_fit_tile(mask, Image.Resampling.NEAREST)[0])
        shown = np.where(indices <= dataset.num_classes, indices, 0)
        share = np.where(shown > 0, _OPACITY, 0.0)[..., None]
        blended = np.asarray(picture) * (1 - share) + palette[shown] * share
        present = [int(index) for index in np.unique(shown) if index > 0]
        caption = ", ".join(names[index - 1] if names else str(index - 1) for index in present)
        tiles.append((Image.fromarray(blended.round().astype(np.uint8)), caption))
    return tiles


def _coco_tiles(dataset: DatasetConfig, split: str, count: int) -> list[Tile]:
    # pycocotools draws the masks and needs valid ones.
    read_annotation_file(dataset, split, only_form=True)
    content = read_json(paths.coco_annotations(dataset, split))
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    names = {category["id"]: category["name"] for category in content["categories"]}
    colours = dict(zip(names, class_palette(len(names)), strict=True))
    tiles = []
    for entry in spread(content["images"], count):
        picture, scale = _fit_tile(read_image(listing.coco_image_file(dataset, split, entry["file_name"])))
        own = annotations[entry["id"]]
        for annotation in own:
            _overlay_instance(picture, annotation, entry, scale, colours[annotation["category_id"]])
        for annotation in own:
            colour, name = colours[annotation["category_id"]], names[annotation["category_id"]]
            _draw_box(picture, annotation["bbox"], scale, colour, name)
        tiles.append((picture, f"{entry['file_name']}: {len(own)}"))
    return tiles


def _overlay_instance(
    picture: Image.Image, annotation: dict[str, Any], entry: dict[str, Any], scale: float, colour: Colour
) -> None:
    """Tint the mask of an instance, given as polygons or as run lengths."""
    shape = Image.new("L", picture.size)
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        coded = segmentation
        if isinstance(coded["counts"], list):
            coded = coco_mask.frPyObjects(coded, entry["height"], entry["width"])
        shape = _fit_tile(Image.fromarray(coco_mask.decode(coded) * 255), Image.Resampling.NEAREST)[0]
        outlines = []
    else:
        outlines = [(np.array(polygon) * scale).tolist() for polygon in segmentation if len(polygon) >= 6]
        for outline in outlines:
            ImageDraw.Draw(shape).polygon(outline, fill=255)
    picture.paste(colour, (0, 0), shape.point(lambda value: round(_OPACITY * value)))
    for outline in outlines:
        ImageDraw.Draw(picture).line([*outline, *outline[:2]], fill=colour, width=2)


def _draw_box(picture: Image.Image, box: list[float], scale: float, colour: Colour, name: str) -> None:
    x, y, width, height = (value * scale for value in box)
    draw, name = ImageDraw.Draw(picture), one_line(name)
    draw.rectangle((x, y, x + width, y + height), outline=colour, width=1)
    font = ImageFont.load_default(10)
    label = draw.textbbox((0, 0), name, font)
    # The label is drawn above the box, or inside it if the box touches the top.
    x = min(x, TILE - label[2] - 3)
    y = y - label[3] - 2 if y >= label[3] + 2 else y
    draw.rectangle((x, y, x + label[2] + 3, y + label[3] + 2), fill=colour)
    draw.text((x + 2, y), name, (0, 0, 0), font)


_TILES: dict[str, Callable[[DatasetConfig, str, int], list[Tile]]] = {
    "imagenet": _imagenet_tiles,
    "ade20k": _ade20k_tiles,
    "coco": _coco_tiles,
}


def _legend(dataset: DatasetConfig) -> list[tuple[str, Colour]]:
    names = segmentation_classes(dataset)
    return list(zip(names, class_palette(len(names)), strict=True)) if names else []


def _fit_tile(image: Image.Image, resample: Image.Resampling = Image.Resampling.BICUBIC) -> tuple[Image.Image, float]:
    """Return a tile with the scaled image in its upper left corner, and the scale."""
    scale = TILE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    tile = Image.new(image.mode, (TILE, TILE))
    tile.paste(image.resize(size, resample))
    return tile, scale


def _shorten(caption: str, font: Any) -> str:
    caption = one_line(caption)
    while caption and font.getlength(caption) > TILE - 4:
        caption = caption[:-2].rstrip(" ,.") + "…"
    return caption


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return ``count`` items at equal distances, or all of them if there are fewer."""
    indices = np.linspace(0, len(items), min(count, len(items)), endpoint=False).astype(int)
    return [items[index] for index in indices]


def _rows(number: int, columns: int) -> int:
    return -(-number // columns)
