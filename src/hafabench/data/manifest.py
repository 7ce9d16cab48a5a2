"""The manifest of a generated data set, and digests that distinguish data sets."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json_object
from hafabench.data.listing import Listing
from hafabench.errors import Problem
from hafabench.files import IsMade, sha256_of

NAME = "manifest.json"
SCHEMA = "hafabench.dataset/1"
# Increase this with every change of the composition, so that existing folders are made again.
COMPOSITION = 1
# Threads that ask for the sizes of files, and the number of files that each asks for at a time.
_THREADS, _CHUNK = 16, 512
_ADVICE = "`hafabench data prepare` makes the data set again"
_PACKAGES = ("numpy", "opencv-python", "pillow", "scikit-learn")


def write_manifest(
    folder: Path, dataset: DatasetConfig, *, classes: list[str], scans: dict[str, list[int]]
) -> dict[str, Any]:
    """Write the manifest of the complete content of ``folder`` and return it.

    Args:
        folder: The folder of the data set.
        dataset: The configuration of the data set.
        classes: Names in the order of the classes.
        scans: For each split the indices of the source scans that it shows.
    """
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in _content(folder)}
    content = {
        "schema": SCHEMA,
        "parameters": parameters(dataset),
        "classes": classes,
        "scans": scans,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "files": len(files),
        # Only these files are removed when the data set is made again.
        "sha256": files,
        "digest": content_digest(folder),
    }
    (folder / NAME).write_text(json.dumps(content) + "\n", encoding="utf-8")
    return content


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Read the manifest of a generated data set; return None if there is none that can be read."""
    content = read_json_object(root / NAME)
    return content if content is not None and content.get("schema") == SCHEMA else None


def made_files(root: Path) -> IsMade | None:
    """Return what tells whether a file of a generated data set was made with it.

    Args:
        root: The folder of the data set.

    Returns:
        The function for `hafabench.files.atomic_folder`; None if there is no manifest that can be read, or if an
        earlier version, which did not list the files, wrote it and the files have changed since.
    """
    content = read_manifest(root)
    if content is None:
        return None
    names = _names(content)
    if names is None:
        return (lambda _path: True) if content.get("digest") == content_digest(root) else None
    return lambda path: path.as_posix() in names or path == Path(NAME)


def _names(content: dict[str, Any]) -> set[str] | None:
    digests = content.get("sha256")
    return set(digests) if isinstance(digests, dict) else None


def parameters(dataset: DatasetConfig) -> dict[str, Any]:
    """Return all parameters that determine the content of a generated data set."""
    identity = dataset.identity()
    return {key: identity[key] for key in ("layout", "num_classes", "images", "generator")} | {
        "composition": COMPOSITION
    }


def is_unchanged(dataset: DatasetConfig) -> bool:
    """Return whether the folder contains the configured data set, byte for byte as it was made."""
    found = read_manifest(dataset.root)
    if found is None or found.get("parameters") != parameters(dataset):
        return False
    return found.get("digest") == content_digest(dataset.root)


def parameter_problems(dataset: DatasetConfig) -> list[Problem]:
    """Describe why the folder of a generated data set does not contain the configured one, without reading its files.

    Another experiment may have made other data in a folder that both use.

    Args:
        dataset: A data set with a generator.
    """
    file = dataset.root / NAME
    found = read_manifest(dataset.root)
    if found is None:
        return [Problem(str(file), "", f"no manifest that can be read; {_ADVICE}")]
    wrong = list(_differences(parameters(dataset), found.get("parameters"), "parameters"))
    return [
        Problem(
            str(file),
            key,
            f"made with other parameters than configured: expected {expected!r}, found {other!r}; {_ADVICE}; "
            "experiments that need different data need different roots",
        )
        for key, expected, other in wrong
    ]


