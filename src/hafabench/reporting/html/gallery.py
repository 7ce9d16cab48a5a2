"""The pictures of an experiment, encoded for the HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of
from hafabench.pictures.index import PictureIndex, Sheet, Tile
from hafabench.runs.run import Run


@dataclass(frozen=True)
class Picture:
    """A tile with its texts and its content as a data URI."""

    heading: str
    caption: str
    alt: str
    uri: str


@dataclass(frozen=True)
class GallerySheet:
    """A sheet with its pictures, one list per row under the name of the image."""

    sheet: Sheet
    rows: list[tuple[str, list[Picture]]]


@dataclass(frozen=True)
class Gallery:
    """The pictures of an experiment; ``missing`` explains why a sheet is None."""

    clusters: GallerySheet | None
    offsets: GallerySheet | None
    missing: list[str]


def read_gallery(index: PictureIndex | None, folder: Path, runs: Mapping[str, Run], command: str) -> Gallery:
    """Read the tiles that an index lists, without the sheets that show runs of another configuration.

    Args:
        index: The experiment's picture index; None if no pictures have been drawn.
        folder: The folder of the index, to which the tiles' paths are relative.
        runs: The runs of the experiment, by id.
        command: The command that draws the pictures.

    Raises:
        UserError: If a tile differs from the one that the index lists.
    """
    if index is None:
        return Gallery(None, None, [f"No pictures have been drawn. `{command}` draws them from the checkpoints."])
    sheets: dict[str, GallerySheet | None] = {"clusters": None, "offsets": None}
    missing = []
    for name, description, sheet in (
        (
            "clusters",
            "SIA's clusters: it trains no segmentation pair of a baseline and a model with SIA",
            index.clusters,
        ),
        ("offsets", "LAA's sampling points: it trains no classifier with LAA", index.offsets),
    ):
        if sheet is None:
            missing.append(f"The experiment has no pictures of {description}.")
            continue
        tiles = [tile for row in sheet.rows for tile in row.tiles]
        absent = [tile.file for tile in tiles if not (folder / tile.file).is_file()]
        if absent:
            missing.append(f"{absent[0]} is missing. `{command}` draws the pictures again.")
        elif any(
            weights.run not in runs or runs[weights.run].fingerprint != weights.fingerprint
            for weights in sheet.weights
        ):
            missing.append(
                f"The pictures in {sheet.file} show runs of another configuration. `{command}` draws them again."
            )
        else:
            sheets[name] = _read_sheet(folder, sheet)
    return Gallery(sheets["clusters"], sheets["offsets"], missing)


def _read_sheet(folder: Path, sheet: Sheet) -> GallerySheet:
    rows = []
    for row in sheet.rows:
        pictures = [
            Picture(heading, tile.caption, f"{row.image}: {heading}", _data_uri(folder, tile))
            for heading, tile in zip(sheet.columns, row.tiles, strict=True)
        ]
        rows.append((row.image, pictures))
    return GallerySheet(sheet, rows)


def _data_uri(folder: Path, tile: Tile) -> str:
    path = folder / tile.file
    if sha256_of(path) != tile.sha256:
        raise UserError(
            Problem(str(path), "", "not the tile that pictures.json lists; draw it again with `hafabench pictures`")
        )
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"
