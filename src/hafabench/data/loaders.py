"""Classification data for training and evaluation. This is the one module of `hafabench.data` that loads torch.

Detection and segmentation read the same layouts through mmdet's and mmseg's own data sets; see `hafabench.data.paths`
and `hafabench.data.classes` for what those need to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from hafabench.config.experiment import DatasetConfig
from hafabench.data import paths
from hafabench.data.images import read_image
from hafabench.errors import Problem, UserError


class ClassFolders(ImageFolder):
    """torchvision's `ImageFolder` over exactly the files and classes that `hafabench.data.verify` verifies."""

    def __init__(self, folder: Path, transform: Callable[..., Any] | None = None):
        super().__init__(str(folder), transform=transform, loader=read_image, is_valid_file=paths.is_image)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Sorted class names and their indices; hidden folders are no classes."""
        names = [path.name for path in paths.class_folders(Path(directory))]
        return names, {name: index for index, name in enumerate(names)}


def classification_dataset(
    dataset: DatasetConfig, split: str, transform: Callable[..., Any] | None = None
) -> ClassFolders:
    """A split of an ImageNet-style data set; classes are the sorted names of the training split's folders.

    Items are ``(transform(image), class index)`` with a Pillow RGB image; without a transform, the image itself.

    Args:
        dataset: with layout ``imagenet``.
        split: ``train`` or ``val``.
        transform: of one image.

    Raises:
        UserError: for a missing or empty folder, and where folders do not make ``num_classes`` classes that both
            splits share. Reading an item raises `hafabench.data.images.UnreadableImage` for a file that cannot be
            decoded, from a loading process too.
    """
    folder = paths.imagenet_folder(dataset, split)
    reference = paths.imagenet_folder(dataset, "train")
    for needed in (folder, reference):
        if not needed.is_dir():
            raise UserError(Problem(str(needed), "", "no such folder; expected one folder per class in it"))
    classes = [path.name for path in paths.class_folders(reference)]
    if len(classes) != dataset.num_classes:
        raise UserError(
            Problem(str(reference), "", f"expected {dataset.num_classes} class folders, found {len(classes)}")
        )
    own = [path.name for path in paths.class_folders(folder)]
    if own != classes:
        odd = sorted(set(own) ^ set(classes))[0]
        raise UserError(Problem(str(folder / odd), "", f"class folder in only one of {reference} and {folder}"))
    try:
        return ClassFolders(folder, transform)
    except FileNotFoundError as error:
        raise UserError(Problem(str(folder), "", str(error).splitlines()[0])) from None
