"""Tiles and sheets: images with clusters, classes and sampling points drawn on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hafabench.data.classes import Colour, class_palette
from hafabench.pictures.samples import Windows

TILE = 320  # pixels: side of a tile
CAPTION = 22  # under a tile
HEADING = 30  # above the columns
GAP = 8
_SHOWN_WINDOWS = 6  # most windows along a side that are drawn
_OVERSAMPLED = 3
_PAPER: Colour = (255, 255, 255)
_INK: Colour = (30, 30, 30)
_FIXED: Colour = (255, 255, 255)
_MOVED: Colour = (255, 140, 0)
_OPACITY = 0.62


def fitted(image: np.ndarray, tile: int = TILE, *, smooth: bool = True) -> Image.Image:
    """An image (H, W, 3) or class map (H, W), uint8, scaled into the upper left of a square tile."""
    picture = Image.fromarray(image)
    scale = tile / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    scaled = picture.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    # Beyond an image that is not square: paper, or the value that stands for no class.
    square = Image.new(picture.mode, (tile, tile), _PAPER if picture.mode == "RGB" else 255)
    square.paste(scaled)
    return square


def clusters_tile(image: np.ndarray, clusters: np.ndarray) -> Image.Image:
    """The image with each cluster's cells in a colour of their own and lines where clusters meet.

    Args:
        image: (H, W, 3) uint8.
        clusters: (rows, columns) cluster of each cell.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    # The cell under each pixel of the tile.
    pixels = (np.arange(TILE) + 0.5) * side / TILE
    inside = np.ix_(pixels < height, pixels < width)
    rows, columns = (
        (pixels[pixels < size] * count / size).astype(int)
        for size, count in zip((height, width), clusters.shape, strict=True)
    )
    index = clusters[np.ix_(rows, columns)]
    palette = np.array(class_palette(max(int(clusters.max()) + 1, 12)), np.float32)
    picture = _grey(image)
    shown = picture[inside] * (1 - _OPACITY) + palette[index] * _OPACITY
    border = np.zeros(index.shape, bool)
    border[:, 1:] |= index[:, 1:] != index[:, :-1]
    border[1:] |= index[1:] != index[:-1]
    shown[border] = 255
    picture[inside] = shown
    return Image.fromarray(picture.round().astype(np.uint8))


def classes_tile(image: np.ndarray, classes: np.ndarray, count: int) -> Image.Image:
    """The image with each pixel's class in its colour; class 255 (not labelled) leaves the image as it is.

    Args:
        image: (H, W, 3) uint8.
        classes: (h, w) class of each pixel, at any size of the same shape.
        count: number of classes.
    """
    index = np.asarray(fitted(classes.astype(np.uint8), smooth=False))
    picture = _grey(image)
    known = index < count
    palette = np.array(class_palette(count), np.float32)
    picture[known] = picture[known] * (1 - _OPACITY) + palette[index[known]] * _OPACITY
    return Image.fromarray(picture.round().astype(np.uint8))


def _grey(image: np.ndarray) -> np.ndarray:
    """(TILE, TILE, 3) float32: the image without its hues, so that colours laid over it stay their own."""
    return np.asarray(fitted(image).convert("L").convert("RGB")).astype(np.float32)


def windows_tile(image: np.ndarray, windows: Windows) -> Image.Image:
    """The image with windows of an LAA, evenly thinned out: fixed points hollow, sampled ones filled, a line between.

    Args:
        image: (H, W, 3) uint8.
        windows: of the image.
    """
    side = TILE * _OVERSAMPLED
    scale = side / max(image.shape[:2])
    picture = fitted(image, side)
    # Paler, so that points show on any image.
    picture = Image.blend(picture, Image.new("RGB", picture.size, (90, 90, 90)), 0.35)
    draw = ImageDraw.Draw(picture)
    rows, columns = windows.fixed.shape[:2]
    step = max(1, -(-max(rows, columns) // _SHOWN_WINDOWS))
    dot, line = side / 90, round(side / 190)
    for row in range((rows - 1) % step // 2, rows, step):
        for column in range((columns - 1) % step // 2, columns, step):
            fixed, moved = windows.fixed[row, column] * scale, windows.moved[row, column] * scale
            half = windows.cell * scale / 2
            (top, left), (bottom, right) = fixed.min(0) - half, fixed.max(0) + half
            draw.rectangle((left, top, right, bottom), outline=_FIXED, width=max(1, line // 2))
            for (y0, x0), (y1, x1) in zip(fixed, moved, strict=True):
                draw.line((x0, y0, x1, y1), _MOVED, line)
                draw.ellipse((x0 - dot, y0 - dot, x0 + dot, y0 + dot), outline=_FIXED, width=line)
                draw.ellipse((x1 - dot, y1 - dot, x1 + dot, y1 + dot), fill=_MOVED, outline=_INK, width=line // 2)
    return picture.resize((TILE, TILE), Image.Resampling.LANCZOS)


def places(rows: int, columns: int) -> tuple[list[int], list[int]]:
    """(left, top) pixels at which the columns and rows of a sheet begin."""
    left = [GAP + column * (TILE + GAP) for column in range(columns)]
    return left, [HEADING + row * (TILE + CAPTION + GAP) for row in range(rows)]


def sheet(
    tiles: Sequence[Sequence[Image.Image]], headings: Sequence[str], captions: Sequence[Sequence[str]]
) -> Image.Image:
    """Rows of tiles, a heading above each column and a caption under each tile."""
    left, top = places(len(tiles), len(headings))
    picture = Image.new("RGB", (left[-1] + TILE + GAP, top[-1] + TILE + CAPTION + GAP), _PAPER)
    draw = ImageDraw.Draw(picture)
    large, small = ImageFont.load_default(15), ImageFont.load_default(13)
    for x, heading in zip(left, headings, strict=True):
        draw.text((x, HEADING / 2), heading, _INK, large, anchor="lm")
    for y, row, texts in zip(top, tiles, captions, strict=True):
        for x, tile, text in zip(left, row, texts, strict=True):
            picture.paste(tile, (x, y))
            draw.text((x, y + TILE + CAPTION / 2), text, _INK, small, anchor="lm")
    return picture
