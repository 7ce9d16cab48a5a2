"""Checks of a data set in ADE20K's data format: pairs of an image and an index mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hafabench.config.experiment import DatasetConfig
from hafabench.data import listing, paths
from hafabench.data.images import read_image
from hafabench.data.verify.findings import Findings, Sample, Survey, check_count, check_folder
from hafabench.errors import UserError


def survey_ade20k(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Check that every image has a mask and every mask an image; the two have the same stem."""
    survey = Survey()
    for split in paths.SPLITS:
        folder, mask_folder = paths.ade20k_images(dataset, split), paths.ade20k_masks(dataset, split)
        present = [check_folder(folder, findings), check_folder(mask_folder, findings)]
        if not all(present):
            continue
        images, masks = listing.list_ade20k_images(dataset, split), listing.list_ade20k_masks(dataset, split)
        for stem in sorted(images.keys() - masks.keys()):
            findings.add("images without mask", images[stem], f"no mask {mask_folder / stem}.png")
        for stem in sorted(masks.keys() - images.keys()):
            findings.add("masks without image", masks[stem], f"no image of this name in {folder}")
        check_count(dataset, split, len(images), folder, findings)
        survey.counts[split] = len(images)
        survey.samples[split] = [Sample(path, masks[stem]) for stem, path in images.items() if stem in masks]
        survey.files += [*images.values(), *masks.values()]
    return survey


def check_mask(path: Path, image_size: tuple[int, int], num_classes: int, findings: Findings) -> None:
    """Decode an index mask and check that it fits its image and the classes.

    Args:
        path: The mask file.
        image_size: (width, height) of its image, pixels.
        num_classes: Masks contain 0 (unlabelled) and 1 to ``num_classes``.
        findings: Receives the problems.
    """
    try:
        mask = read_image(path, mode=None)
    except UserError as error:
        findings.add_error("unreadable masks", error)
        return
    if mask.mode not in {"L", "P"}:
        message = f"expected one 8-bit channel of class indices, found mode {mask.mode}"
        findings.add("masks of another kind", path, message)
        return
    if mask.size != image_size:
        message = f"mask of {mask.size[0]} x {mask.size[1]} pixels, its image has {image_size[0]} x {image_size[1]}"
        findings.add("masks of another size", path, message)
    largest = int(np.asarray(mask).max())
    if largest > num_classes:
        message = f"mask value {largest}; expected 0 (unlabelled) to {num_classes}"
        findings.add("masks with values out of range", path, message)
