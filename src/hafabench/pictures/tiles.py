"""Tiles: square pictures of an image with its clusters, classes or sampling points drawn on it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hafabench.data.classes import Colour, class_palette
from hafabench.files import atomic_path
from hafabench.pictures.samples import SamplingPoints

TILE_SIZE = 320  # pixels
_MOST_WINDOWS = 6  # drawn along a side
_OVERSAMPLING = 3
_BACKGROUND: Colour = (255, 255, 255)
_OUTLINE: Colour = (30, 30, 30)
_FIXED: Colour = (255, 255, 255)
_MOVED: Colour = (255, 140, 0)
_OPACITY = 0.62
_QUALITY = 90  # of lossy WebP


def resize_to_square(image: np.ndarray, size: int = TILE_SIZE, *, smooth: bool = True) -> Image.Image:
    """Scale an image (H, W, 3) or class map (H, W), uint8, into the upper left corner of a square."""
    picture = Image.fromarray(image)
    scale = size / max(picture.size)
    shape = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    scaled = picture.resize(shape, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    # The rest of the square is background, or the value of pixels without a class.
    square = Image.new(picture.mode, (size, size), _BACKGROUND if picture.mode == "RGB" else 255)
    square.paste(scaled)
    return square


def draw_clusters(image: np.ndarray, clusters: np.ndarray) -> Image.Image:
    """Draw each cluster in a separate colour, with lines between neighbouring clusters.

    Args:
        image: The image (H, W, 3), uint8.
        clusters: The cluster of each position of the token grid (rows, columns).
    """
    height, width = image.shape[:2]
    side = max(height, width)
    # The grid position under each pixel of the tile.
    pixels = (np.arange(TILE_SIZE) + 0.5) * side / TILE_SIZE
    inside = np.ix_(pixels < height, pixels < width)
    rows, columns = (
        (pixels[pixels < size] * count / size).astype(int)
        for size, count in zip((height, width), clusters.shape, strict=True)
    )
    index = clusters[np.ix_(rows, columns)]
    palette = np.array(class_palette(max(int(clusters.max()) + 1, 12)), np.float32)
    picture = _to_grey(image)
    coloured = picture[inside] * (1 - _OPACITY) + palette[index] * _OPACITY
    border = np.zeros(index.shape, bool)
    border[:, 1:] |= index[:, 1:] != index[:, :-1]
    border[1:] |= index[1:] != index[:-1]
    coloured[border] = 255
    picture[inside] = coloured
    return Image.fromarray(picture.round().astype(np.uint8))


def draw_classes(image: np.ndarray, classes: np.ndarray, num_classes: int) -> Image.Image:
    """Draw the class of each pixel in its colour; pixels of class 255 (not labelled) stay grey.

    Args:
        image: The image (H, W, 3), uint8.
        classes: The class of each pixel (h, w), at any size. It is stretched to the image, because an aligned input
            of the segmentation may have a slightly different aspect ratio than its classes.
        num_classes: The number of classes.
    """
    stretched = Image.fromarray(classes.astype(np.uint8)).resize(image.shape[1::-1], Image.Resampling.NEAREST)
    index = np.asarray(resize_to_square(np.asarray(stretched), smooth=False))
    picture = _to_grey(image)
    labelled = index < num_classes
    palette = np.array(class_palette(num_classes), np.float32)
    picture[labelled] = picture[labelled] * (1 - _OPACITY) + palette[index[labelled]] * _OPACITY
    return Image.fromarray(picture.round().astype(np.uint8))


def _to_grey(image: np.ndarray) -> np.ndarray:
    """Return the image as a grey tile, float32, so that only the drawn colours have a hue."""
    return np.asarray(resize_to_square(image).convert("L").convert("RGB")).astype(np.float32)


def draw_sampling_points(image: np.ndarray, points: SamplingPoints) -> Image.Image:
    """Draw some of an LAA's windows: rings at fixed points, dots at sampled points, and lines between them.

    Args:
        image: The image (H, W, 3), uint8.
        points: The sampling points of one LAA on this image.
    """
    side = TILE_SIZE * _OVERSAMPLING
    scale = side / max(image.shape[:2])
    picture = resize_to_square(image, side)
    # A paler image keeps the points visible.
    picture = Image.blend(picture, Image.new("RGB", picture.size, (90, 90, 90)), 0.35)
    draw = ImageDraw.Draw(picture)
    rows, columns = points.fixed.shape[:2]
    step = max(1, -(-max(rows, columns) // _MOST_WINDOWS))
    dot, line = side / 90, round(side / 190)
    for row in range((rows - 1) % step // 2, rows, step):
        for column in range((columns - 1) % step // 2, columns, step):
            fixed, moved = points.fixed[row, column] * scale, points.moved[row, column] * scale
            half = points.map_stride * scale / 2
            (top, left), (bottom, right) = fixed.min(0) - half, fixed.max(0) + half
            draw.rectangle((left, top, right, bottom), outline=_FIXED, width=max(1, line // 2))
            for (y0, x0), (y1, x1) in zip(fixed, moved, strict=True):
                draw.line((x0, y0, x1, y1), _MOVED, line)
                draw.ellipse((x0 - dot, y0 - dot, x0 + dot, y0 + dot), outline=_FIXED, width=line)
                draw.ellipse((x1 - dot, y1 - dot, x1 + dot, y1 + dot), fill=_MOVED, outline=_OUTLINE, width=line // 2)
    return picture.resize((TILE_SIZE, TILE_SIZE), Image.Resampling.LANCZOS)


def save_tile(tile: Image.Image, path: Path) -> None:
    """Write a tile as lossless or lossy WebP, whichever is smaller.

    Raises:
        UserError: If the file cannot be written.
    """
    encoded = []
    # For lossless WebP, quality is the effort: 100 takes twenty times as long as 80, for files of the same size.
    for lossless, quality in ((True, 80), (False, _QUALITY)):
        buffer = io.BytesIO()
        tile.save(buffer, format="WEBP", method=6, lossless=lossless, quality=quality)
        encoded.append(buffer.getvalue())
    with atomic_path(path) as temporary:
        temporary.write_bytes(min(encoded, key=len))
