"""The files of a data set. Verification, training, evaluation, previews and digests all use these listings.

A listing contains the images directly in the folders that the data format prescribes. In COCO's data format, it
contains the images that the annotation file names. Hidden files, and files in further folders, are not read;
`files_not_read` describes them.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json
from hafabench.data import paths
from hafabench.errors import Problem, UserError

# torchvision, timm, mmdet and mmseg all read these.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_OTHER_IMAGE_SUFFIXES = frozenset(
    {".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".jpe", ".jfif", ".heic", ".avif", ".ppm"}
)
# Folders that file servers and operating systems create. They are never class folders.
_SYSTEM_FOLDERS = frozenset({"@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "__pycache__"})


@dataclass(frozen=True)
class Listing:
    """The files of one split, in the order in which they are read.

    Attributes:
        folder: The folder with the images.
        images: The images.
        masks: The index masks in the order of the images, in data formats that have masks.
        annotations: The file that names the images, in data formats that have one.
    """

    folder: Path
    images: list[Path]
    masks: list[Path]
    annotations: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All files of the split."""
        first = [self.annotations] if self.annotations is not None else []
        return [*first, *self.images, *self.masks]


def list_split(dataset: DatasetConfig, split: str) -> Listing:
    """List the files of a split of any data format.

    Args:
        dataset: The data set.
        split: ``train`` or ``val``.

    Raises:
        UserError: If a folder or the annotation file is missing or cannot be read, or an image has no mask.
    """
    for needed in paths.required_paths(dataset, split):
        if not needed.exists():
            advice = "`hafabench data prepare` makes the data set"
            if dataset.generator is None:
                advice = "restore the data set; `hafabench data prepare` verifies it"
            raise UserError(Problem(str(needed), "", f"no such file or folder; {advice}"))
    try:
        if dataset.data_format == "imagenet":
            images_of = list_imagenet_images(dataset, split)
            images = [path for own in images_of.values() for path in own]
            return Listing(paths.imagenet_folder(dataset, split), images, [])
        if dataset.data_format == "ade20k":
            pairs = list_ade20k_pairs(dataset, split)
            return Listing(paths.ade20k_images(dataset, split), [a for a, _ in pairs], [b for _, b in pairs])
    except OSError as error:
        raise UserError(
            Problem(str(error.filename or dataset.root), "", f"cannot be read: {error.strerror}")
        ) from None
    file = paths.coco_annotations(dataset, split)
    return Listing(paths.coco_images(dataset, split), list_coco_images(dataset, split), [], file)


def is_image(path: Path | str) -> bool:
    """Return whether the name of a file is that of an image. Hidden files are not images."""
    path = Path(path)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """List the images directly in ``folder``, sorted by name. A folder with the name of an image is not an image."""
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(e.name for e in entries if is_image(e.name) and not _is_folder(e))]


def is_class_folder(path: Path) -> bool:
    """Return whether a path is a class folder: a folder that is neither hidden nor made by a file server."""
    return not path.name.startswith(".") and path.name.lower() not in _SYSTEM_FOLDERS and path.is_dir()


def class_folders(folder: Path) -> list[Path]:
    """List the class folders of an ImageNet split, sorted by name, which is the order of the class indices."""
    return sorted(path for path in folder.iterdir() if is_class_folder(path))


def list_imagenet_images(dataset: DatasetConfig, split: str) -> dict[Path, list[Path]]:
    """List the images of every class folder of a split."""
    return {folder: image_files(folder) for folder in class_folders(paths.imagenet_folder(dataset, split))}


def list_ade20k_images(dataset: DatasetConfig, split: str) -> dict[str, list[Path]]:
    """List the images of a split by their stem. In a valid data set, there is one image of each stem."""
    return _by_stem(image_files(paths.ade20k_images(dataset, split)))


def list_ade20k_masks(dataset: DatasetConfig, split: str) -> dict[str, list[Path]]:
    """List the index masks of a split by their stem, which is that of their image."""
    files = image_files(paths.ade20k_masks(dataset, split))
    return _by_stem([path for path in files if path.suffix.lower() == ".png"])


