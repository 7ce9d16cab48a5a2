"""The schema of ``throughput.yaml``: rates from which durations are estimated, each with its source."""

from __future__ import annotations

from pydantic import Field

from hafabench.config.base import StrictModel


class Rate(StrictModel):
    """A number and where it is written down."""

    value: float = Field(gt=0)
    source: str = Field(min_length=3)


class Gpu(StrictModel):
    """The GPU that the rates are for."""

    value: str
    source: str = Field(min_length=3)


class Rates(StrictModel):
    """Content of ``throughput.yaml``; each key is explained there."""

    gpu: Gpu
    gpus: Rate
    images_per_s: dict[str, Rate]
    tmacs_per_s: Rate
    slowdown: dict[str, Rate]
    slowdown_otherwise: Rate
    dense_tmacs_per_s: Rate
    dense_seconds_per_step: Rate
    loader_images_per_s: Rate
    startup_minutes: Rate
    embedded_startup_minutes: Rate
    margin: Rate
    cpu_gmacs_per_s: Rate
    process_memory_mb: Rate
    worker_memory_mb: Rate
    workflow_memory_mb: Rate
    embedded_memory_mb: Rate
    dataset_kb_per_image: dict[str, Rate]
