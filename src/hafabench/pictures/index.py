"""The index of an experiment's pictures, ``pictures.json``: what each tile shows and which weights drew it.

Every tile is a separate WebP file, ``figures/tiles/<sheet>/<row>_<column>.webp``. The number of tiles follows from
the configuration (models, mergers and size of the validation split), so that the workflow can declare each tile as an
output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hafabench.config.base import StrictModel
from hafabench.config.json_file import read_json_model, read_json_object
from hafabench.errors import Problem, UserError
from hafabench.files import write_text

# The page embeds the tiles, and uses the colours in its style.
PathInside = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]

OLD_SCHEMA = "hafabench.pictures/1"


class Weights(StrictModel):
    """The weights that a sheet was drawn with: a run, its fingerprint, and the digest of its checkpoint."""

    run: str
    fingerprint: str
    checkpoint_sha256: str


class Tile(StrictModel):
    """One square picture.

    Attributes:
        file: The path of the WebP file, relative to the folder of the index.
        sha256: The digest of the file.
        caption: The text under the picture; it may be empty.
    """

    file: PathInside
    sha256: str
    caption: str


class SheetRow(StrictModel):
    """The tiles of one validation image; ``image`` is its file name."""

    image: str
    tiles: list[Tile]


class Sheet(StrictModel):
    """Tiles in rows and columns, one row per validation image.

    Attributes:
        file: The name of the contact sheet, a WebP file beside the index with all tiles and captions.
        dataset: The data set whose validation split the images come from.
        tile_size: The side of a tile in pixels.
        columns: What each column shows.
        rows: The tiles, one per column in every row.
        legend: The names and colours (``#rrggbb``) of classes.
        weights: The weights that the tiles were drawn with.
        notes: Sentences that explain the tiles.
    """

    file: str
    dataset: str
    tile_size: int = Field(gt=0)
    columns: list[str]
    rows: list[SheetRow]
    legend: list[tuple[str, Colour]] = Field(default_factory=list)
    weights: list[Weights]
    notes: list[str]

    @model_validator(mode="after")
    def _check_tiles(self) -> Sheet:
        for row in self.rows:
            if len(row.tiles) != len(self.columns):
                raise ValueError(f"{row.image}: {len(row.tiles)} tiles in {len(self.columns)} columns")
        return self


class PictureIndex(StrictModel):
    """The sheets of an experiment; a sheet is None if the experiment trains no run for it."""

    schema_: Literal["hafabench.pictures/2"] = Field("hafabench.pictures/2", alias="schema")
    experiment: str
    clusters: Sheet | None
    offsets: Sheet | None


def write_index(path: Path, index: PictureIndex) -> None:
    """Write the index atomically."""
    write_text(path, json.dumps(index.model_dump(by_alias=True), indent=1) + "\n")


def read_index(path: Path) -> PictureIndex:
    """Read and validate an index.

    Raises:
        UserError: If the file is missing, was written by a version that stored no tiles, or is not valid.
    """
    content = read_json_object(path)
    if content is not None and content.get("schema") == OLD_SCHEMA:
        message = (
            "written by an older version of hafabench, which stored sheets and no tiles; "
            "draw the pictures again with `hafabench pictures`, or delete this file to report without pictures"
        )
        raise UserError(Problem(str(path), "schema", message))
    return read_json_model(path, PictureIndex, missing="no such file; `hafabench pictures` makes it")
