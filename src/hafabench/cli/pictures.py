"""The command that draws pictures of trained models."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import attempt, experiment_option, load, set_threads, threads_option


@click.command()
@experiment_option
@threads_option
def pictures(experiment: Path, threads: int | None) -> None:
    """Draw clusters, segmentations and sampling points.

    The pictures show SIA's clusters, segmentations with and without HAFA, and LAA's sampling points on validation
    images. The command needs the checkpoints of the experiment's first pair of segmentation runs and of one
    classification run. `hafabench report` includes the pictures in the report.
    """
    set_threads(threads)
    from hafabench.pictures.draw import draw_pictures

    loaded = load(experiment)
    with attempt(loaded, "draw_pictures"):
        index = draw_pictures(loaded)
    for sheet in (index.clusters, index.offsets):
        if sheet is not None:
            tiles = sum(len(row.tiles) for row in sheet.rows)
            click.echo(f"wrote {loaded.reports / 'figures' / sheet.file} and its {tiles} tiles")
    if index.clusters is None:
        click.echo("no clusters drawn: the experiment trains no segmentation pair of a baseline and a model with SIA")
    if index.offsets is None:
        click.echo("no sampling points drawn: the experiment trains no classifier with LAA")
