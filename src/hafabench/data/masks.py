"""Index masks of a data set in ADE20K's data format, read by one rule in verification, training and evaluation.

A mask is an image with one 8-bit channel (grey or palette) of the size of its image. 0 means unlabelled, 1 to the
number of classes are the classes, and 255 marks pixels that are ignored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hafabench.data.images import UnreadableImage, orientation_note, read_image
from hafabench.errors import Problem

IGNORED = 255
"""The value of ignored pixels in masks and, as in mmseg, in labels."""

# Formats of files that may have the suffix of a PNG file.
_LOSSY = frozenset({"JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"})


def read_mask(path: Path | str) -> np.ndarray:
    """Read the values of an index mask, (H, W), uint8.

    Raises:
        UnreadableImage: If the file cannot be decoded, is compressed with loss, or has not one 8-bit channel.
    """
    mask = read_image(path, mode=None)
    if mask.format in _LOSSY:
        message = f"the content is in the file format {mask.format}, which changes class indices; expected PNG"
        raise UnreadableImage(Problem(str(path), "", message))
    if mask.mode not in {"L", "P"}:
        message = f"expected one 8-bit channel of class indices, found mode {mask.mode}"
        raise UnreadableImage(Problem(str(path), "", message))
    return np.asarray(mask)


def size_problem(
    path: Path | str, mask_size: tuple[int, int], image: Path | str, image_size: tuple[int, int]
) -> Problem | None:
    """Describe a mask that has another size than its image.

    Args:
        path: The mask file.
        mask_size: (width, height) of the mask, pixels.
        image: The image file.
        image_size: (width, height) of the image, pixels.
    """
    if mask_size == image_size:
        return None
    (width, height), (image_width, image_height) = mask_size, image_size
    message = f"mask of {width} x {height} pixels, its image {image} has {image_width} x {image_height}"
    return Problem(str(path), "", message + orientation_note(image, mask_size))


def value_problem(path: Path | str, mask: np.ndarray, num_classes: int) -> Problem | None:
    """Describe a mask (H, W) with values that are neither a class nor 0 or 255."""
    wrong = mask[(mask > num_classes) & (mask != IGNORED)]
    if not wrong.size:
        return None
    message = f"mask value {int(wrong.max())}; expected 0 (unlabelled), 1 to {num_classes}, or {IGNORED} (ignored)"
    return Problem(str(path), "", message)


def labels_of(mask: np.ndarray) -> np.ndarray:
    """Return the labels of a mask, (H, W), uint8: classes from 0, and 255 for unlabelled and ignored pixels."""
    # In uint8, 0 - 1 is 255.
    return np.where(mask == IGNORED, np.uint8(IGNORED), mask - np.uint8(1))
