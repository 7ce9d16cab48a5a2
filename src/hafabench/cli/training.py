"""Verbs on one run: train it, evaluate it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hafabench.cli.options import experiment_option, find_run, load, set_threads, threads_option
from hafabench.errors import UserError


@click.command()
@click.argument("run_id")
@experiment_option
@threads_option
@click.option("--processes", type=click.IntRange(min=1), default=1, help="Training processes on each node (GPUs).")
@click.option(
    "--nodes", type=click.IntRange(min=1), default=1, help="Nodes of a Slurm job on each of which srun started this."
)
def train(run_id: str, experiment: Path, threads: int | None, processes: int, nodes: int) -> None:
    """Train one run, or resume it from its last checkpoint, up to its final checkpoint."""
    run = find_run(experiment, run_id)
    set_threads(threads)
    if (processes > 1 or nodes > 1) and "RANK" not in os.environ:
        from hafabench.cli.launch import start_processes

        start_processes(processes, nodes)
    from hafabench.files import write_text

    if os.environ.get("RANK", "0") == "0":
        write_text(run.folder / "config.json", _pretty_json(run.resolved()))
    _engine(run.task).train(run)


def _engine(task: str):
    if task == "classification":
        from hafabench.engines.classification import engine as classification

        return classification
    from hafabench.engines.dense import engine as dense

    return dense


def _pretty_json(content: object) -> str:
    import json

    return json.dumps(content, indent=2) + "\n"


@click.command()
@click.argument("run_id")
@experiment_option
@threads_option
@click.option("--weights", type=click.Path(path_type=Path), help="Evaluate this checkpoint from elsewhere instead.")
@click.option("--part", help="Of --weights: the part that holds them (state_dict, model, ...), where in doubt.")
@click.option("--rename", "renames", multiple=True, metavar="OLD=NEW", help="Of --weights: beginnings of names.")
@click.option("--weights-seed", type=click.IntRange(min=0), help="Seed that --weights were trained with, if known.")
@click.option("--replace", is_flag=True, help="Of --weights: take the place of earlier imports of the same numbers.")
def evaluate(
    run_id: str,
    experiment: Path,
    threads: int | None,
    weights: Path | None,
    part: str | None,
    renames: tuple[str, ...],
    weights_seed: int | None,
    replace: bool,
) -> None:
    """Evaluate a trained run on its validation split and write its record.

    With --weights the run's model is evaluated with a checkpoint from elsewhere: raw or within state_dict or model,
    of this project, timm, OpenMMLab or the published PVT. The record is marked imported; the run stays as it is.
    """
    run = find_run(experiment, run_id)
    set_threads(threads)
    if weights is not None:
        _evaluate_foreign(experiment, run, weights, part, renames, weights_seed, replace)
        return
    if part or renames or replace or weights_seed is not None:
        raise UserError("--part, --rename, --weights-seed and --replace are about --weights, which is not given")
    from hafabench.engines.evaluation import record_evaluation

    record = record_evaluation(load(experiment), run, _engine(run.task).evaluate)
    for metric in record.metrics:
        click.echo(f"{run.id} {metric.name} {metric.value:.4g} {metric.unit}")


def _evaluate_foreign(
    experiment: Path, run, file: Path, part: str | None, renames: tuple[str, ...], seed: int | None, replace: bool
) -> None:
    wrong = [rename for rename in renames if not all(rename.partition("="))]
    if wrong:
        raise UserError(f"--rename {wrong[0]}: expected OLD=NEW")
    from hafabench.imports.weights import record_foreign
    from hafabench.models.checkpoints.foreign import ForeignWeights

    weights = ForeignWeights(file, part, dict(rename.split("=", 1) for rename in renames))
    stored = record_foreign(load(experiment), run, _engine(run.task).evaluate, weights, seed=seed, replace=replace)
    for metric in stored.record.metrics:
        click.echo(f"{stored.record.id} {metric.name} {metric.value:.4g} {metric.unit}")
    click.echo(f"  {weights.read} -> {stored.path}")
