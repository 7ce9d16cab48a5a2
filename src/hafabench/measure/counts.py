"""The parameters and operations of all models that static claims need, by part and kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

ReportProgress = Callable[[str], None]


def count_rows(experiment: Experiment, report_progress: ReportProgress = lambda _: None) -> list[Counted]:
    """Count every model that the experiment's static claims need, on the meta device.

    Args:
        experiment: Gives rows, image sizes and class counts.
        report_progress: Receives the name of each model before it is counted, such as ``3/41 segmentation/pvt_tiny``.
    """
    rows, counted = static_rows(experiment), []
    for number, row in enumerate(rows, start=1):
        build = f" ({row.build})" if row.build else ""
        report_progress(f"{number}/{len(rows)} {row.task}/{row.model.name}{build}")
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


def _deep_stem(model: Any, architecture: str) -> None:
    """Replace a ResNet's 7x7 convolution by mmseg's three 3x3 ones (ResNetV1c, widths 32, 32, 64)."""
    with torch.device("meta"):
        stem: Any = timm.create_model(architecture, stem_type="deep", stem_width=32)
    model.backbone.body.body.conv1 = stem.conv1


_BUILDS: dict[str, Callable[[nn.Module, str], None]] = {"deep_stem": _deep_stem}


def record_counts(experiment: Experiment, report_progress: ReportProgress) -> Counts:
    """Count every model that static claims need, and write the record."""
    counts = _count_all(experiment, report_progress)
    write_counts(counts_record(experiment), counts)
    return counts


def read_or_count(experiment: Experiment, report_progress: ReportProgress) -> Counts:
    """Read the record of `record_counts`, or count the models if there is none. No record is written.

    Raises:
        UserError: If the record is invalid or was made under another configuration.
    """
    current = read_current(counts_record(experiment), counts_fingerprint(experiment))
    return current or _count_all(experiment, report_progress)


def _count_all(experiment: Experiment, report_progress: ReportProgress) -> Counts:
    watch = Stopwatch(experiment)
    counted = count_rows(experiment, report_progress)
    return Counts(
        experiment=experiment.name,
        fingerprint=counts_fingerprint(experiment),
        cells=counted,
        provenance=watch.provenance(device="meta", threads=1),
    )
