"""The record of models taken apart: what every counting convention adds up, in one JSON file per experiment.

It stands beside the records of `hafabench.results.record`: not one number per metric but dozens per model, none of
which stands in a table by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from hafabench.config.base import StrictModel
from hafabench.config.json_file import read_json_model
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.results.decomposition import Decomposition
from hafabench.results.record import Provenance

SCHEMA = "hafabench.counts/1"


class Counted(StrictModel, populate_by_name=True):
    """One model taken apart.

    Attributes:
        task, model: what was counted, with the task's head.
        build: another build of the same row (`hafabench.config.claims.BUILDS`); None for the project's own.
        dead_weights: weights that the authors' published class of this row holds beside the live ones.
        amounts: its parameters and operations.
    """

    task: str
    model: str
    build: str | None = Field(None, alias="variant")
    dead_weights: int = Field(0, ge=0)
    amounts: Decomposition


class Counts(StrictModel):
    """Every model that the static claims of an experiment are settled with.

    Attributes:
        fingerprint: of what was to be counted, see `hafabench.runs.run.counts_fingerprint`.
        cells: one per task, model and build.
        provenance: of the counting.
    """

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")
    experiment: str
    fingerprint: str
    cells: list[Counted]
    provenance: Provenance

    def of(self, task: str, model: str, build: str | None = None) -> Counted | None:
        """The cell of a model, or None where it was not counted."""
        key = (task, model, build)
        return next((cell for cell in self.cells if (cell.task, cell.model, cell.build) == key), None)


def write_counts(path: Path, counts: Counts) -> None:
    """Write ``counts`` to ``path``: whole or not at all."""
    write_text(path, json.dumps(counts.model_dump(mode="json", by_alias=True), indent=1) + "\n")


def read_counts(path: Path) -> Counts:
    """Read and validate a record of counts.

    Raises:
        UserError: for a missing file, invalid JSON, another schema, or wrong content (all problems at once).
    """
    return read_json_model(path, Counts, missing="no such record; `hafabench count` makes it")


def read_current(path: Path, fingerprint: str) -> Counts | None:
    """The record at ``path``, or None where there is none.

    Raises:
        UserError: as `read_counts`, and for one made under another configuration than ``fingerprint``'s.
    """
    if not path.is_file():
        return None
    counts = read_counts(path)
    if counts.fingerprint != fingerprint:
        message = f"made under another configuration: expected {fingerprint}, found {counts.fingerprint}"
        raise UserError(Problem(str(path), "fingerprint", f"{message}; `hafabench count` makes it again"))
    return counts


def is_current(path: Path, fingerprint: str) -> bool | None:
    """Whether the record at ``path`` carries ``fingerprint``; None where there is no readable record."""
    try:
        return read_counts(path).fingerprint == fingerprint
    except UserError:
        return None
