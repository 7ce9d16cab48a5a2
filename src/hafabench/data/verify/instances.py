"""Checks of single instances in COCO's data format: their boxes, areas and masks.

pycocotools decodes masks in C without checks. A mask that does not fit its image gives a wrong average precision, an
endless loop or a segmentation fault there. It also takes the annotation id 0 for "no match". These checks therefore
come before every use of pycocotools and mmdet.
"""

from __future__ import annotations

import math
from typing import Any

from pycocotools import mask as coco_mask

# Published data sets contain rounding errors.
MARGIN = 2.0
"""Pixels by which boxes and masks may exceed their image, and a box may differ from its mask."""
_NUMBERS = {int, float}
# pycocotools stores ids as floating-point numbers of double precision.
LARGEST_ID = 2**53

Box = tuple[float, float, float, float]
"""x, y, width and height in pixels."""


def is_integer(value: Any) -> bool:
    """Return whether a JSON value is an integer; ``true`` is none."""
    return type(value) is int


def is_finite(value: Any) -> bool:
    """Return whether a JSON value is a finite number. Integers beyond floating point count as infinite."""
    return type(value) in _NUMBERS and abs(value) < 1e300


def box_problem(box: Any, width: int, height: int) -> str | None:
    """Describe what is wrong with a box.

    Args:
        box: The value of ``bbox``.
        width: Width of the image, pixels.
        height: Height of the image, pixels.

    Returns:
        The problem; None for four finite numbers [x, y, width, height], neither width nor height negative, that do
        not reach beyond the image.
    """
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))):
        return f"expected bbox [x, y, width, height] in pixels, found {shortened(box)}"
    x, y, own_width, own_height = box
    if own_width < 0 or own_height < 0:
        return f"bbox {box} has a negative width or height; expected [x, y, width, height] in pixels"
    inside = x >= -MARGIN and y >= -MARGIN
    if inside and x + own_width <= width + MARGIN and y + own_height <= height + MARGIN:
        return None
    corners = own_width > x and own_height > y and own_width <= width + MARGIN and own_height <= height + MARGIN
    hint = "; it seems to contain the corners [x0, y0, x1, y1]" if inside and corners else ""
    return (
        f"bbox {box} reaches beyond the image of {width} x {height} pixels; "
        f"expected [x, y, width, height] in pixels{hint}"
    )


def too_small_problem(box: list[float], area: float, segmentation: Any, extent: Box) -> str | None:
    """Describe an object that training leaves out because of its size, or whose mask has no pixel.

    Args:
        box: A box without `box_problem`.
        area: The area, a finite number. mmdet leaves out objects of area 0 and boxes below one pixel.
        segmentation: A mask without `mask_problem`.
        extent: The box around the mask.
    """
    if box[2] < 1 or box[3] < 1:
        fractions = box[2] > 0 and box[3] > 0 and max(box) <= 1
        hint = ", and seems to be in fractions of the image; expected pixels" if fractions else ""
        return f"bbox {box} is smaller than one pixel in width or height{hint}"
    if area == 0:
        return "area 0; expected the area of the mask in pixels"
    if min(extent[2:]) < 2 and not _pixels(segmentation, extent):
        return f"the mask at {_rounded(extent)} is too small to contain a pixel"
    return None


def fit_problem(box: list[float], area: float, extent: Box) -> str | None:
    """Describe how box, area and mask contradict each other.

    Args:
        box: A box without `box_problem`.
        area: The area, a finite number.
        extent: The box around the mask.
    """
    if not _fits(box, extent):
        hint = "; bbox seems to contain the corners [x0, y0, x1, y1]" if _is_near(_from_corners(box), extent) else ""
        return (
            f"bbox {box} does not fit the mask, which is at {_rounded(extent)}; expected [x, y, width, height]{hint}"
        )
    if area > (box[2] + 2 * MARGIN) * (box[3] + 2 * MARGIN):
        return f"area {area} is larger than that of its bbox {box}; expected the area of the mask in pixels"
    if area < box[2] * box[3] / 1000:
        return f"area {area} is less than a thousandth of its bbox {box}; expected the area of the mask in pixels"
    return None


def _fits(box: list[float], extent: Box) -> bool:
    """Return whether box and mask are about the same object: within two pixels, or with an IoU of at least 0.5.

    A box of at least this IoU does not fit if its numbers, read as corners, are those of the mask.
    """
    if _is_near(box, extent):
        return True
    if _is_near(_from_corners(box), extent):
        return False
    left, top = max(box[0], extent[0]), max(box[1], extent[1])
    right, bottom = box[0] + box[2], box[1] + box[3]
    extent_right, extent_bottom = extent[0] + extent[2], extent[1] + extent[3]
    both = max(min(right, extent_right) - left, 0) * max(min(bottom, extent_bottom) - top, 0)
    return both > 0 and 3 * both >= box[2] * box[3] + extent[2] * extent[3]


def _is_near(box: list[float], extent: Box) -> bool:
    """Return whether each side of a box is within two pixels of that of a mask."""
    differences = (
        box[0] - extent[0],
        box[1] - extent[1],
        box[0] + box[2] - extent[0] - extent[2],
        box[1] + box[3] - extent[1] - extent[3],
    )
    return max(map(abs, differences)) <= MARGIN


