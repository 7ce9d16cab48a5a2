"""A record: one JSON file with the numbers of one measurement and where they came from.

Records are written atomically, validated whenever they are read, and never edited. Everything in the tables comes
from them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hafabench.config.base import StrictModel
from hafabench.config.json_file import read_json_model
from hafabench.config.metrics import Verb
from hafabench.files import write_text

SCHEMA = "hafabench.record/1"
_ALWAYS_KNOWN = ("python", "device", "threads", "host", "started", "duration_s", "peak_memory_mb")


class Metric(StrictModel):
    """One number.

    Attributes:
        task, model, seed: what it was measured on; ``seed`` is None for numbers that depend on no training.
        name: ``top1``, ``miou``, ``box_ap``, ``params``, ``gmacs``, ``latency_ms``, ...
        value: in ``unit``.
        unit: ``%``, ``1``, ``GMAC``, ``ms``, ``s``, ``images/s``, ``MB``, ...
        low, high: first and third quartile of repeated measurements, where there were any.
        interval: bounds of ``value`` with probability ``confidence``, where they are known.
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
    interval: tuple[float, float] | None = None
    confidence: float | None = None


class Machine(StrictModel):
    """The machine, and its state where something was timed; unknown stays None.

    Attributes:
        cpu: its model name.
        cores: logical ones.
        affinity: those that the process may use.
        governors: of the clock, those in use.
        clock_mhz: slowest and fastest core's, after the measurement.
        load: the system's one-minute load average, before and after.
        busy_percent, steal_percent: of all CPU time meanwhile: at work, and taken away by the hypervisor.
        others_percent: of all CPU time meanwhile, used by other processes or taken away.
        preemptions: how often the scheduler took the CPU from this process.
        gpu: what nvidia-smi says of it.
    """

    cpu: str
    cores: int
    affinity: list[int] | None = None
    governors: list[str] | None = None
    clock_mhz: tuple[float, float] | None = None
    load: tuple[float, float] | None = None
    busy_percent: float | None = None
    steal_percent: float | None = None
    others_percent: float | None = None
    preemptions: int | None = None
    gpu: dict[str, str] | None = None


class Provenance(StrictModel):
    """Where and how a record was made; unknown stays None.

    Only an imported record may leave open what every measurement here knows: interpreter, device, host, times.
    """

    command: str
    git_commit: str | None
    git_dirty: bool | None
    packages: dict[str, str]
    python: str | None
    device: str | None
    threads: int | None
    host: str | None
    started: str | None
    duration_s: float | None
    peak_memory_mb: float | None
    slurm_job_id: str | None = None
    checkpoint_sha256: str | None = None
    dataset_digest: str | None = None


class ImportSource(StrictModel):
    """What an imported record was read from.

    Attributes:
        kind: of the file; ``weights``: a checkpoint from elsewhere that was evaluated here.
        file: as the user named it.
        sha256: of the file.
        read: what was read of it (which epoch, which part), a clause.
        imported: when (ISO 8601).
        also: further files that were read, each with its SHA-256.
    """

    kind: Literal["timm", "mmengine", "csv", "weights"]
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    read: str
    imported: str
    also: dict[str, str] = Field(default_factory=dict)


class Record(StrictModel):
    """The numbers of one run and verb, or of one measurement over several models.

    Attributes:
        id: the run's id (``classification/pvt_tiny/seed0``) or the measurement's (``complexity/segmentation``).
        origin: ``imported``: numbers, or the weights behind them, were made outside this project.
        fingerprint: of the resolved configuration that was measured; of an imported record, of what its numbers are
            said to be about (`hafabench.runs.fingerprints.imported_fingerprint`), since no recipe of ours made them.
        provenance: of this record.
        training: provenance of the weights behind it (steps, seconds, device, commit), from their checkpoint.
        source: what an imported record was read from.
        predictions_sha256: of the file beside the record that keeps what each image came to.
        machine: that measured, with its state where something was timed.
        warnings: sentences without which the numbers would say more than was measured.
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
    source: ImportSource | None = None
    predictions_sha256: str | None = None
    machine: Machine | None = None
    warnings: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _origin_says_what_must_be_known(self) -> Record:
        if self.origin == "imported":
            if self.source is None:
                raise ValueError("an imported record has a source")
            return self
        if self.source is not None:
            raise ValueError("a measured record has no source to be imported from")
        unknown = [name for name in _ALWAYS_KNOWN if getattr(self.provenance, name) is None]
        if unknown:
            raise ValueError(f"a measured record knows its {', '.join(unknown)}")
        return self


def write_record(path: Path, record: Record) -> None:
    """Write ``record`` to ``path``: whole or not at all."""
    write_text(path, json.dumps(record.model_dump(by_alias=True), indent=2) + "\n")


def read_record(path: Path) -> Record:
    """Read and validate one record.

    Raises:
        UserError: for a missing file, invalid JSON, another schema, or wrong content (all problems at once).
    """
    return read_json_model(path, Record, missing="no such record")
