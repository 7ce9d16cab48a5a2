"""The manifest of a generated data set, and digests that distinguish data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from hafabench.config.experiment import DatasetConfig
from hafabench.config.json_file import read_json_object

NAME = "manifest.json"
SCHEMA = "hafabench.dataset/1"
# Increase this with every change of the composition, so that existing folders are made again.
COMPOSITION = 1
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
    content = {
        "schema": SCHEMA,
        "parameters": parameters(dataset),
        "classes": classes,
        "scans": scans,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "files": sum(1 for _ in _content(folder)),
        "digest": content_digest(folder),
    }
    (folder / NAME).write_text(json.dumps(content) + "\n", encoding="utf-8")
    return content


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Read the manifest of a generated data set; return None if there is none that can be read."""
    content = read_json_object(root / NAME)
    return content if content is not None and content.get("schema") == SCHEMA else None


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


def content_digest(root: Path) -> str:
    """Return the SHA-256 of the names and bytes of all files under ``root``, except its manifest, sorted by name."""
    digest = hashlib.sha256()
    for path in _content(root):
        data = path.read_bytes()
        # The length marks where the content of a file ends.
        digest.update(f"{path.relative_to(root).as_posix()}\n{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def listing_digest(root: Path, paths: Iterable[Path]) -> str:
    """Return the SHA-256 of names and sizes of the sorted ``paths``, for data sets too large to read."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\n{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _content(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path != root / NAME)
