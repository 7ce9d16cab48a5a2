"""Verbs that measure models: complexity, latency."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import experiment_option, load, set_threads
from hafabench.errors import Problem, UserError


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--task", type=click.Choice(["classification", "segmentation", "detection"]), default="classification")
@click.option("--format", "style", type=click.Choice(["text", "csv", "record"]), default="text", show_default=True)
@experiment_option
def complexity(names: tuple[str, ...], task: str, style: str, experiment: Path) -> None:
    """Count parameters and multiply-accumulates (MACs) of models at the experiment's full sizes, heads included.

    Without MODEL, all models of the task's tables. ``--format record`` writes the experiment's complexity record.
    """
    set_threads(1)
    from hafabench.recording import record_complexity

    loaded = load(experiment)
    if style == "record":
        if names:
            raise UserError("--format record counts all models of the tables; leave the names out")
        record = record_complexity(loaded, task)
        click.echo(f"complexity/{task}: {len({metric.model for metric in record.metrics})} models")
        return
    from hafabench.measure.complexity import table_rows

    for line in table_rows(loaded, list(names), task, style):
        click.echo(line)


@click.command()
@click.argument("group")
@experiment_option
def latency(group: str, experiment: Path) -> None:
    """Measure one latency group: its models interleaved with their baseline in one process; writes a record."""
    loaded = load(experiment)
    known = {entry.name: entry for entry in loaded.config.latency}
    if group not in known:
        message = f"no group {group!r}; expected one of {', '.join(known) or 'none'}"
        raise UserError(Problem(str(experiment), "latency", message))
    set_threads(known[group].threads)
    from hafabench.recording import record_latency

    for metric in record_latency(loaded, known[group]).metrics:
        click.echo(
            f"{metric.model} {metric.name} {metric.value:.4g} {metric.unit} [{metric.low:.4g}, {metric.high:.4g}]"
        )
