"""The decoding of a data set's images, as a check."""

from __future__ import annotations

from hafabench.data.images import annotated_size_problem, read_image
from hafabench.data.verify.ade20k import check_mask
from hafabench.data.verify.findings import Findings, Sample
from hafabench.errors import UserError


def check_image(sample: Sample, num_classes: int, findings: Findings) -> None:
    """Decode an image, and its mask if it has one, and check that their sizes agree."""
    try:
        image = read_image(sample.image)
    except UserError as error:
        findings.add_error("unreadable images", error)
        return
    if sample.size is not None:
        problem = annotated_size_problem(sample.image, image.size, sample.size)
        if problem:
            findings.add("images of another size", sample.image, problem)
    if sample.mask is not None:
        check_mask(sample.mask, image.size, num_classes, findings)
