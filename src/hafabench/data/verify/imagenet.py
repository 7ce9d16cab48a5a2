"""Checks of a data set in ImageNet's data format: class folders and their images."""

from __future__ import annotations

from pathlib import Path

from hafabench.config.experiment import DatasetConfig
from hafabench.data import listing, paths
from hafabench.data.verify.findings import Findings, Sample, Survey, check_count, check_folder


def survey_imagenet(dataset: DatasetConfig, findings: Findings) -> Survey:
    """Check that both splits have the same ``num_classes`` class folders, and that none is empty."""
    survey = Survey()
    for split in paths.SPLITS:
        folder = paths.imagenet_folder(dataset, split)
        if not check_folder(folder, findings):
            continue
        images_of = listing.list_imagenet_images(dataset, split)
        names = [path.name for path in images_of]
        if len(names) != dataset.num_classes:
            findings.add("splits", folder, f"expected {dataset.num_classes} class folders, found {len(names)}")
        for path in images_of:
            if not listing.is_text(path.name):
                message = "the name of a class is not encoded in UTF-8; rename the folder"
                findings.add("names of classes", Path(listing.as_text(path)), message)
        if survey.classes is None:
            survey.classes = names
        for name in sorted(set(names) ^ set(survey.classes)):
            findings.add("class folders", folder / name, "class folder in only one of train and val")
        for path, own in images_of.items():
            if not own:
                message = "class folder without images"
                others = listing.images_not_read(path)
                if others:
                    message += f" that are read, only {others[0].relative_to(path)}"
                findings.add("empty class folders", path, message)
        images = [image for own in images_of.values() for image in own]
        check_count(dataset, split, len(images), folder, findings)
        survey.counts[split] = len(images)
        survey.samples[split] = [Sample(path) for path in images]
        survey.files += images
    return survey
