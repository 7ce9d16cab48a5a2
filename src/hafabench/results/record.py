"""A record: one JSON file with the numbers of one measurement and where they came from.

Records are written atomically, validated whenever they are read, and never edited. Everything in the tables comes
from them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.yamlfile import describe, dotted

SCHEMA = "hafabench.record/1"
Verb = Literal["evaluate", "complexity", "latency"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metric(_Strict):
    """One number.

    Attributes:
        task, model, seed: what it was measured on; ``seed`` is None for numbers that depend on no training.
        name: ``top1``, ``miou``, ``box_ap``, ``params``, ``gmacs``, ``latency_ms``, ...
        value: in ``unit``.
        unit: ``%``, ``1``, ``GMAC``, ``ms``, ``s``, ``images/s``, ``MB``, ...
        low, high: first and third quartile of repeated measurements, where there were any.
        repeats: number of repeated measurements behind ``value``.
        convention: how it was counted or measured, where there is more than one way.
    """

    task: Literal["classification", "segmentation", "detection"]
    model: str
    seed: int | None = None
    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    repeats: int | None = None
    convention: str | None = None


class Provenance(_Strict):
    """Where and how a record was made; unknown stays None."""

    command: str
    git_commit: str | None
    git_dirty: bool | None
    packages: dict[str, str]
    python: str
    device: str
    threads: int
    host: str
    started: str
    duration_s: float
    peak_memory_mb: float
    slurm_job_id: str | None = None
    checkpoint_sha256: str | None = None
    dataset_digest: str | None = None


class Record(_Strict):
    """The numbers of one run and verb, or of one measurement over several models.

    Attributes:
        id: the run's id (``classification/pvt_tiny/seed0``) or the measurement's (``complexity/segmentation``).
        fingerprint: of the resolved configuration that was measured.
        provenance: of this record.
        training: provenance of the weights behind it (steps, seconds, device, commit), from their checkpoint.
    """

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")
    experiment: str
    scale: Literal["embedded", "full"]
    origin: Literal["measured", "imported"] = "measured"
    verb: Verb
    id: str
    fingerprint: str
    metrics: list[Metric] = Field(min_length=1)
    provenance: Provenance
    training: dict[str, Any] | None = None


def write_record(path: Path, record: Record) -> None:
    """Write ``record`` to ``path``: whole or not at all."""
    write_text(path, json.dumps(record.model_dump(by_alias=True), indent=2) + "\n")


def read_record(path: Path) -> Record:
    """Read and validate one record.

    Raises:
        UserError: for a missing file, invalid JSON, another schema, or wrong content (all problems at once).
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(Problem(str(path), "", "no such record")) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(path), "", f"not a JSON record: {error}")) from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UserError(Problem(str(path), "schema", f"expected {SCHEMA!r}, found {schema!r}"))
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        raise UserError(
            [Problem(str(path), dotted(item["loc"]), describe(item)) for item in error.errors()]
        ) from None
