"""The files of a data set. Verification, loading, previews and digests all use these listings."""

from __future__ import annotations

from pathlib import Path

from hafabench.config.experiment import DatasetConfig
from hafabench.data import paths

# torchvision, timm, mmdet and mmseg all read these.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def is_image(path: Path | str) -> bool:
    """Return whether the name of a file is that of an image. Hidden files are not images."""
    path = Path(path)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """List the images directly in ``folder``, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_image(path))


def class_folders(folder: Path) -> list[Path]:
    """List the class folders of an ImageNet split, sorted by name, which is the order of the class indices."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_imagenet_images(dataset: DatasetConfig, split: str) -> dict[Path, list[Path]]:
    """List the images of every class folder of a split."""
    return {folder: image_files(folder) for folder in class_folders(paths.imagenet_folder(dataset, split))}


def list_ade20k_images(dataset: DatasetConfig, split: str) -> dict[str, Path]:
    """List the images of a split by their stem."""
    return {path.stem: path for path in image_files(paths.ade20k_images(dataset, split))}


def list_ade20k_masks(dataset: DatasetConfig, split: str) -> dict[str, Path]:
    """List the index masks of a split by their stem, which is that of their image."""
    return {path.stem: path for path in image_files(paths.ade20k_masks(dataset, split)) if path.suffix == ".png"}


def list_coco_images(dataset: DatasetConfig, split: str) -> set[str]:
    """List the names of the images in the image folder of a split."""
    return {path.name for path in image_files(paths.coco_images(dataset, split))}


def coco_image_file(dataset: DatasetConfig, split: str, file_name: str) -> Path:
    """Return the image file that an annotation file calls ``file_name``."""
    return paths.coco_images(dataset, split) / file_name
