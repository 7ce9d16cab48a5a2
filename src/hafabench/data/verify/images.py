"""The decoding of a data set's images, as a check."""

from __future__ import annotations

from hafabench.data.images import read_image
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
    if sample.size is not None and image.size != sample.size:
        (width, height), found = sample.size, image.size
        message = f"expected {width} x {height} pixels as annotated, found {found[0]} x {found[1]}"
        findings.add("images of another size", sample.image, message)
    if sample.mask is not None:
        check_mask(sample.mask, image.size, num_classes, findings)
