"""Verbs on one run: train it, evaluate it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hafabench.cli.options import experiment_option, find_run, load, set_threads, threads_option


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
        from hafabench.engines import classification

        return classification
    from hafabench.engines import dense

    return dense


def _pretty_json(content: object) -> str:
    import json

    return json.dumps(content, indent=2) + "\n"


@click.command()
@click.argument("run_id")
@experiment_option
@threads_option
def evaluate(run_id: str, experiment: Path, threads: int | None) -> None:
    """Evaluate a trained run on its validation split and write its record."""
    run = find_run(experiment, run_id)
    set_threads(threads)
    from hafabench.recording import record_evaluation

    record = record_evaluation(load(experiment), run, _engine(run.task).evaluate)
    for metric in record.metrics:
        click.echo(f"{run.id} {metric.name} {metric.value:.4g} {metric.unit}")
