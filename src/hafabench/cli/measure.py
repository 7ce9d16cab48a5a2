"""Commands that measure complexity and latency of models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hafabench.cli.options import attempt, experiment_option, load, set_threads
from hafabench.config.recipes import TASKS, Task
from hafabench.errors import Problem, UserError
from hafabench.formatting.numbers import format_significant

if TYPE_CHECKING:
    from hafabench.config.catalog import ModelSpec
    from hafabench.config.experiment import LatencyConfig


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--task", type=click.Choice(TASKS), default="classification", show_default=True)
@click.option("--format", "style", type=click.Choice(["text", "csv", "record"]), default="text", show_default=True)
@experiment_option
def complexity(names: tuple[str, ...], task: Task, style: Literal["text", "csv", "record"], experiment: Path) -> None:
    """Count parameters and multiply-accumulates (MACs) of models.

    The counts include the heads of the task, at the image sizes in the experiment's `complexity` entry. Without
    MODEL, all models of the task's tables are counted. ``--format record`` writes the experiment's complexity record.
    """
    set_threads(1)
    from hafabench.measure.complexity import record_complexity, table_rows

    loaded = load(experiment)
    if style != "record":
        for line in table_rows(loaded, list(names), task, style):
            click.echo(line)
        return
    if names:
        raise UserError("--format record counts all models of the tables; leave out MODEL")
    with attempt(loaded, "count_complexity", task):
        record = record_complexity(loaded, task)
    click.echo(f"complexity/{task}: {len({metric.model for metric in record.metrics})} models")


@click.command()
@click.argument("group")
@experiment_option
@click.option("--self-test", "self_test", is_flag=True, help="Compare the group's baseline with itself (A/A test).")
@click.option(
    "--trials",
    type=click.IntRange(min=1, max=10**6),
    default=100,
    show_default=True,
    help="Number of trials of the self-test.",
)
def latency(group: str, experiment: Path, self_test: bool, trials: int) -> None:
    """Measure the models of a latency group and write a record.

    The models and their baseline take turns in one process. With ``--self-test`` no record is written, and the exit
    code is 1 if a difference is found in more than 5 % of the trials.
    """
    loaded = load(experiment)
    known = {entry.name: entry for entry in loaded.config.latency}
    if group not in known:
        message = f"no group {group!r}; expected one of {', '.join(known) or 'none'}"
        raise UserError(Problem(str(experiment), "latency", message))
    set_threads(known[group].threads)
    if self_test:
        _self_test(known[group], loaded.models[known[group].baseline], trials)
        return
    from hafabench.measure.latency import record_latency

    with attempt(loaded, "measure_latency", group):
        record = record_latency(loaded, known[group])
    for metric in record.metrics:
        bounds = metric.interval or (float("-inf"), float("inf"))
        interval = ", ".join(map(format_significant, bounds))
        value = f"{format_significant(metric.value)} {metric.unit}"
        click.echo(f"{metric.model} {metric.name} {value} [{interval}]")
    for warning in record.warnings:
        click.echo(f"warning: {warning}", err=True)


def _self_test(group: LatencyConfig, spec: ModelSpec, number: int) -> None:
    from hafabench.measure.self_test import SelfTest, trials

    intervals = []
    for interval in trials(group, spec, number):
        intervals.append(interval)
        click.echo(
            f"trial {len(intervals)}/{number}: {spec.name} / {spec.name} = {interval.value:.4f} "
            f"[{interval.low:.4f}, {interval.high:.4f}]",
            err=True,
        )
    result = SelfTest(tuple(intervals))
    click.echo(str(result))
    if not result.passed:
        sys.exit(1)
