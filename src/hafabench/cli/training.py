"""Commands that train and evaluate one run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hafabench.cli.options import attempt, experiment_option, find_run, load, set_threads, threads_option
from hafabench.config.bounds import MAX_GPUS, MAX_IMPORTED_SEED, MAX_PROCESSES
from hafabench.errors import UserError
from hafabench.formatting.numbers import format_significant
from hafabench.runs.run import Run

if TYPE_CHECKING:
    from hafabench.runs.lease import Verb


@click.command()
@click.argument("run_id")
@experiment_option
@threads_option
@click.option(
    "--processes",
    type=click.IntRange(min=1, max=MAX_PROCESSES),
    default=1,
    show_default=True,
    help="Training processes per node, one per GPU.",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1, max=MAX_GPUS),
    default=1,
    show_default=True,
    help="Nodes of the Slurm job; srun starts this command on each.",
)
def train(run_id: str, experiment: Path, threads: int | None, processes: int, nodes: int) -> None:
    """Train one run up to its final checkpoint.

    An interrupted training resumes from its last state.
    """
    run = find_run(experiment, run_id)
    set_threads(threads)
    if (processes > 1 or nodes > 1) and "RANK" not in os.environ:
        from hafabench.cli.launch import start_processes

        start_processes(processes, nodes)
    with _leased(run, "train"), attempt(load(experiment), "train_run", run.id):
        from hafabench.engines.engine import engine_for

        engine_for(run.task).train(run)


@click.command()
@click.argument("run_id")
@experiment_option
@threads_option
@click.option(
    "--keep-outputs",
    is_flag=True,
    help="Also write the detections (COCO result files) or label maps (PNG) to the folder outputs beside the record.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Evaluate this checkpoint file instead.")
@click.option(
    "--part", help="With --weights: entry of the file to use (state_dict, model, ...), if there are several."
)
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="OLD=NEW",
    help="With --weights: replace a prefix of the names; can be repeated.",
)
@click.option(
    "--weights-seed",
    type=click.IntRange(min=0, max=MAX_IMPORTED_SEED),
    help="With --weights: seed of the training, if known.",
)
@click.option("--replace", is_flag=True, help="With --weights: replace earlier imports of the same numbers.")
def evaluate(
    run_id: str,
    experiment: Path,
    threads: int | None,
    keep_outputs: bool,
    weights: Path | None,
    part: str | None,
    renames: tuple[str, ...],
    weights_seed: int | None,
    replace: bool,
) -> None:
    """Evaluate a run on its validation split and write a record.

    With --weights, the run's model is evaluated with the weights in a file of this project, timm, OpenMMLab or the
    published PVT. The file contains a state dict, or one in an entry such as state_dict or model. The record is
    marked as imported. The run itself does not change, and the experiment need not train it.
    """
    run = find_run(experiment, run_id, is_trained=weights is None)
    set_threads(threads)
    if keep_outputs and run.task == "classification":
        raise UserError(f"--keep-outputs: {run.id} is a classification, which has no detections or label maps")
    if weights is not None:
        _evaluate_foreign(
            experiment, run, weights, part, renames, seed=weights_seed, replace=replace, keep_outputs=keep_outputs
        )
        return
    if part or renames or replace or weights_seed is not None:
        raise UserError("--part, --rename, --weights-seed and --replace require --weights")
    from hafabench.runs.attempts import is_job

    loaded = load(experiment)
    with _leased(run, "evaluate"), attempt(loaded, "evaluate_run", run.id):
        from hafabench.engines.evaluation import record_evaluation
        from hafabench.engines.finished import discard_kept

        record = record_evaluation(loaded, run, keep_outputs=keep_outputs)
        if is_job():
            # The workflow evaluates a run after it has noticed the end of the training.
            discard_kept(run)
        if record.collapse is not None:
            click.echo(f"{run.id}: {record.collapse.clause(run.id)}")
        for metric in record.metrics:
            click.echo(f"{run.id} {metric.name} {format_significant(metric.value)} {metric.unit}")
        for line in record.mergers.lines if record.mergers is not None else ():
            click.echo(f"{run.id} {line}")
        if keep_outputs and record.collapse is None:
            click.echo(f"wrote {run.outputs}")


@contextmanager
def _leased(run: Run, verb: Verb) -> Iterator[None]:
    """Hold the lease of a run. A job of the workflow waits for another holder; a command of a user is refused."""
    from hafabench.cluster.queue import has_ended, is_abandoned
    from hafabench.runs.attempts import is_job
    from hafabench.runs.lease import LeaseLost, hold, patience_of_job
    from hafabench.runs.snakemake import end_snakemake_of_slurm_job

    patience = patience_of_job() if is_job() else 0.0
    try:
        with hold(run, verb, patience=patience, has_ended=has_ended, is_abandoned=is_abandoned):
            yield
    except LeaseLost:
        if is_job():
            end_snakemake_of_slurm_job()
        raise


def _evaluate_foreign(
    experiment: Path,
    run: Run,
    file: Path,
    part: str | None,
    renames: tuple[str, ...],
    *,
    seed: int | None,
    replace: bool,
    keep_outputs: bool,
) -> None:
    wrong = [rename for rename in renames if not all(rename.partition("="))]
    if wrong:
        raise UserError(f"--rename {wrong[0]}: expected OLD=NEW")
    from hafabench.engines.engine import engine_for
    from hafabench.imports.weights import record_foreign
    from hafabench.models.checkpoints.foreign import ForeignWeights
    from hafabench.results.record import outputs_beside

    weights = ForeignWeights(file, part, dict(rename.split("=", 1) for rename in renames))
    evaluation = engine_for(run.task).evaluate
    stored = record_foreign(
        load(experiment), run, evaluation, weights, seed=seed, replace=replace, keep_outputs=keep_outputs
    )
    for metric in stored.record.metrics:
        click.echo(f"{stored.record.id} {metric.name} {format_significant(metric.value)} {metric.unit}")
    click.echo(f"  {weights.read} -> {stored.path}")
    if keep_outputs:
        click.echo(f"wrote {outputs_beside(stored.path)}")
