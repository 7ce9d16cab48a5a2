"""The verb that brings in numbers from elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import experiment_option, load


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@experiment_option
@click.option("--kind", type=click.Choice(["timm", "mmengine", "csv"]), help="Of the file [what it looks like].")
@click.option("--task", type=click.Choice(["classification", "segmentation", "detection"]), help="Where in doubt.")
@click.option("--model", help="The trained model, where the file does not say it.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the training, where the file does not say it.")
@click.option("--epoch", "which", help="last, best, or a number as the log counts them [last].")
@click.option("--replace", is_flag=True, help="Take the place of earlier imports of the same numbers.")
def import_file(
    file: Path,
    experiment: Path,
    kind: str | None,
    task: str | None,
    model: str | None,
    seed: int | None,
    which: str | None,
    replace: bool,
) -> None:
    """Import numbers measured elsewhere: timm's summary.csv, an OpenMMLab JSON log, or a plain CSV.

    They become records marked imported, which tables show with a dagger where nothing was measured here and never
    average with measured ones. Nobody checks that they are about this experiment's data: that is the importer's word.
    """
    from hafabench.imports.read import read_import
    from hafabench.imports.store import store_import

    loaded = load(experiment)
    found = read_import(file, loaded, kind=kind, task=task, model=model, seed=seed, which=which)
    for stored in store_import(loaded, found, replace=replace):
        for metric in stored.record.metrics:
            click.echo(f"{stored.record.id} {metric.name} {metric.value:.6g} {metric.unit}")
        for path in stored.replaced:
            click.echo(f"  replaces {path}, deleted")
        click.echo(f"  {stored.record.source.read} -> {stored.path}")
        if stored.is_measured:
            click.echo("  measured here as well: tables show what was measured, `hafabench explain` both")
    click.echo(f"`hafabench collect --experiment {experiment}` takes them into the tables")
