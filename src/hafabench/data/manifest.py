"""What a generated data set says about itself, and digests that tell two data sets apart."""

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
# Raise by one with every change of the composition: existing folders are then made anew.
COMPOSITION = 1
_PACKAGES = ("numpy", "opencv-python", "pillow", "scikit-learn")


def write_manifest(
    folder: Path, dataset: DatasetConfig, *, classes: list[str], scans: dict[str, list[int]]
) -> dict[str, Any]:
    """Write the manifest of the finished content of ``folder`` and return it.

    Args:
        folder: where the data set was written.
        dataset: what was asked for.
        classes: names in the order of the classes.
        scans: indices of the source scans that each split shows.
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
    """The manifest of a generated data set; None where there is none that can be read."""
    content = read_json_object(root / NAME)
    return content if content is not None and content.get("schema") == SCHEMA else None


def parameters(dataset: DatasetConfig) -> dict[str, Any]:
    """Everything that decides the content of a generated data set."""
    identity = dataset.identity()
    return {key: identity[key] for key in ("layout", "num_classes", "images", "generator")} | {
        "composition": COMPOSITION
    }


def is_as_made(dataset: DatasetConfig) -> bool:
    """Whether the folder holds what the configuration asks for, byte for byte as it was made."""
    found = read_manifest(dataset.root)
    if found is None or found.get("parameters") != parameters(dataset):
        return False
    return found.get("digest") == content_digest(dataset.root)


def content_digest(root: Path) -> str:
    """SHA-256 over the names and bytes of all files under ``root`` but its manifest, sorted by name."""
    digest = hashlib.sha256()
    for path in _content(root):
        data = path.read_bytes()
        # Lengths keep a byte from wandering between a name and its content.
        digest.update(f"{path.relative_to(root).as_posix()}\n{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def listing_digest(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over names and sizes of ``paths`` (sorted): for data sets too large to read whole."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\n{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _content(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path != root / NAME)
