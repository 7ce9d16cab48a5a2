"""The schema of ``throughput.yaml``: rates from which durations are estimated, each with its source."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import AfterValidator, Field

from hafabench.config.base import StrictModel
from hafabench.config.experiment import DataFormat


class Rate(StrictModel):
    """A number and its source."""

    value: float = Field(ge=1e-9, le=1e12, description="The number.")
    source: str = Field(min_length=3, description="Where the number is published or measured, or that it is assumed.")


def _whole(rate: Rate) -> Rate:
    if not rate.value.is_integer():
        raise ValueError(f"value: expected a whole number, found {rate.value:g}")
    return rate


def _every_format(rates: dict[DataFormat, Rate]) -> dict[DataFormat, Rate]:
    missing = [name for name in get_args(DataFormat) if name not in rates]
    if missing:
        raise ValueError(f"no rate of {', '.join(missing)}")
    return rates


class Gpu(StrictModel):
    """The GPU that the rates refer to."""

    value: str = Field(description="Name of the GPU.")
    source: str = Field(min_length=3, description="Where the rates of this GPU are published.")


class Rates(StrictModel):
    """Rates from which `hafabench plan` and the requested run times are estimated."""

    gpu: Gpu = Field(description="GPU that the rates refer to. `hafabench plan --gpu-speed` scales them.")
    gpus: Annotated[Rate, AfterValidator(_whole)] = Field(description="Number of GPUs of a training.")
    images_per_s: dict[str, Rate] = Field(
        description="Training images per second of one GPU at 224x224 in mixed precision, by architecture."
    )
    tmacs_per_s: Rate = Field(
        description="10^12 multiply-accumulates per second of one GPU in the training of architectures without "
        "an entry in `images_per_s`. A training step counts as three forward passes."
    )
    slowdown: dict[str, Rate] = Field(
        description="Time of a training step relative to the same architecture with its own mergers, by the mergers "
        "of stages 2-4 (`laa-laa-sia`), or by mergers and size (`laa-laa-sia/small`)."
    )
    slowdown_otherwise: Rate = Field(description="Value of `slowdown` for all other mergers.")
    dense_tmacs_per_s: Rate = Field(
        description="10^12 multiply-accumulates per second of one GPU in the training of segmentation and detection."
    )
    dense_seconds_per_step: Rate = Field(
        description="Shortest time of a training step of segmentation or detection, in seconds."
    )
    loader_images_per_s: Rate = Field(description="Images per second that one loading process decodes and augments.")
    startup_minutes: Rate = Field(description="Minutes before a job begins its work.")
    embedded_startup_minutes: Rate = Field(description="Minutes before an embedded experiment's job begins its work.")
    margin: Rate = Field(description="Requested run time relative to the estimated one.")
    cpu_gmacs_per_s: Rate = Field(description="10^9 multiply-accumulates per second of one CPU core in a training.")
    process_memory_mb: Rate = Field(description="Host memory of a training process, in MB.")
    worker_memory_mb: Rate = Field(description="Host memory of a data loading process, in MB.")
    workflow_memory_mb: Rate = Field(description="Host memory of Snakemake's own processes in a job, in MB.")
    embedded_memory_mb: Rate = Field(description="Host memory of a job of an embedded experiment, in MB.")
    dataset_kb_per_image: Annotated[dict[DataFormat, Rate], AfterValidator(_every_format)] = Field(
        description="Disk space of an image with its annotation, in kB, by data format."
    )
