"""Verbs from records to tables."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import experiment_option, load


@click.command()
@experiment_option
def collect(experiment: Path) -> None:
    """Collect the experiment's records into one tidy frame (parquet and CSV)."""
    from hafabench.reporting.frame import collect_experiment

    frame, missing = collect_experiment(load(experiment))
    for path in missing:
        click.echo(f"not there yet: {path}", err=True)
    click.echo(f"{len(frame)} metrics of {frame['id'].nunique()} records; {len(missing)} records not there yet")


@click.command()
@experiment_option
def report(experiment: Path) -> None:
    """Write Tables 1-6 (Markdown, LaTeX, CSV), comparisons, figures and one HTML page from the collected frame."""
    from hafabench.cluster.costs import accounting_file, read_accounting, write_costs
    from hafabench.reporting.html.page import write_page
    from hafabench.reporting.report import write_report

    loaded = load(experiment)
    write_report(loaded)
    if accounting_file(loaded).exists():
        write_costs(read_accounting(accounting_file(loaded)), loaded.reports)
    click.echo(f"report: {write_page(loaded)}")
    click.echo(f"Tables 1-6: {loaded.reports}/tables.md (all six), {loaded.reports}/tables/table1.md, .tex, .csv ...")
