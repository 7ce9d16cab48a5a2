"""Recognises data sets that are arranged in another way than their data format prescribes.

Only names are looked at, and only as many as are needed, so that ``hafabench check`` and the workflow can say in
seconds what verification would find after an hour.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from hafabench.config.experiment import DatasetConfig
from hafabench.data import listing, paths
from hafabench.errors import Problem

_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar")
_CONTAINERS = (".parquet", ".arrow", ".lmdb", ".mdb", ".tfrecord", ".rec", ".h5", ".hdf5", ".beton")
# Other names under which the required folders and files are found.
_OTHER_NAMES = {
    "train": ("training", "Train", "ILSVRC2012_img_train", "train_images"),
    "val": ("validation", "valid", "Val", "test", "ILSVRC2012_img_val", "val_images"),
    "train2017": ("train", "images/train2017", "images/train", "train2014"),
    "val2017": ("val", "images/val2017", "images/val", "val2014"),
    "images/training": ("images/train", "training", "img_dir/train"),
    "images/validation": ("images/val", "images/valid", "validation", "img_dir/val"),
    "annotations/training": ("annotations/train", "masks/training", "ann_dir/train"),
    "annotations/validation": ("annotations/val", "masks/validation", "ann_dir/val"),
}
# How far a complete data set is searched for, and in how many folders.
_DEPTH, _FOLDERS = 3, 200
# Names that are looked at in a folder, and class folders that are looked into.
_NAMES, _CLASSES = 2000, 3


def arrangement_problems(dataset: DatasetConfig) -> list[Problem]:
    """Describe what is recognised in a data set that cannot be read as it is arranged.

    Args:
        dataset: A data set whose root folder exists.

    Returns:
        The problems; none if the arrangement is right, or if nothing is recognised.
    """
    try:
        return list(_problems(dataset))
    except OSError as error:
        return [Problem(str(error.filename or dataset.root), "", f"cannot be read: {error.strerror}")]


def is_missing_or_empty(path: Path) -> bool:
    """Return whether a required folder or file does not exist or is an empty folder."""
    if path.is_dir():
        return next(path.iterdir(), None) is None
    return not path.is_file()


def _problems(dataset: DatasetConfig) -> Iterator[Problem]:
    root = dataset.root
    missing = [path for path in paths.required_paths(dataset) if is_missing_or_empty(path)]
    if missing:
        elsewhere = _complete_folder(dataset)
        if elsewhere is not None:
            yield Problem(str(root), "", f"the data set is in {elsewhere}; set root to this folder")
            return
        yield from _packed(root)
    for path in missing:
        name = path.relative_to(root).as_posix()
        for other in _OTHER_NAMES.get(name, ()):
            if (root / other).is_dir():
                yield Problem(str(root / other), "", f"expected this folder as {name}; rename it, or make a link")
                break
    for split in paths.SPLITS:
        present = [path for path in paths.required_paths(dataset, split) if path.is_dir() and path not in missing]
        for path in present:
            yield from _packed(path)
        if dataset.data_format == "imagenet" and present:
            yield from _class_folder_problems(dataset, split)
        elif dataset.data_format == "ade20k":
            yield from (problem for path in present for problem in _nested(path))
    if not missing:
        yield from _swapped(dataset)


def _class_folder_problems(dataset: DatasetConfig, split: str) -> Iterator[Problem]:
    folder = paths.imagenet_folder(dataset, split)
    classes = listing.class_folders(folder)
    loose = next((name for name in _names(folder) if listing.is_image(name) and not (folder / name).is_dir()), None)
    name = {"train": "training", "val": "validation"}[split]
    if loose is not None and len(classes) < dataset.num_classes:
        advice = "; `hafabench data sort-imagenet` sorts them" if split == "val" else ""
        yield Problem(
            str(folder), "", f"{name} images are not sorted into class folders, for example {loose}{advice}"
        )
        return
    if len(classes) == 1 and dataset.num_classes > 1 and len(listing.class_folders(classes[0])) > 1:
        yield Problem(str(folder), "", f"the class folders are one folder deeper, in {classes[0].name}; move them up")
        return
    for path in classes[:_CLASSES]:
        if any(listing.is_image(one) for one in _names(path)):
            continue
        yield from _packed(path)
        yield from _nested(path)
    if classes and len(classes) != dataset.num_classes:
        yield Problem(str(folder), "", f"expected {dataset.num_classes} class folders, found {len(classes)}")


def _nested(folder: Path) -> Iterator[Problem]:
    """Yield a problem if the images are in folders below ``folder`` and not in it."""
    names = _names(folder)
    if any(listing.is_image(name) for name in names):
        return
    for inner in (folder / name for name in names if not name.startswith(".") and (folder / name).is_dir()):
        if any(listing.is_image(name) for name in _names(inner)):
            message = f"the images are one folder deeper, for example in {inner.name}; expected them in this folder"
            yield Problem(str(folder), "", message)
            return


def _packed(folder: Path) -> Iterator[Problem]:
    """Yield the archives and containers in a folder without images."""
    names = _names(folder)
    if any(listing.is_image(name) for name in names):
        return
    archives = [name for name in names if name.lower().endswith(_ARCHIVES)]
    if archives:
        kind = "tar files" if all(".tar" in name or name.endswith(".tgz") for name in archives) else "archives"
        yield Problem(str(folder), "", f"these are {kind}, which are not read: {_some(archives)}; unpack them")
    containers = [name for name in names if name.lower().endswith(_CONTAINERS) or name.startswith("data.mdb")]
    if containers:
        message = f"these files contain many images each, and are not read: {_some(containers)}; expected image files"
        yield Problem(str(folder), "", message)


def _swapped(dataset: DatasetConfig) -> Iterator[Problem]:
    """Yield a problem if the larger split is the one that should be smaller."""
    expected = dataset.images
    found = {split: _estimated_images(dataset, split) for split in paths.SPLITS}
    small, large = sorted(paths.SPLITS, key=lambda split: expected.get(split, 0))
    if expected.get(large, 0) >= 2 * expected.get(small, 1) and found[small] >= 2 * found[large] > 0:
        message = f"train and val seem to be exchanged: about {found['train']} and {found['val']} images"
        yield Problem(str(dataset.root), "", f"{message}, expected {expected['train']} and {expected['val']}")


def _estimated_images(dataset: DatasetConfig, split: str) -> int:
    folder = paths.required_paths(dataset, split)[0]
    if dataset.data_format != "imagenet":
        return sum(map(listing.is_image, _names(folder, None)))
    classes = listing.class_folders(folder)
    seen = [sum(map(listing.is_image, _names(path, None))) for path in classes[:_CLASSES]]
    return sum(seen) * len(classes) // max(len(seen), 1)


def _complete_folder(dataset: DatasetConfig) -> Path | None:
    """Return a folder above or below the root folder in which the data format is complete."""
    root = dataset.root
    above = list(root.absolute().parents)[:_DEPTH]
    for folder in (*islice(_folders(root, _DEPTH), _FOLDERS), *above):
        moved = dataset.model_copy(update={"root": folder})
        if not any(is_missing_or_empty(path) for path in paths.required_paths(moved)):
            return folder
    return None


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the folders below ``folder``, nearest first."""
    level = [folder]
    for _ in range(depth):
        level = [path / name for path in level for name in _names(path) if (path / name).is_dir()]
        yield from level


def _names(folder: Path, most: int | None = _NAMES) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, most))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
