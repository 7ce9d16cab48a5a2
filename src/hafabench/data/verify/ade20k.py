"""Checks of a data set in ADE20K's data format: pairs of an image and an index mask."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hafabench.config.experiment import MOST_MASK_CLASSES, DatasetConfig
from hafabench.data import listing, masks, paths
from hafabench.data.classes import segmentation_classes
from hafabench.data.verify.findings import Findings, Sample, Survey, check_count, check_folder, normal_form
from hafabench.errors import UserError


def survey_ade20k(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Check that every image has a mask and every mask an image; the two have the same stem."""
    # The names of a generated data set are read with the rest of its manifest.
    survey = Survey(classes=segmentation_classes(dataset) if dataset.generator is None else None)
    if dataset.num_classes > MOST_MASK_CLASSES:
        message = f"expected at most {MOST_MASK_CLASSES} classes in 8-bit masks, found {dataset.num_classes}"
        findings.add("classes", dataset.root, message, "num_classes")
    for split in paths.SPLITS:
        folder, mask_folder = paths.ade20k_images(dataset, split), paths.ade20k_masks(dataset, split)
        present = [check_folder(folder, findings), check_folder(mask_folder, findings)]
        if not all(present):
            continue
        images, found = listing.list_ade20k_images(dataset, split), listing.list_ade20k_masks(dataset, split)
        read = {path for own in found.values() for path in own}
        files = [*listing.image_files(mask_folder), *listing.images_not_read(mask_folder)]
        unread = {path.stem: path for path in files if path not in read and path.parent == mask_folder}
        forms = {normal_form(stem): stem for stem in found}
        for stem in sorted(images.keys() - found.keys()):
            message = f"no mask {mask_folder / stem}.png"
            if stem in unread:
                message += f", only {unread[stem].name}; other file formats may change class indices"
            same = forms.get(normal_form(stem))
            if same and same not in images:
                message += f", only {found[same][0].name}, whose name has another Unicode normal form; rename one"
            findings.add("images without mask", images[stem][0], message)
        for stem in sorted(found.keys() - images.keys()):
            findings.add("masks without image", found[stem][0], f"no image of this name in {folder}")
        for kind, files_of in (("images", images), ("masks", found)):
            for first, *others in files_of.values():
                if others:
                    message = f"{kind} of the same name: {', '.join(path.name for path in others)}; keep one of them"
                    findings.add(f"{kind} of the same name", first, message)
        everything = [path for files_of in (images, found) for own in files_of.values() for path in own]
        count = sum(map(len, images.values()))
        check_count(dataset, split, count, folder, findings)
        survey.counts[split] = count
        survey.samples[split] = [Sample(own[0], found[stem][0]) for stem, own in images.items() if stem in found]
        survey.files += everything
    return survey


class MaskValues:
    """The values in the masks of a data set: counts what was checked, and finds splits without a labelled pixel.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: DatasetConfig):
        self._dataset = dataset
        self._counts: dict[str, np.ndarray] = {split: np.zeros(256, np.int64) for split in paths.SPLITS}

    def add(self, split: str, mask: np.ndarray) -> None:
        """Count the values of a mask (H, W), uint8."""
        self._counts[split] += np.bincount(mask.ravel(), minlength=256)

    def check_labelled(self, split: str, others: Iterable[Path], findings: Findings) -> None:
        """Check that a pixel of the split is labelled.

        Args:
            split: ``train`` or ``val``.
            others: Masks that were not added yet; they are read until one has a labelled pixel.
            findings: Receives the problem.
        """
        for path in others:
            if self._is_labelled(split):
                return
            try:
                self.add(split, masks.read_mask(path))
            except UserError as error:
                findings.add_error("unreadable masks", error)
                return
        if self._counts[split].any() and not self._is_labelled(split):
            values = ", ".join(map(str, np.flatnonzero(self._counts[split])))
            message = (
                f"no mask has a labelled pixel, so there is nothing to learn or to measure; all values are {values}; "
                f"expected 1 to {self._dataset.num_classes} at labelled pixels"
            )
            findings.add("splits without labels", paths.ade20k_masks(self._dataset, split), message)

    def notes(self) -> list[str]:
        """Return a note if the masks seem to be numbered from 0."""
        total = np.sum(list(self._counts.values()), axis=0)
        values = [int(value) for value in np.flatnonzero(total) if value != masks.IGNORED]
        if not values or values[0] != 0 or values[-1] != self._dataset.num_classes - 1:
            return []
        share, last = 100 * int(total[0]) / int(total.sum()), values[-1]
        ignored = f", and {masks.IGNORED} marks ignored pixels" if total[masks.IGNORED] else ""
        return [
            f"the largest value in the masks is {last}, one less than the number of classes, and {share:.1f} % of "
            f"all pixels are 0{ignored}: if the masks are numbered from 0, add 1 to every class, because 0 means "
            "unlabelled here"
        ]

    def _is_labelled(self, split: str) -> bool:
        return bool(self._counts[split][1 : masks.IGNORED].any())


def check_mask(
    sample: Sample, image_size: tuple[int, int], num_classes: int, findings: Findings
) -> np.ndarray | None:
    """Decode an index mask and check that it fits its image and the classes.

    Args:
        sample: The image and its mask file.
        image_size: (width, height) of the image, pixels.
        num_classes: The number of classes.
        findings: Receives the problems.

    Returns:
        The values of the mask (H, W), uint8; None if it cannot be read.
    """
    assert sample.mask is not None
    try:
        mask = masks.read_mask(sample.mask)
    except UserError as error:
        findings.add_error("unreadable masks", error)
        return None
    height, width = mask.shape
    findings.add_problem(
        "masks of another size", masks.size_problem(sample.mask, (width, height), sample.image, image_size)
    )
    findings.add_problem("masks with values out of range", masks.value_problem(sample.mask, mask, num_classes))
    return mask
