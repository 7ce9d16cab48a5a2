"""The command that imports numbers that were measured elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hafabench.cli.options import experiment_option, load
from hafabench.config.bounds import MAX_IMPORTED_SEED
from hafabench.formatting.numbers import format_significant

if TYPE_CHECKING:
    from hafabench.config.recipes import Task


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@experiment_option
@click.option(
    "--kind", type=click.Choice(["timm", "mmengine", "csv"]), help="Format of the file.  [default: detected]"
)
@click.option(
    "--task",
    type=click.Choice(["classification", "segmentation", "detection"]),
    help="Task to read, if the log contains several.",
)
@click.option("--model", help="Name of the model, if the file does not contain it.")
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=MAX_IMPORTED_SEED),
    help="Seed of the training, if the file does not contain it.",
)
@click.option("--epoch", help="Epoch to read: last, best, or a number of the log.  [default: last]")
@click.option("--replace", is_flag=True, help="Replace earlier imports of the same numbers.")
def import_file(
    file: Path,
    experiment: Path,
    kind: str | None,
    task: Task | None,
    model: str | None,
    seed: int | None,
    epoch: str | None,
    replace: bool,
) -> None:
    """Import numbers that were measured elsewhere.

    FILE is timm's summary.csv, an OpenMMLab JSON log, or a CSV file. The numbers are written to records that are
    marked as imported. Tables show them with a dagger if nothing was measured in this project, and never average them
    with measured numbers. The command cannot check whether they belong to the data of this experiment.
    """
    from hafabench.imports.read import read_import
    from hafabench.imports.store import store_import
    from hafabench.runs.jobs import hafabench_command

    loaded = load(experiment)
    found = read_import(file, loaded, kind=kind, task=task, model=model, seed=seed, epoch=epoch)
    for stored in store_import(loaded, found, replace=replace):
        for metric in stored.record.metrics:
            click.echo(f"{stored.record.id} {metric.name} {format_significant(metric.value)} {metric.unit}")
        for path in stored.replaced:
            click.echo(f"  replaces {path}, which was deleted")
        source = stored.record.source
        click.echo(f"  {source.read if source else ''} -> {stored.path}")
        if stored.is_measured:
            click.echo(
                "  also measured in this project; tables show the measured number, `hafabench explain` shows both"
            )
    click.echo(f"`{hafabench_command(loaded, 'collect')}` adds them to the tables")
