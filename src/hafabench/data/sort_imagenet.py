"""Sorts the validation images of ImageNet, which are downloaded in one folder, into one folder per class.

The class of each image is read from what is distributed with ImageNet:

- the development kit: ``data/ILSVRC2012_validation_ground_truth.txt`` has a number per image, in the order of the
  images, and ``data/meta.mat`` the synset of each number;
- ``LOC_val_solution.csv`` of the Kaggle competition: ``ImageId,PredictionString``;
- a text file with an image and its synset in each line, or with the synset alone in the order of the images.

Everything is checked before the first image is moved. Images are renamed on the same file system and never copied,
replaced or deleted, so that the command can be stopped and repeated at any time.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hafabench.config.text_file import read_bytes
from hafabench.data import listing
from hafabench.errors import Problem, UserError

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_SYNSET = re.compile(r"n\d{8}")
_SHOWN = 5


@dataclass(frozen=True)
class Sorted:
    """What was done.

    Attributes:
        folder: The folder with the class folders.
        moved: Number of images that were moved or linked.
        before: Number of images that were in their class folder before.
        missing: Number of labelled images that are nowhere.
    """

    folder: Path
    moved: int
    before: int
    missing: int


def sort_imagenet(images: Path, labels: Path, target: Path | None = None, *, link: bool = False) -> Sorted:
    """Move each validation image into the folder of its class.

    Args:
        images: The folder of the images. They are in it, or already in their class folders.
        labels: The file with the classes, or the folder of the development kit.
        target: The folder in which the class folders are made; by default ``images``.
        link: Whether symbolic links are made in ``target``, and the images stay where they are.

    Raises:
        UserError: If the labels cannot be read or do not fit the images, or an image is in the folder of another
            class. Then no image is moved.
    """
    target = images if target is None else target
    if not images.is_dir():
        found = "expected a folder" if images.exists() else "no such folder; expected one"
        raise UserError(Problem(str(images), "", f"{found} with the validation images"))
    if link and target.resolve() == images.resolve():
        raise UserError("--link leaves the images where they are and requires another folder, --to FOLDER")
    synsets = read_synsets(labels)
    loose = {path.name: path for path in listing.image_files(images)}
    placed = _placed(target)
    _check(images, labels, target, synsets, loose, placed, link=link)
    moved = 0
    for name in sorted(loose.keys() - placed.keys()):
        folder = target / synsets[_key(name)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if link:
                (folder / name).symlink_to(loose[name].absolute())
            elif loose[name].is_symlink():
                _move_link(loose[name], folder / name)
            else:
                loose[name].rename(folder / name)
        except OSError as error:
            advice = "the same command continues"
            if error.errno == errno.EXDEV:
                advice = "choose a folder on the same file system, or --link"
            message = f"cannot be moved to {folder}: {error.strerror}; {advice}"
            raise UserError(Problem(str(loose[name]), "", message)) from None
        moved += 1
    before = {_key(name) for name in placed} & synsets.keys()
    missing = synsets.keys() - before - {_key(name) for name in loose}
    return Sorted(target, moved, len(before), len(missing))


def _move_link(link: Path, target: Path) -> None:
    """Move a symbolic link, so that it still leads to the same file if it is relative to its folder."""
    file = link.readlink()
    if not file.is_absolute():
        file = Path(os.path.relpath(link.parent.resolve() / file, target.parent.resolve()))
    target.symlink_to(file)
    link.unlink()


def read_synsets(labels: Path) -> dict[str, str]:
    """Return the synset of each validation image by the name of its file without suffix.

    Args:
        labels: One of the files that this module describes, or the folder of the development kit.

    Raises:
        UserError: If there is no such file, or its content is of none of these forms.
    """
    file = labels
    if labels.is_dir():
        files = (labels / "data" / GROUND_TRUTH, labels / GROUND_TRUTH)
        found = next((path for path in files if path.is_file()), None)
        if found is None:
            message = f"expected the development kit of ImageNet with data/{GROUND_TRUTH}"
            raise UserError(Problem(str(labels), "", message))
        file = found
    try:
        lines = read_bytes(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(
            Problem(str(file), "", "expected a text file encoded in UTF-8; unpack archives first")
        ) from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(Problem(str(file), "", "no labels in it"))
    rows = [[value.strip('"') for value in re.split(r"[,\s]+", line.strip())] for line in lines]
    if rows[0][0].lower() in {"imageid", "image", "filename", "file"}:
        return _by_name(file, rows[1:], first_line=2)
    if len(rows[0]) == 1:
        return _by_order(file, [row[0] for row in rows])
    return _by_name(file, rows, first_line=1)


def _by_name(file: Path, rows: Iterable[list[str]], first_line: int) -> dict[str, str]:
    """Read rows of an image and its synset; the columns after them are boxes."""
    synsets: dict[str, str] = {}
    for line, row in enumerate(rows, first_line):
        if len(row) < 2 or not _SYNSET.fullmatch(row[1]):
            found = row[1] if len(row) > 1 else "nothing"
            message = f"expected an image and its synset, like n01440764, found {found!r}"
            raise UserError(Problem(str(file), "", message, line))
        name = _key(row[0])
        if synsets.setdefault(name, row[1]) != row[1]:
            raise UserError(Problem(str(file), "", f"{name} has two synsets, {synsets[name]} and {row[1]}", line))
    return synsets


def _by_order(file: Path, values: list[str]) -> dict[str, str]:
    """Read one synset, or one number of the development kit, per image in the order of the images."""
    synset_of = {value: value for value in values if _SYNSET.fullmatch(value)}
    if all(value.isdecimal() for value in values):
        synset_of = _synsets_of_numbers(file.with_name(_META))
    for line, value in enumerate(values, 1):
        if value not in synset_of:
            message = f"expected a synset, like n01440764, or a number in {_META}, found {value!r}"
            raise UserError(Problem(str(file), "", message, line))
    if len(values) > 1 and len(set(values)) == len(values):
        message = "every class is in it once, as in a list of classes; expected one label per image"
        raise UserError(Problem(str(file), "", message))
    return {f"ILSVRC2012_val_{number:08d}": synset_of[value] for number, value in enumerate(values, 1)}


def _synsets_of_numbers(file: Path) -> dict[str, str]:
    """Read the synset of each class number from ``meta.mat`` of the development kit."""
    from scipy.io import loadmat

    if not file.is_file():
        message = "no such file; the labels are numbers, whose synsets are in this file of the development kit"
        raise UserError(Problem(str(file), "", message))
    try:
        synsets = loadmat(file, squeeze_me=True)["synsets"]
        return {str(int(entry["ILSVRC2012_ID"])): str(entry["WNID"]) for entry in synsets}
    except Exception as error:
        # Damaged files raise errors of many types.
        raise UserError(Problem(str(file), "", f"not the meta.mat of the development kit: {error}")) from None


def _key(name: str) -> str:
    """Return the name of an image without folder and suffix."""
    name = Path(name).name
    return Path(name).stem if listing.is_image(name) else name


def _placed(target: Path) -> dict[str, list[Path]]:
    """Return the images in class folders by name."""
    placed: dict[str, list[Path]] = {}
    for folder in listing.class_folders(target) if target.is_dir() else []:
        for path in listing.image_files(folder):
            placed.setdefault(path.name, []).append(path)
    return placed


def _check(
    images: Path,
    labels: Path,
    target: Path,
    synsets: dict[str, str],
    loose: dict[str, Path],
    placed: dict[str, list[Path]],
    *,
    link: bool,
) -> None:
    """Check that every image can be moved to its class, before any is moved."""
    problems: list[Problem | str] = []
    unknown = sorted(name for name in loose if _key(name) not in synsets)
    problems += [Problem(str(images / name), "", f"no label in {labels}") for name in unknown[:_SHOWN]]
    for name, files in sorted(placed.items()):
        expected = synsets.get(_key(name))
        wrong = [path for path in files if expected is not None and path.parent.name != expected]
        problems += [Problem(str(path), "", f"in the folder of another class; expected {expected}") for path in wrong]
        if name in loose and not link:
            problems.append(Problem(str(loose[name]), "", f"also in {files[0].parent}; keep one of them"))
    if not loose and not any(_key(name) in synsets for name in placed):
        example = next(iter(synsets))
        problems.append(Problem(str(images), "", f"no image that {labels} names, for example {example}"))
    files = [target / synset for synset in sorted(set(synsets.values())) if (target / synset).is_file()]
    problems += [Problem(str(path), "", "expected a class folder, found a file") for path in files]
    if problems:
        more = [f"and {len(problems) - 2 * _SHOWN} more"] if len(problems) > 2 * _SHOWN else []
        raise UserError([*problems[: 2 * _SHOWN], *more, "no image was moved"])
