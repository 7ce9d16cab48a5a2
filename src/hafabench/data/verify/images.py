"""The decoding of a data set's images, as a check."""

from __future__ import annotations

import numpy as np

from hafabench.data.images import annotated_size_problem, image_size, is_turned, read_image
from hafabench.data.verify.ade20k import check_mask
from hafabench.data.verify.findings import Findings, Sample
from hafabench.errors import UserError


def has_expected_sizes(sample: Sample) -> bool:
    """Return whether the sizes of an image, its mask and its annotation agree, without decoding the pixels."""
    sizes = {image_size(sample.image)}
    if sample.mask is not None:
        sizes.add(image_size(sample.mask))
    if sample.size is not None:
        sizes.add(sample.size)
    return len(sizes) == 1 and None not in sizes


def check_image(sample: Sample, num_classes: int, findings: Findings) -> np.ndarray | None:
    """Decode an image, and its mask if it has one, and check that their sizes agree.

    Returns:
        The values of the mask (H, W), uint8, if it could be read.
    """
    try:
        image = read_image(sample.image)
    except UserError as error:
        findings.add_error("unreadable images", error)
        return None
    if is_turned(sample.image):
        findings.turned.append(sample.image)
    if sample.size is not None:
        problem = annotated_size_problem(sample.image, image.size, sample.size)
        if problem:
            findings.add("images of another size", sample.image, problem)
    return check_mask(sample, image.size, num_classes, findings) if sample.mask is not None else None
