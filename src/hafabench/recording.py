"""Measurements become records: each function measures, adds provenance and writes one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hafabench.config import Experiment, LatencyConfig
from hafabench.data.verify import read_report
from hafabench.files import sha256_of
from hafabench.imports.store import Stored, imported_id, now, refuse_earlier, store_records
from hafabench.matrix import (
    Run,
    complexity_fingerprint,
    complexity_models,
    complexity_record,
    dataset_report,
    imported_fingerprint,
    latency_fingerprint,
    latency_record,
)
from hafabench.results.counts import Counts, read_current, write_counts
from hafabench.results.provenance import Stopwatch
from hafabench.results.record import ImportSource, Metric, Record, write_record
from hafabench.static_rows import counts_fingerprint, counts_record

if TYPE_CHECKING:  # torch is imported when it is needed
    from hafabench.engines.checkpoint import Fill
    from hafabench.engines.foreign import ForeignWeights


def record_evaluation(experiment: Experiment, run: Run, evaluate: Callable[..., list[Metric]]) -> Record:
    """Evaluate the run's final checkpoint with ``evaluate`` and write ``run.predictions`` and ``run.record``."""
    from hafabench.engines.checkpoint import expect_meta, load_checkpoint
    from hafabench.measure.machine import this_machine

    watch = Stopwatch()
    meta = load_checkpoint(run.checkpoint).get("meta", {})
    expect_meta(run.checkpoint, {"meta": meta}, run=run.id, fingerprint=run.fingerprint)
    metrics = evaluate(run, run.checkpoint, keep=run.predictions)
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        verb="evaluate",
        id=run.id,
        fingerprint=run.fingerprint,
        metrics=metrics,
        provenance=watch.provenance(
            **_device(),
            checkpoint_sha256=sha256_of(run.checkpoint),
            dataset_digest=_dataset_digest(experiment, run.task),
        ),
        training=meta.get("training"),
        predictions_sha256=sha256_of(run.predictions),
        machine=this_machine(),
    )
    write_record(run.record, record)
    return record


def record_foreign(
    experiment: Experiment,
    run: Run,
    evaluate: Callable[[Run, Path, Fill], list[Metric]],
    weights: ForeignWeights,
    *,
    seed: int | None = None,
    replace: bool = False,
) -> Stored:
    """Evaluate weights from elsewhere as the run's model and write an imported record.

    The provenance is of the evaluation, which happened here; of the training nothing is known, so neither the run's
    fingerprint nor its seed is claimed.

    Args:
        seed: that the weights were trained with, where it is known.
        replace: take the place of earlier imports of the same numbers.

    Raises:
        UserError: for weights that do not fit, or numbers that were imported already.
    """
    watch = Stopwatch()
    digest = sha256_of(weights.file)
    if not replace:
        refuse_earlier(experiment, run.task, run.model.name, seed, digest)
    metrics = evaluate(run, weights.file, weights.fill)
    note = f"weights from {weights.file.name} (sha256 {digest[:12]}), evaluated here"
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        origin="imported",
        verb="evaluate",
        id=imported_id(run.task, run.model.name, seed),
        fingerprint=imported_fingerprint(experiment, "evaluate", run.task),
        metrics=[
            metric.model_copy(update={"seed": seed, "convention": f"{metric.convention}; {note}"})
            for metric in metrics
        ],
        provenance=watch.provenance(
            **_device(),
            checkpoint_sha256=digest,
            dataset_digest=_dataset_digest(experiment, run.task),
        ),
        source=ImportSource(kind="weights", file=str(weights.file), sha256=digest, read=weights.read, imported=now()),
    )
    (stored,) = store_records(experiment, [record], replace=replace)
    return stored


def record_complexity(experiment: Experiment, task: str) -> Record:
    """Count every model that the tables need for ``task`` and write the record."""
    from hafabench.measure import complexity

    watch = Stopwatch()
    config = experiment.config.complexity
    models = complexity_models(experiment, task)
    metrics = complexity.metrics(models, task, config.image_size[task], config.num_classes[task])
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        verb="complexity",
        id=f"complexity/{task}",
        fingerprint=complexity_fingerprint(experiment, task),
        metrics=metrics,
        provenance=watch.provenance(device="meta", threads=1),
    )
    write_record(complexity_record(experiment, task), record)
    return record


def record_counts(experiment: Experiment, announce: Callable[[str], None]) -> Counts:
    """Take apart every model that static claims are about and write the record; ``announce`` hears of each."""
    counts = _count(experiment, announce)
    write_counts(counts_record(experiment), counts)
    return counts


def counts_of(experiment: Experiment, announce: Callable[[str], None]) -> Counts:
    """The record of `record_counts` where it is there; else the same counted now, and not written."""
    return read_current(counts_record(experiment), counts_fingerprint(experiment)) or _count(experiment, announce)


def _count(experiment: Experiment, announce: Callable[[str], None]) -> Counts:
    from hafabench.measure.counting import count_rows

    watch = Stopwatch()
    cells = count_rows(experiment, announce)
    return Counts(
        experiment=experiment.name,
        fingerprint=counts_fingerprint(experiment),
        cells=cells,
        provenance=watch.provenance(device="meta", threads=1),
    )


def record_latency(experiment: Experiment, group: LatencyConfig) -> Record:
    """Time one group and write the record."""
    from hafabench.measure import latency

    watch = Stopwatch()
    models = {name: experiment.models[name] for name in [group.baseline, *group.models]}
    measured = latency.measure(group, models)
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        verb="latency",
        id=f"latency/{group.name}",
        fingerprint=latency_fingerprint(experiment, group),
        metrics=measured.metrics,
        provenance=watch.provenance(**{**_device(), **({"threads": group.threads} if group.threads else {})}),
        machine=measured.machine,
        warnings=measured.warnings,
    )
    write_record(latency_record(experiment, group), record)
    return record


def _device() -> dict[str, str | int]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": device, "threads": torch.get_num_threads()}


def _dataset_digest(experiment: Experiment, task: str) -> str | None:
    """The digest that `hafabench data prepare` verified, or None where it has not run."""
    path = dataset_report(experiment, task)
    if not path.is_file():
        return None
    return read_report(path).digest
