"""The evaluation of a run, written as a record."""

from __future__ import annotations

from typing import Any

from hafabench.config.experiment import Experiment
from hafabench.data.report import compared_digest, dataset_digest
from hafabench.engines.engine import engine_for
from hafabench.engines.merger_measurement import measure_mergers
from hafabench.engines.trained import collapse_of, parameters_of, read_final
from hafabench.errors import Problem, UserError
from hafabench.files import remove_made, sha256_of
from hafabench.models.checkpoints.storage import expect_meta
from hafabench.results.machine import this_machine
from hafabench.results.predictions import made_outputs
from hafabench.results.provenance import Stopwatch, device_fields
from hafabench.results.record import Record, StartingFile, write_record
from hafabench.runs.lease import Lease, hold
from hafabench.runs.run import Run
from hafabench.runs.verified_data import data_changes


def record_evaluation(experiment: Experiment, run: Run, *, keep_outputs: bool = False) -> Record:
    """Evaluate the run's final checkpoint and write ``run.predictions`` and ``run.record``.

    If the training collapsed, the record contains this outcome instead of numbers, and there are no predictions.

    Args:
        experiment: The experiment.
        run: A trained run.
        keep_outputs: Whether detections or label maps are written to ``run.outputs``. Those of an earlier evaluation
            are removed in any case.

    Raises:
        UserError: If the checkpoint belongs to another run, was trained on other data than the verified data, or the
            data cannot be read. Also if another process trains or evaluates the run.
    """
    with hold(run, "evaluate") as lease:
        return _record_evaluation(experiment, run, lease, keep_outputs)


def _record_evaluation(experiment: Experiment, run: Run, lease: Lease | None, keep_outputs: bool) -> Record:
    watch = Stopwatch(experiment)
    content = read_final(run, run.checkpoint)
    expect_meta(run.checkpoint, content, run=run.id, fingerprint=run.fingerprint)
    meta = content["meta"]
    changes = data_changes(run, {"train": (meta.get("training") or {}).get("listing_digest")})
    if changes:
        advice = f"`hafabench train {run.id}` trains the run again"
        raise UserError(
            Problem(str(run.checkpoint), "", f"the data was verified again and has changed: {changes[0]}; {advice}")
        )
    collapse = collapse_of(content)
    check = lease.check if lease is not None else (lambda: None)
    is_made = made_outputs(run.predictions)
    listing_digest = None
    if collapse is None:
        listing_digest = compared_digest(run.dataset, "val", run.dataset_report)
        outputs = run.outputs if keep_outputs else None
        metrics = engine_for(run.task).evaluate(run, run.checkpoint, keep=run.predictions, outputs=outputs)
        check()
    else:
        metrics = []
        run.predictions.unlink(missing_ok=True)
    if collapse is not None or not keep_outputs:
        # Those of an earlier evaluation do not belong to the new record.
        remove_made(run.outputs, is_made)
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        verb="evaluate",
        id=run.id,
        fingerprint=run.fingerprint,
        metrics=metrics,
        provenance=watch.provenance(
            **device_fields(),
            checkpoint_sha256=sha256_of(run.checkpoint),
            dataset_digest=dataset_digest(experiment, run.task),
            listing_digest=listing_digest,
        ),
        training=meta.get("training"),
        predictions_sha256=sha256_of(run.predictions) if collapse is None else None,
        machine=this_machine(),
        collapse=collapse,
        starting_weights=_starting_file(run, meta),
        trained_params=parameters_of(run),
        mergers=measure_mergers(run, meta.get("initialised_from")) if collapse is None else None,
    )
    check()
    write_record(run.record, record)
    return record


def _starting_file(run: Run, meta: dict[str, Any]) -> StartingFile | None:
    """Return the published weights that a training started from, from the ``meta`` of its checkpoint."""
    origin = meta.get("initialised_from") or {}
    if "file" in origin:
        return StartingFile(**origin)
    if run.weights is None or run.weights.sha256 is None:
        return None
    # A training that collapsed stores no origin, but its fingerprint contains the digest.
    return StartingFile(file=str(run.weights.file), sha256=run.weights.sha256, read="")
