"""Classification data for training and evaluation. This is the only module of `hafabench.data` that imports torch.

Detection and segmentation read their data through mmdet's and mmseg's data sets, see
`hafabench.engines.dense.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from hafabench.config.experiment import DatasetConfig
from hafabench.data import listing, paths
from hafabench.data.images import read_image
from hafabench.errors import Problem, UserError


class ClassFolders(ImageFolder):
    """torchvision's `ImageFolder` for the files and classes that `hafabench.data.verify` verifies."""

    def __init__(self, folder: Path, transform: Callable[..., Any] | None = None):
        super().__init__(str(folder), transform=transform, loader=read_image)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Return the sorted class names and their indices; hidden folders are not classes."""
        names = [path.name for path in listing.class_folders(Path(directory))]
        return names, {name: index for index, name in enumerate(names)}

    @staticmethod
    def make_dataset(
        directory: str | Path,
        class_to_idx: dict[str, int],
        extensions: tuple[str, ...] | None = None,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> list[tuple[str, int]]:
        """List the images directly in the class folders, with the index of their class.

        torchvision would also read images in further folders, which `hafabench.data.verify` does not verify.

        Args:
            directory: The folder of the class folders.
            class_to_idx: The index of each class.
            extensions: Not used, because `hafabench.data.listing` decides which files are images.
            is_valid_file: Not used for the same reason.
            allow_empty: Whether class folders without images are accepted.

        Raises:
            UserError: If a class folder contains no image.
        """
        samples = []
        for name, index in class_to_idx.items():
            folder = Path(directory) / name
            images = listing.image_files(folder)
            if not images and not allow_empty:
                raise UserError(Problem(str(folder), "", "class folder without images"))
            samples += [(str(path), index) for path in images]
        return samples


def classification_dataset(
    dataset: DatasetConfig, split: str, transform: Callable[..., Any] | None = None
) -> ClassFolders:
    """Load a split of a data set in ImageNet's data format; classes are the sorted folder names of the train split.

    Items are ``(transform(image), class index)`` with a Pillow RGB image; without a transform, the image itself.

    Args:
        dataset: A data set in the data format ``imagenet``.
        split: ``train`` or ``val``.
        transform: A function of one image.

    Raises:
        UserError: If a folder is missing or empty, or the splits do not have the same ``num_classes`` classes.
            Reading an item raises `hafabench.data.images.UnreadableImage` if the file cannot be decoded, also in a
            loading process.
    """
    folder = paths.imagenet_folder(dataset, split)
    reference = paths.imagenet_folder(dataset, "train")
    for needed in (folder, reference):
        if not needed.is_dir():
            raise UserError(Problem(str(needed), "", "no such folder; expected one folder per class in it"))
    classes = [path.name for path in listing.class_folders(reference)]
    if len(classes) != dataset.num_classes:
        raise UserError(
            Problem(str(reference), "", f"expected {dataset.num_classes} class folders, found {len(classes)}")
        )
    own = [path.name for path in listing.class_folders(folder)]
    if own != classes:
        name = sorted(set(own) ^ set(classes))[0]
        raise UserError(Problem(str(folder / name), "", f"class folder in only one of {reference} and {folder}"))
    return ClassFolders(folder, transform)
