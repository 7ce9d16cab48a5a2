"""Commands that collect records and write the report."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import attempt, experiment_option, load


@click.command()
@experiment_option
@click.option("--partial", is_flag=True, help="Leave out records that are stale or cannot be read.")
def collect(experiment: Path, partial: bool) -> None:
    """Collect the records of an experiment into one frame.

    The frame contains all metrics and is written as Parquet and CSV. With --partial it is made of the records that
    can be used. The workflow does so after a failure, and its next run makes an incomplete frame again.
    """
    from hafabench.reporting.frame import collect_experiment

    loaded = load(experiment)
    with attempt(loaded, "collect_records"):
        frame, missing = collect_experiment(loaded, partial=partial)
    for path in missing:
        click.echo(f"missing: {path}", err=True)
    click.echo(f"{len(frame)} metrics of {frame['id'].nunique()} records; {len(missing)} records are missing")


@click.command()
@experiment_option
@click.option("--partial", is_flag=True, help="Leave out a record of counts that is stale or cannot be read.")
def report(experiment: Path, partial: bool) -> None:
    """Write tables, comparisons, claims, figures and an HTML page.

    Tables 1-6 are written as Markdown, LaTeX and CSV.
    """
    from hafabench.reporting.html.page import page_file
    from hafabench.reporting.report import build_report
    from hafabench.reporting.write import write_report

    loaded = load(experiment)
    with attempt(loaded, "write_report"):
        built = build_report(loaded, partial=partial)
        write_report(built)
    reports = built.experiment.reports
    click.echo(f"report: {page_file(built)}")
    layouts = built.experiment.table_layouts
    if layouts:
        click.echo(
            f"all {len(layouts)} tables: {reports}/tables.md; each: {reports}/tables/{layouts[0].id}.md, .tex, .csv"
        )