def content_problems(dataset: DatasetConfig, files: Mapping[Path, str] | None = None) -> list[Problem]:
    """Describe why files of a generated data set are not those that were made.

    Args:
        dataset: A data set with a generator, whose manifest has the configured parameters.
        files: The SHA-256 of the files that are read, by their paths. With None, all files that the manifest lists
            are read and compared, and whether any is missing.

    Returns:
        One problem that names the first file and counts the others. Manifests of earlier versions contain no digests
        of single files; then the data set is compared as a whole.
    """
    root, found = dataset.root, read_manifest(dataset.root) or {}
    digests = found.get("sha256")
    if not isinstance(digests, dict):
        digest = content_digest(root)
        if digest == found.get("digest"):
            return []
        message = f"files changed since they were made: expected {found.get('digest')}, found {digest}; {_ADVICE}"
        return [Problem(str(root / NAME), "digest", message)]
    if files is None:
        files = {root / name: sha256_of(root / name) if (root / name).is_file() else "" for name in digests}
    names = {path: path.relative_to(root).as_posix() for path in files}
    changed = sorted(path for path, digest in files.items() if digests.get(names[path]) != digest)
    if not changed:
        return []
    first = changed[0]
    what = "added" if names[first] not in digests else "changed" if files[first] else "removed"
    more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    return [Problem(str(first), "", f"files changed since they were made: this one was {what}{more}; {_ADVICE}")]


def _differences(own: Any, found: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys at which ``found`` differs from ``own``, with both values."""
    if isinstance(own, dict) and isinstance(found, dict):
        for name in [*own, *(name for name in found if name not in own)]:
            yield from _differences(own.get(name), found.get(name), f"{key}.{name}")
    elif own != found:
        yield key, own, found


def content_digest(root: Path) -> str:
    """Return the SHA-256 of the names and bytes of the files of a generated data set, sorted by name.

    Its manifest is no part of them, nor are files that the manifest does not list.
    """
    digest = hashlib.sha256()
    for path in _content(root):
        data = path.read_bytes()
        # The length marks where the content of a file ends.
        digest.update(f"{path.relative_to(root).as_posix()}\n{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def file_sizes(files: Sequence[Path]) -> dict[Path, int | Problem]:
    """Return the size of every file in bytes, or the problem of a file that is missing or no regular file.

    Many files are asked for at a time, because file servers answer slowly.
    """
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return {path: size for sizes in pool.map(_sizes, chunks) for path, size in sizes}


def listing_digest(root: Path, files: Iterable[Path], sizes: Mapping[Path, int | Problem]) -> str:
    """Return the SHA-256 of names and sizes of files, for data sets too large to read.

    Args:
        root: The folder of the data set.
        files: The files, in a fixed order.
        sizes: The size of each file, in bytes.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(_name_and_size(root, path, sizes))
    return digest.hexdigest()


def split_digest(
    root: Path, listing: Listing, sizes: Mapping[Path, int | Problem], digests: Mapping[Path, str] | None = None
) -> str:
    """Return the SHA-256 of the files of one split, in the order in which they are read.

    It covers names and sizes. Of an annotation file it covers the content, and of all files if ``digests`` are given.

    Args:
        root: The folder of the data set. Names are relative to it, so that a data set can be moved.
        listing: The files of the split.
        sizes: The size of each file, in bytes.
        digests: The SHA-256 of every file (`file_digests`).
    """
    digest = hashlib.sha256()
    for path in listing.files:
        digest.update(_name_and_size(root, path, sizes))
        if digests is not None or path == listing.annotations:
            digest.update(f"{digests[path] if digests is not None else sha256_of(path)}\n".encode())
    return digest.hexdigest()


def file_digests(files: Sequence[Path]) -> dict[Path, str]:
    """Return the SHA-256 of every file."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(files, pool.map(sha256_of, files), strict=True))


def _name_and_size(root: Path, path: Path, sizes: Mapping[Path, int | Problem]) -> bytes:
    # `os.fsencode` accepts every name that a file can have. A name in annotations may lead out of the root folder.
    name = os.fsencode(path.relative_to(root) if path.is_relative_to(root) else os.path.relpath(path, root))
    return name + f"\n{sizes[path]}\n".encode()


def _sizes(files: Sequence[Path]) -> list[tuple[Path, int | Problem]]:
    return [(path, _size(path)) for path in files]


def _size(path: Path) -> int | Problem:
    try:
        found = path.stat()
    except FileNotFoundError:
        link = f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else "no such file"
        return Problem(str(path), "", link)
    except OSError as error:
        return Problem(str(path), "", f"cannot be read: {error.strerror}")
    return found.st_size if stat.S_ISREG(found.st_mode) else Problem(str(path), "", "expected a regular file")


def _content(root: Path) -> list[Path]:
    names = _names(read_manifest(root) or {})
    files = (path for path in root.rglob("*") if path.is_file() and path != root / NAME)
    return sorted(path for path in files if names is None or path.relative_to(root).as_posix() in names)
