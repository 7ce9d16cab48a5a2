"""The counts record: a JSON file per experiment with the parameters and operations of each model, by part and kind.

Counting conventions add them up. It is not a record of `hafabench.results.record`, because it contains dozens of
numbers per model, none of which is a metric.
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
from hafabench.results.digest import DIGEST, WithDigest, with_digest
from hafabench.results.record import Provenance


class Counted(StrictModel, populate_by_name=True):
    """The parameters and operations of one model.

    Attributes:
        task: The task whose head the model has.
        model: The model's name.
        build: Another build of the same row (`hafabench.config.claims.BUILDS`); None for the project's own.
        dead_weights: The number of weights that the authors' published class has but never uses.
        amounts: The parameters and operations by part and kind.
    """

    task: str
    model: str
    build: str | None = Field(None, alias="variant")
    dead_weights: int = Field(0, ge=0)
    amounts: Decomposition


class Counts(StrictModel):
    """The models that the static claims of an experiment need.

    Attributes:
        experiment: The name of the experiment.
        fingerprint: The fingerprint of the models and sizes (`hafabench.runs.static_models.counts_fingerprint`).
        models: The counts of each task, model and build.
        provenance: The provenance of the counts.
    """

    schema_: Literal["hafabench.counts/1"] = Field("hafabench.counts/1", alias="schema")
    experiment: str
    fingerprint: str
    models: list[Counted] = Field(alias="cells")
    provenance: Provenance

    def of(self, task: str, model: str, build: str | None = None) -> Counted | None:
        """Return the counts of a model; None if it was not counted."""
        key = (task, model, build)
        return next((found for found in self.models if (found.task, found.model, found.build) == key), None)


class _StoredCounts(Counts, WithDigest):
    """A counts record as it is stored."""


def write_counts(path: Path, counts: Counts) -> None:
    """Write a counts record to a file atomically, with the SHA-256 of its content."""
    content = with_digest(counts.model_dump(mode="json", by_alias=True))
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_counts(path: Path) -> Counts:
    """Read and validate a counts record.

    Raises:
        UserError: If the file is missing, is not valid JSON, has another schema, or its content is wrong (every
            problem is listed), or it was edited after it was written.
    """
    stored = read_json_model(path, _StoredCounts, missing="no such record; `hafabench count` makes it")
    if stored.content_sha256 is not None:
        message = "the record was edited after it was written; `hafabench count` makes it again"
        raise UserError(Problem(str(path), DIGEST, message))
    return Counts.model_construct(**{name: getattr(stored, name) for name in Counts.model_fields})


def read_current(path: Path, fingerprint: str) -> Counts | None:
    """Read a counts record that must have the given fingerprint; None if the file does not exist.

    Raises:
        UserError: As `read_counts`, and if the record has another fingerprint.
    """
    if not path.is_file():
        return None
    counts = read_counts(path)
    if counts.fingerprint != fingerprint:
        message = f"made under another configuration: expected {fingerprint}, found {counts.fingerprint}"
        raise UserError(Problem(str(path), "fingerprint", f"{message}; `hafabench count` makes it again"))
    return counts


def is_current(path: Path, fingerprint: str) -> bool | None:
    """Return whether a counts record has the given fingerprint; None if there is no readable record."""
    try:
        return read_counts(path).fingerprint == fingerprint
    except UserError:
        return None
