"""Validation images and the outputs of trained models on them, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SegmentedImage:
    """A validation image, segmented by several models.

    Attributes:
        name: The file name of the image.
        image: (H, W, 3) uint8 RGB, as the models receive it.
        truth: (h, w) class of each pixel at the size of the annotation; 255 is not labelled.
        predicted: One (h, w) class map per model.
        clusters: (rows, columns) cluster of each position of the grid on which the SIA of the last model clusters.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    predicted: tuple[np.ndarray, ...]
    clusters: np.ndarray


@dataclass(frozen=True)
class SamplingPoints:
    """The points at which one LAA samples an image, in pixels of the image.

    Attributes:
        stage: The stage (1-4) that follows the LAA.
        fixed: (rows, columns, points, 2) centres (y, x) of the positions under the fixed window.
        moved: The sampled points, in the same shape.
        map_stride: The stride of the sampled feature map, in pixels of the image.
    """

    stage: int
    fixed: np.ndarray
    moved: np.ndarray
    map_stride: float


@dataclass(frozen=True)
class ClassifiedImage:
    """A validation image with its label, the predicted class, and the sampling points of every LAA of the model.

    Attributes:
        name: The file name of the image.
        image: (H, W, 3) uint8 RGB, as the model receives it.
        label: The name of the labelled class.
        predicted: The name of the predicted class.
        sampling: The sampling points of each LAA, in the order of the stages.
    """

    name: str
    image: np.ndarray
    label: str
    predicted: str
    sampling: tuple[SamplingPoints, ...]
