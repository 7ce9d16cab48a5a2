"""What is on the picture sheets and whose weights drew them: ``pictures.json`` beside the sheets (WebP)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.experiment import Experiment
from hafabench.config.json_file import read_json_model
from hafabench.files import write_text
from hafabench.runs.picture_runs import Subjects

SCHEMA = "hafabench.pictures/1"
CLUSTERS, OFFSETS = "clusters.webp", "offsets.webp"


class Weights(StrictModel):
    """Whose weights drew a sheet: a run, its fingerprint, and the digest of its checkpoint."""

    run: str
    fingerprint: str
    checkpoint_sha256: str


class Sheet(StrictModel):
    """One picture of square tiles, a row per image.

    Attributes:
        file, sha256: the WebP file beside the index, and its digest.
        dataset: whose validation split the images are of.
        tile: side of a tile, pixels.
        columns: what each column shows.
        rows: names of the images.
        left, top: pixels at which columns and rows begin.
        captions: of every tile, by row and column; may be empty texts.
        legend: names and colours (``#rrggbb``) of classes.
        weights: of the runs.
        facts: further sentences on how it was drawn.
    """

    file: str
    sha256: str
    dataset: str
    tile: int = Field(gt=0)
    columns: list[str]
    rows: list[str]
    left: list[int]
    top: list[int]
    captions: list[list[str]]
    legend: list[tuple[str, str]] = Field(default_factory=list)
    weights: list[Weights]
    facts: list[str]


class PictureIndex(StrictModel):
    """The sheets of an experiment; None where there is no run to draw one of."""

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")
    experiment: str
    clusters: Sheet | None
    offsets: Sheet | None


def index_file(experiment: Experiment) -> Path:
    """Where an experiment's index lies; the sheets lie beside it."""
    return experiment.reports / "figures" / "pictures.json"


def picture_files(experiment: Experiment, subjects: Subjects) -> list[Path]:
    """Everything that drawing the subjects writes: the index, and a sheet for each kind that there is."""
    index = index_file(experiment)
    kinds = [(CLUSTERS, subjects.pair), (OFFSETS, subjects.sampler)]
    return [index, *(index.with_name(name) for name, there in kinds if there)]


def write_index(path: Path, index: PictureIndex) -> None:
    """Write the index: whole or not at all."""
    write_text(path, json.dumps(index.model_dump(by_alias=True), indent=1) + "\n")


def read_index(path: Path) -> PictureIndex:
    """Read and validate an index.

    Raises:
        UserError: for a missing file, invalid JSON or other content, every problem at once.
    """
    return read_json_model(path, PictureIndex, missing="no such file; `hafabench pictures` makes it")
