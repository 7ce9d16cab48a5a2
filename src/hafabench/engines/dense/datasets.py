"""The training and validation data of dense runs, read by mmseg's and mmdet's data sets."""

from __future__ import annotations

import json
from typing import Any

from hafabench.data import paths
from hafabench.data.classes import coco_classes, segmentation_classes
from hafabench.data.listing import list_ade20k_pairs
from hafabench.data.verify.coco import read_annotation_file
from hafabench.engines.dense.config import dataset_config
from hafabench.engines.dense.model import load_mm
from hafabench.errors import Problem, UserError
from hafabench.runs.run import Run


def load_dataset(run: Run, split: str) -> Any:
    """Load the annotations of a split of the run's data.

    Args:
        run: A dense run.
        split: ``train`` or ``val``.

    Returns:
        mmengine's `BaseDataset`, whose images are read later.

    Raises:
        UserError: If the data is missing, unreadable or empty, or has other classes than configured.
    """
    advice = f"`hafabench data verify {run.task}` lists all problems of the data"
    problems = [
        Problem(str(path), "", f"not found; {advice}")
        for path in paths.required_paths(run.dataset)
        if not path.exists()
    ]
    if problems:
        raise UserError(problems)
    if run.task == "detection":
        _check_annotations(run, split)
    classes = _classes(run)
    config = dataset_config(run, split, classes)
    if run.task == "segmentation":
        config["pairs"] = list_ade20k_pairs(run.dataset, split)
        if not config["pairs"]:
            folder = paths.ade20k_images(run.dataset, split)
            raise UserError(Problem(str(folder), "", f"no images in it; {advice}"))
    try:
        dataset = load_mm().build_dataset(run.task, config)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            Problem(str(run.dataset.root), split, f"annotations not readable: {error!r}; {advice}")
        ) from None
    if not len(dataset):
        raise UserError(Problem(str(run.dataset.root), split, f"no image that can be used; {advice}"))
    return dataset


def _check_annotations(run: Run, split: str) -> None:
    """Check an annotation file before pycocotools and mmdet read it, and that its classes are those of validation."""
    found = read_annotation_file(run.dataset, split).categories
    names, expected = [name for _, name in found], coco_classes(run.dataset)
    if names != expected:
        message = f"expected the categories of the validation split, {', '.join(expected)}, found {', '.join(names)}"
        raise UserError(Problem(str(paths.coco_annotations(run.dataset, split)), "categories", message))


def _classes(run: Run) -> list[str]:
    """Return the names of the classes in the order of their indices."""
    expected = run.dataset.num_classes
    if run.task == "detection":
        names = coco_classes(run.dataset)
    else:
        names = segmentation_classes(run.dataset) or [f"class_{index}" for index in range(expected)]
    if len(names) != expected:
        message = f"expected {expected} classes, found {len(names)}: {', '.join(names[:20])}"
        raise UserError(Problem(str(run.dataset.root), "num_classes", message))
    return names