def _from_corners(box: list[float]) -> list[float]:
    """Return the box [x, y, width, height] whose corners [x0, y0, x1, y1] are the numbers of ``box``."""
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _pixels(segmentation: Any, extent: Box) -> int:
    """Return how many pixels a mask has in pycocotools."""
    if isinstance(segmentation, dict):
        # A run-length mask without a pixel is a `mask_problem`.
        return 1
    height, width = (int(extent[1] + extent[3]) + 2, int(extent[0] + extent[2]) + 2)
    return int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))))


def _rounded(extent: Box) -> list[float]:
    return [round(value, 2) for value in extent]


def mask_extent(segmentation: Any) -> Box:
    """Return the box around a mask without `mask_problem`."""
    if isinstance(segmentation, list):
        left = min(min(polygon[0::2]) for polygon in segmentation)
        top = min(min(polygon[1::2]) for polygon in segmentation)
        right = max(max(polygon[0::2]) for polygon in segmentation)
        bottom = max(max(polygon[1::2]) for polygon in segmentation)
        return left, top, right - left, bottom - top
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    left, top, width, height = coco_mask.toBbox(segmentation).tolist()
    return left, top, width, height


def mask_problem(segmentation: Any, width: int, height: int) -> str | None:
    """Describe what is wrong with a mask, so that pycocotools can decode every mask without a problem.

    Args:
        segmentation: The value of ``segmentation``: polygons, or run lengths (a list or a compressed string).
        width: Width of the image, pixels.
        height: Height of the image, pixels.
    """
    if isinstance(segmentation, list):
        return _polygons_problem(segmentation, width, height)
    if isinstance(segmentation, dict):
        return _run_lengths_problem(segmentation, width, height)
    return f"expected polygons [[x0, y0, x1, y1, ...], ...] or run lengths, found {shortened(segmentation)}"


def _polygons_problem(polygons: list[Any], width: int, height: int) -> str | None:
    if not polygons:
        return "no polygon in segmentation; expected at least one [x0, y0, x1, y1, x2, y2, ...]"
    for index, polygon in enumerate(polygons):
        if not isinstance(polygon, list):
            return f"expected polygons [[x0, y0, x1, y1, ...], ...] as segmentation, found {shortened(polygons)}"
        if polygon and all(isinstance(point, list) for point in polygon):
            return (
                f"polygon {index} of the segmentation is a list of points, {shortened(polygon)}; "
                "expected one list of numbers, [x0, y0, x1, y1, ...]"
            )
        # pycocotools decides by the first polygon how it reads all of them: four numbers are a box. In COCO's data,
        # further polygons may have fewer points, which pycocotools and mmdet ignore.
        least = 2 if index else 6
        if len(polygon) < least or len(polygon) % 2:
            message = f"polygon {index} of the segmentation has {len(polygon)} numbers"
            return f"{message}; expected x and y of at least three points"
        if not set(map(type, polygon)) <= _NUMBERS:
            return f"polygon {index} of the segmentation contains other values than numbers: {shortened(polygon)}"
        across, down = polygon[0::2], polygon[1::2]
        fits = min(across) >= -MARGIN and max(across) <= width + MARGIN
        fits = fits and min(down) >= -MARGIN and max(down) <= height + MARGIN
        # A sum is NaN if one of its values is, where the minimum depends on the order of the values.
        if not fits or not math.isfinite(sum(polygon)):
            message = f"polygon {index} of the segmentation reaches beyond the image of {width} x {height} pixels"
            return f"{message}, or contains NaN: {shortened(polygon)}"
    return None


def _run_lengths_problem(coded: dict[str, Any], width: int, height: int) -> str | None:
    if not {"counts", "size"} <= coded.keys():
        return f"expected counts and size in a run-length mask, found {', '.join(map(str, coded)) or 'nothing'}"
    size, runs = coded["size"], coded["counts"]
    if not (isinstance(size, list) and len(size) == 2 and all(map(is_integer, size)) and size == [height, width]):
        return (
            f"size {shortened(size)} of the run-length mask; "
            f"expected [height, width] of its image, which is [{height}, {width}]"
        )
    if isinstance(runs, str):
        runs = _decompress(runs)
        if runs is None:
            return f"counts {shortened(coded['counts'])} are no compressed run lengths"
    if not isinstance(runs, list) or not set(map(type, runs)) <= {int} or (runs and min(runs) < 0):
        return f"expected run lengths, which are integers from 0, as counts, found {shortened(coded['counts'])}"
    if sum(runs) != width * height:
        return f"run lengths of {sum(runs)} pixels in total; expected {width * height}, the pixels of its image"
    if not any(runs[1::2]):
        return "a run-length mask without a pixel"
    if 0 in runs[1:]:
        return (
            "a run of length 0 after the first one; expected longer ones, because pycocotools stops comparing there"
        )
    return None


def _decompress(text: str) -> list[int] | None:
    """Return the run lengths of COCO's compressed string, or None if it is no such string.

    Each character holds five bits and a mark that the number goes on. From the fourth number on, a run length is
    stored as the difference from the one before the last (``rleFrString`` in pycocotools' maskApi.c).
    """
    runs: list[int] = []
    value = shift = 0
    for character in map(ord, text):
        bits = character - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            # Run lengths have 32 bits.
            if shift > 35:
                return None
            continue
        if bits & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value = shift = 0
    return runs if shift == 0 else None


def shortened(value: Any) -> str:
    """Return a value as text of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
