"""Evaluates foreign weights and writes imported records of their metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.data.report import compared_digest, dataset_digest
from hafabench.engines.trained import parameters_of
from hafabench.files import sha256_of
from hafabench.imports.store import Stored, imported_id, imported_path, now, refuse_earlier, store_records
from hafabench.models.checkpoints.foreign import ForeignWeights
from hafabench.models.checkpoints.storage import Fill
from hafabench.results.machine import this_machine
from hafabench.results.provenance import Stopwatch, device_fields
from hafabench.results.record import ImportSource, Metric, Record, outputs_beside, predictions_beside
from hafabench.runs.fingerprints import imported_fingerprint
from hafabench.runs.run import Run


def record_foreign(
    experiment: Experiment,
    run: Run,
    evaluate: Callable[[Run, Path, Fill, Path, Path | None], list[Metric]],
    weights: ForeignWeights,
    *,
    seed: int | None = None,
    replace: bool = False,
    keep_outputs: bool = False,
) -> Stored:
    """Evaluate foreign weights as a run's model; write an imported record, and the predictions beside it.

    The provenance is that of the evaluation. Nothing is known about the training, so the record has neither the
    run's fingerprint nor its seed.

    Args:
        experiment: The experiment.
        run: The run whose model and data set are used.
        evaluate: The evaluation of the run's task.
        weights: The foreign weights.
        seed: The seed of their training, if known.
        replace: Whether earlier imports of the same numbers are replaced.
        keep_outputs: Whether detections or label maps are written to a folder beside the record.

    Raises:
        UserError: If the weights do not fit, or the numbers were imported before.
    """
    watch = Stopwatch(experiment)
    digest = sha256_of(weights.file)
    if not replace:
        refuse_earlier(experiment, run.task, run.model.name, seed, digest)
    listing_digest = compared_digest(run.dataset, "val", run.dataset_report)
    identifier = imported_id(run.task, run.model.name, seed)
    place = imported_path(experiment, "evaluate", identifier, digest)
    predictions = predictions_beside(place)
    metrics = evaluate(run, weights.file, weights.fill, predictions, outputs_beside(place) if keep_outputs else None)
    note = f"weights from {weights.file.name} (sha256 {digest[:12]}), evaluated here"
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        origin="imported",
        verb="evaluate",
        id=identifier,
        fingerprint=imported_fingerprint(experiment, "evaluate", run.task),
        metrics=[
            metric.model_copy(update={"seed": seed, "convention": f"{metric.convention}; {note}"})
            for metric in metrics
        ],
        provenance=watch.provenance(
            **device_fields(),
            checkpoint_sha256=digest,
            dataset_digest=dataset_digest(experiment, run.task),
            listing_digest=listing_digest,
        ),
        predictions_sha256=sha256_of(predictions),
        machine=this_machine(),
        trained_params=parameters_of(run),
        source=ImportSource(kind="weights", file=str(weights.file), sha256=digest, read=weights.read, imported=now()),
    )
    (stored,) = store_records(experiment, [record], replace=replace)
    return stored
