"""The models that static claims are about, taken apart one after another."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import nn

from hafabench.config.experiment import Experiment
from hafabench.measure.complexity import build_on_meta, dead_weights
from hafabench.measure.decompose import decompose
from hafabench.results.counts import Counted, Counts, read_current, write_counts
from hafabench.results.provenance import Stopwatch
from hafabench.runs.paths import counts_record
from hafabench.runs.static_models import StaticRow, counts_fingerprint, static_rows


def count_rows(experiment: Experiment, announce: Callable[[str], None] = lambda _: None) -> list[Counted]:
    """Take apart every model that the experiment's static claims are about, on the meta device.

    Args:
        experiment: gives rows, sizes and class counts.
        announce: called with each model's name before it is counted, ``3/41 segmentation/pvt_tiny``.
    """
    rows, counted = static_rows(experiment), []
    for number, row in enumerate(rows, start=1):
        announce(f"{number}/{len(rows)} {row.task}/{row.model.name}{f' ({row.build})' if row.build else ''}")
        counted.append(_count(experiment, row))
    return counted


def _count(experiment: Experiment, row: StaticRow) -> Counted:
    config = experiment.config.complexity
    model = build_on_meta(row.model, row.task, config.num_classes[row.task])
    if row.build is not None:
        _BUILDS[row.build](model, row.model.architecture)
    return Counted(
        task=row.task,
        model=row.model.name,
        build=row.build,
        dead_weights=dead_weights(row.model, row.task),
        amounts=decompose(model, config.image_size[row.task] if row.counts_operations else None),
    )


def _deep_stem(model: nn.Module, architecture: str) -> None:
    """Replace a ResNet's 7x7 convolution by mmseg's three of 3x3 (ResNetV1c, widths 32, 32, 64)."""
    with torch.device("meta"):
        stem = timm.create_model(architecture, stem_type="deep", stem_width=32).conv1
    model.backbone.body.body.conv1 = stem


_BUILDS: dict[str, Callable[[nn.Module, str], None]] = {"deep_stem": _deep_stem}


def record_counts(experiment: Experiment, announce: Callable[[str], None]) -> Counts:
    """Take apart every model that static claims are about and write the record; ``announce`` hears of each."""
    counts = _count_all(experiment, announce)
    write_counts(counts_record(experiment), counts)
    return counts


def counts_of(experiment: Experiment, announce: Callable[[str], None]) -> Counts:
    """The record of `record_counts` where it is there; else the same counted now, and not written."""
    return read_current(counts_record(experiment), counts_fingerprint(experiment)) or _count_all(experiment, announce)


def _count_all(experiment: Experiment, announce: Callable[[str], None]) -> Counts:
    watch = Stopwatch()
    cells = count_rows(experiment, announce)
    return Counts(
        experiment=experiment.name,
        fingerprint=counts_fingerprint(experiment),
        cells=cells,
        provenance=watch.provenance(device="meta", threads=1),
    )