def list_ade20k_pairs(dataset: DatasetConfig, split: str) -> list[tuple[Path, Path]]:
    """List the images of a split with their masks, sorted by the name of the image.

    Raises:
        UserError: If an image has no mask, or two images or masks have the same stem.
    """
    images, masks = list_ade20k_images(dataset, split), list_ade20k_masks(dataset, split)
    pairs = []
    for stem, (image, *others) in images.items():
        own = masks.get(stem, [])
        if others or len(own) != 1:
            advice = f"expected one image {stem} with one mask {stem}.png"
            found = ", ".join(path.name for path in [image, *others, *own])
            raise UserError(Problem(str(image), "", f"{advice}, found {found}"))
        pairs.append((image, own[0]))
    return sorted(pairs)


def list_coco_images(dataset: DatasetConfig, split: str) -> list[Path]:
    """List the images that the annotation file of a split names, in the order of the file.

    Raises:
        UserError: If the annotation file cannot be read, or the name of an image cannot be that of a file.
    """
    file = paths.coco_annotations(dataset, split)
    try:
        names = [entry["file_name"] for entry in read_json(file)["images"]]
    except (KeyError, TypeError):
        raise UserError(Problem(str(file), "images", "expected a list of images with file names")) from None
    for index, name in enumerate(names):
        problem = coco_name_problem(name)
        if problem:
            raise UserError(Problem(str(file), f"images[{index}].file_name", problem))
    return [coco_image_file(dataset, split, name) for name in names]


def coco_name_problem(name: Any) -> str | None:
    """Describe what is wrong with the name of an image, which is relative to the image folder of its split."""
    expected = "expected the name of a file below the image folder"
    if not isinstance(name, str):
        return f"{expected}, found {name!r}"
    if not name.strip() or name.endswith("/") or any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
        return f"{expected}, found {name!r}"
    if name.startswith("/") or PureWindowsPath(name).is_absolute():
        return f"{expected}, found the absolute path {name!r}"
    if ".." in PurePosixPath(name).parts:
        return f"{expected}, found {name!r}; it must not contain '..'"
    return None


def coco_image_file(dataset: DatasetConfig, split: str, file_name: str) -> Path:
    """Return the image file that an annotation file calls ``file_name``, which may contain folders."""
    return paths.coco_images(dataset, split) / file_name


def files_not_read(dataset: DatasetConfig, split: str) -> list[str]:
    """Describe the images in the folders of a split that are not read, in one sentence for each kind."""
    found: dict[str, list[Path]] = defaultdict(list)
    if dataset.data_format == "imagenet":
        folder = paths.imagenet_folder(dataset, split)
        classes = class_folders(folder)
        for kind, path in _unread(folder, skip=set(classes)):
            found[kind].append(path)
        for path in image_files(folder):
            found["beside the class folders"].append(path)
        for kind, path in (item for own in classes for item in _unread(own)):
            found[kind].append(path)
    elif dataset.data_format == "ade20k":
        for folder in (paths.ade20k_images(dataset, split), paths.ade20k_masks(dataset, split)):
            for kind, path in _unread(folder):
                found[kind].append(path)
    sentences = []
    for kind, files in found.items():
        count, example = len(files), as_text(min(files).relative_to(dataset.root))
        images = "1 image" if count == 1 else f"{count} images"
        sentences.append(f"{split}: {images} {kind}, not read: {example}{', ...' if count > 1 else ''}")
    return sentences


def images_not_read(folder: Path) -> list[Path]:
    """List the images at any depth below ``folder`` that `image_files` leaves out."""
    return [path for _, path in _unread(folder)]


def as_text(path: Path | str) -> str:
    """Return a path as text that can be stored as UTF-8; other bytes in names are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_text(name: str) -> bool:
    """Return whether the name of a file is encoded in UTF-8."""
    return as_text(name) == name


def _unread(folder: Path, skip: set[Path] | None = None) -> Iterator[tuple[str, Path]]:
    """Yield the images at any depth below ``folder`` that `image_files` leaves out, each with its kind."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = folder / entry.name
            if _is_folder(entry):
                if skip is None or path not in skip:
                    for inner, _, names in os.walk(path):
                        yield from (
                            ("in further folders", Path(inner, name)) for name in names if _looks_like_image(name)
                        )
            elif _looks_like_image(entry.name):
                if entry.name.startswith("."):
                    yield "with a hidden name", path
                elif not is_image(entry.name):
                    yield "in another file format", path


def _looks_like_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES | _OTHER_IMAGE_SUFFIXES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself is listed, so that verification reports it.
        return False


def _by_stem(files: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        found[path.stem].append(path)
    return dict(found)
