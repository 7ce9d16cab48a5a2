"""What a picture shows of one image, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Segmentation:
    """One image of the validation split as two models segment it.

    Attributes:
        name: the image's file name.
        image: (H, W, 3) uint8 RGB, as the models see it.
        truth: (h, w) class of each pixel at the annotation's size; 255 is not labelled.
        predicted: one (h, w) per model.
        clusters: (rows, columns) cluster of each cell of the grid on which the last model's SIA clusters.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    predicted: tuple[np.ndarray, ...]
    clusters: np.ndarray


@dataclass(frozen=True)
class Windows:
    """One LAA's windows on an image of H x W pixels, in pixels of the image.

    Attributes:
        stage: the stage (1-4) that it feeds.
        fixed: (rows, columns, points, 2) centres (y, x) of the cells under the fixed window.
        moved: the same, where it samples instead.
        cell: side of a cell, pixels.
    """

    stage: int
    fixed: np.ndarray
    moved: np.ndarray
    cell: float


@dataclass(frozen=True)
class Sampling:
    """One image of the validation split and where a model's LAAs sample it; ``image`` as in `Segmentation`."""

    name: str
    image: np.ndarray
    label: str
    predicted: str
    windows: tuple[Windows, ...]
