"""Where the files of a data set lie: the layouts of ImageNet-1k, COCO 2017 and ADE20K (ADEChallengeData2016)."""

from __future__ import annotations

from pathlib import Path

from hafabench.config.experiment import DatasetConfig

SPLITS: tuple[str, ...] = ("train", "val")
# What torchvision, timm, mmdet and mmseg all read.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_ADE20K_FOLDERS = {"train": "training", "val": "validation"}


def imagenet_folder(dataset: DatasetConfig, split: str) -> Path:
    """The folder of class folders of a split."""
    return dataset.root / split


def coco_images(dataset: DatasetConfig, split: str) -> Path:
    """The image folder of a split."""
    return dataset.root / f"{split}2017"


def coco_annotations(dataset: DatasetConfig, split: str) -> Path:
    """The instance annotations of a split."""
    return dataset.root / "annotations" / f"instances_{split}2017.json"


def ade20k_images(dataset: DatasetConfig, split: str) -> Path:
    """The image folder of a split."""
    return dataset.root / "images" / _ADE20K_FOLDERS[split]


def ade20k_masks(dataset: DatasetConfig, split: str) -> Path:
    """The folder of index masks of a split."""
    return dataset.root / "annotations" / _ADE20K_FOLDERS[split]


def required_paths(dataset: DatasetConfig) -> list[Path]:
    """Every folder and file that the layout cannot do without."""
    of_layout = {
        "imagenet": (imagenet_folder,),
        "coco": (coco_images, coco_annotations),
        "ade20k": (ade20k_images, ade20k_masks),
    }
    return [path(dataset, split) for split in SPLITS for path in of_layout[dataset.data_format]]


def is_image(path: Path | str) -> bool:
    """Whether a file counts as an image of a data set, by its name; hidden files do not."""
    path = Path(path)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """The images directly in ``folder``, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_image(path))


def class_folders(folder: Path) -> list[Path]:
    """The class folders of an ImageNet split, sorted by name: their order is the order of the classes."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
