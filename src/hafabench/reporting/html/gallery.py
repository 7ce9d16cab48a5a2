"""Picture sheets as single tiles that a page can hold: cut out, and encoded into its text."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of
from hafabench.pictures.index import Sheet, read_index
from hafabench.runs.run import Run

_QUALITY = 82  # of lossy WebP, where that is the smaller one


@dataclass(frozen=True)
class Tile:
    """A picture: what it shows, its caption, and itself as a data URI."""

    heading: str
    caption: str
    alt: str
    uri: str


@dataclass(frozen=True)
class GallerySheet:
    """One sheet as rows of tiles, with the words around it."""

    tile: int
    rows: list[tuple[str, list[Tile]]]
    sheet: Sheet


@dataclass(frozen=True)
class Gallery:
    """The pictures of an experiment; ``missing`` says why there are none (of one kind)."""

    clusters: GallerySheet | None
    offsets: GallerySheet | None
    missing: list[str]


def gallery(index: Path, runs: Mapping[str, Run], command: str) -> Gallery:
    """The sheets beside an index, cut into tiles; those of other weights' configuration are left out.

    Args:
        index: the experiment's ``pictures.json``, which need not be there.
        runs: of the experiment, by id.
        command: that draws the pictures.

    Raises:
        UserError: for an index that cannot be read, or a sheet beside it that is another one.
    """
    if not index.is_file():
        return Gallery(None, None, [f"No pictures have been drawn: `{command}` does, from the runs' checkpoints."])
    found = read_index(index)
    sheets: dict[str, GallerySheet | None] = {"clusters": None, "offsets": None}
    missing = []
    for kind, words, sheet in (
        ("clusters", "SIA's clusters: no segmentation pair of a baseline and a model with SIA", found.clusters),
        ("offsets", "LAA's sampling points: no classifier with LAA", found.offsets),
    ):
        if sheet is None:
            missing.append(f"No picture of {words} is trained in this experiment.")
        elif not index.with_name(sheet.file).is_file():
            missing.append(f"{sheet.file} is not there: `{command}` draws it again.")
        elif any(one.run not in runs or runs[one.run].fingerprint != one.fingerprint for one in sheet.weights):
            missing.append(f"{sheet.file} shows runs of another configuration: `{command}` draws it again.")
        else:
            sheets[kind] = _cut(index.with_name(sheet.file), sheet)
    return Gallery(sheets["clusters"], sheets["offsets"], missing)


def _cut(path: Path, sheet: Sheet) -> GallerySheet:
    if sha256_of(path) != sheet.sha256:
        raise UserError(
            Problem(str(path), "", "not the picture that pictures.json names; `hafabench pictures` draws it")
        )
    rows = []
    with Image.open(path) as picture:
        for name, top, captions in zip(sheet.rows, sheet.top, sheet.captions, strict=True):
            tiles = [
                Tile(heading, caption, f"{name}: {heading}", _data_uri(_crop(picture, left, top, sheet.tile)))
                for heading, left, caption in zip(sheet.columns, sheet.left, captions, strict=True)
            ]
            rows.append((name, tiles))
    return GallerySheet(sheet.tile, rows, sheet)


def _crop(picture: Image.Image, left: int, top: int, side: int) -> Image.Image:
    return picture.crop((left, top, left + side, top + side)).convert("RGB")


def _data_uri(tile: Image.Image) -> str:
    """The tile as WebP, lossless or not, whichever is smaller."""
    encoded = []
    for options in ({"lossless": True}, {"quality": _QUALITY}):
        buffer = io.BytesIO()
        tile.save(buffer, format="WEBP", method=6, **options)
        encoded.append(buffer.getvalue())
    return f"data:image/webp;base64,{base64.b64encode(min(encoded, key=len)).decode()}"
