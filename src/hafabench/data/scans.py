"""The handwritten digits of the embedded data: their scans, their split, and their drawing at any size.

Source: the 1,797 scans of 8x8 pixels that scikit-learn ships (`sklearn.datasets.load_digits`), the test part of
E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

TRAIN_SHARE = 0.8
_FIELD_SCALE = 8  # pixels of the smooth field per pixel of a scan
_MARGIN = 2  # empty pixels around a scan, so that strokes at its edge close
_SUPERSAMPLE = 4  # canvas samples per pixel and axis behind an anti-aliased edge


@dataclass(frozen=True)
class Scans:
    """Scans of handwritten digits.

    Attributes:
        images: (1797, 8, 8) float32, ink from 0 to 1.
        labels: (1797,) int64, 0-9.
    """

    images: np.ndarray
    labels: np.ndarray


@cache
def load_scans() -> Scans:
    """Load all scans in scikit-learn's order."""
    from sklearn.datasets import load_digits

    source = load_digits()
    return Scans((source.images / 16).astype(np.float32), source.target.astype(np.int64))


def split_scans(seed: int) -> dict[str, dict[int, np.ndarray]]:
    """Divide the scans between training and validation, class by class.

    The division depends only on ``seed``, so that data sets of the same seed share it in all data formats. A backbone
    that was trained on one of them has never seen the validation scans of another.

    Returns:
        ``{"train": {label: scan indices}, "val": {label: scan indices}}``; each scan belongs to one split only.
    """
    labels = load_scans().labels
    rng = np.random.default_rng([seed, 1])
    parts: dict[str, dict[int, np.ndarray]] = {"train": {}, "val": {}}
    for label in range(10):
        indices = rng.permutation(np.flatnonzero(labels == label))
        cut = round(TRAIN_SHARE * len(indices))
        parts["train"][label], parts["val"][label] = indices[:cut], indices[cut:]
    return parts


@dataclass(frozen=True)
class Pose:
    """Position and shape of a digit.

    Attributes:
        x: Horizontal centre of the ink, pixels.
        y: Vertical centre of the ink, pixels.
        height: Height of the upright ink, pixels.
        aspect: Horizontal stretch; 1 keeps the scan's proportions.
        rotation: Degrees, anticlockwise.
        slant: Horizontal shift of the top relative to the bottom, per unit of height.
        weight: Weight of the strokes; 0 is thin, 1 is bold.
    """

    x: float
    y: float
    height: float
    aspect: float = 1.0
    rotation: float = 0.0
    slant: float = 0.0
    weight: float = 0.5


@dataclass(frozen=True)
class Glyph:
    """A digit drawn on a canvas, as anti-aliased coverages (H, W) float32 from 0 to 1.

    Attributes:
        stroke: Coverage of the ink.
        core: Coverage of the middle of the strokes.
        silhouette: Coverage of the ink and everything that it encloses (the eye of a 6).
        inside: Share of the silhouette that is inside the canvas.
    """

    stroke: np.ndarray
    core: np.ndarray
    silhouette: np.ndarray
    inside: float


def draw_glyph(scan: np.ndarray, pose: Pose, side: int) -> Glyph:
    """Draw one scan on a square canvas of ``side`` pixels.

    The scan is interpolated to a smooth field, which is transformed and then thresholded at an ink level. Edges are
    therefore sharp at any size; interpolated grey pixels would be blurred.
    """
    field = _smooth_field(scan)
    level = 0.5 - 0.16 * pose.weight
    rows, columns = np.nonzero(field > level)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    scale = pose.height / (bottom - top)
    angle = np.deg2rad(pose.rotation)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shape = turn @ np.array([[pose.aspect, -pose.slant], [0.0, 1.0]]) * scale
    # The digit is drawn on a patch that contains all of it, also the parts outside the canvas.
    half_width, half_height = np.abs(shape) @ np.array([right - left, bottom - top]) / 2 + 2
    x0, y0 = int(np.floor(pose.x - half_width)), int(np.floor(pose.y - half_height))
    width, height = int(np.ceil(2 * half_width)) + 1, int(np.ceil(2 * half_height)) + 1
    middle = np.array([(left + right) / 2, (top + bottom) / 2]) - 0.5
    target = (np.array([pose.x - x0, pose.y - y0])) * _SUPERSAMPLE - 0.5
    matrix = np.column_stack([shape * _SUPERSAMPLE, target - shape @ middle * _SUPERSAMPLE])
    size = (width * _SUPERSAMPLE, height * _SUPERSAMPLE)
    stroke = (cv2.warpAffine(field, matrix, size, flags=cv2.INTER_CUBIC) > level).astype(np.uint8)
    outlines, _ = cv2.findContours(stroke, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    silhouette = cv2.drawContours(np.zeros_like(stroke), outlines, -1, 1, thickness=cv2.FILLED)
    depth = cv2.distanceTransform(stroke, cv2.DIST_L2, 3)
    core = (depth > 0.4 * depth.max()).astype(np.uint8)
    whole = _downsample(silhouette)
    visible = _paste(whole, x0, y0, side)
    return Glyph(
        stroke=_paste(_downsample(stroke), x0, y0, side),
        core=_paste(_downsample(core), x0, y0, side),
        silhouette=visible,
        inside=float(visible.sum() / max(whole.sum(), 1e-6)),
    )


def _smooth_field(scan: np.ndarray) -> np.ndarray:
    padded = np.pad(scan, _MARGIN)
    side = padded.shape[0] * _FIELD_SCALE
    field = cv2.resize(padded, (side, side), interpolation=cv2.INTER_CUBIC)
    field = cv2.GaussianBlur(field, (0, 0), 0.35 * _FIELD_SCALE)
    # The difference to the surroundings keeps the eyes of 4, 6, 8 and 9 open; a fixed ink level would fill them.
    return field + 1.2 * (field - cv2.GaussianBlur(field, (0, 0), 1.5 * _FIELD_SCALE))


def _downsample(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    size = (width // _SUPERSAMPLE, height // _SUPERSAMPLE)
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def _paste(patch: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    """Draw ``patch`` on an empty square canvas, its upper left corner at (x, y); overhanging parts are cut off."""
    canvas = np.zeros((side, side), np.float32)
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + patch.shape[0], side), min(x + patch.shape[1], side)
    if top < bottom and left < right:
        canvas[top:bottom, left:right] = patch[top - y : bottom - y, left - x : right - x]
    return canvas
