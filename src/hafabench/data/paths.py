"""The folders of a data set: the data formats of ImageNet-1k, COCO 2017 and ADE20K (ADEChallengeData2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hafabench.config.experiment import DatasetConfig

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
_ADE20K_FOLDERS = {"train": "training", "val": "validation"}


def imagenet_folder(dataset: DatasetConfig, split: str) -> Path:
    """Return the folder that contains the class folders of a split."""
    return dataset.root / split


def coco_images(dataset: DatasetConfig, split: str) -> Path:
    """Return the image folder of a split."""
    return dataset.root / f"{split}2017"


def coco_annotations(dataset: DatasetConfig, split: str) -> Path:
    """Return the file of instance annotations of a split."""
    return dataset.root / "annotations" / f"instances_{split}2017.json"


def ade20k_images(dataset: DatasetConfig, split: str) -> Path:
    """Return the image folder of a split."""
    return dataset.root / "images" / _ADE20K_FOLDERS[split]


def ade20k_masks(dataset: DatasetConfig, split: str) -> Path:
    """Return the folder of index masks of a split."""
    return dataset.root / "annotations" / _ADE20K_FOLDERS[split]


_REQUIRED = {
    "imagenet": (imagenet_folder,),
    "coco": (coco_images, coco_annotations),
    "ade20k": (ade20k_images, ade20k_masks),
}


def required_paths(dataset: DatasetConfig, *splits: str) -> list[Path]:
    """Return every folder and file that the data format requires, for these splits or for both."""
    return [path(dataset, split) for split in splits or SPLITS for path in _REQUIRED[dataset.data_format]]
