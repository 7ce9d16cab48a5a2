"""Commands that collect records and write the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from hafabench.cli.options import attempt, experiment_option, load, report_left_out


@click.command()
@experiment_option
@click.option("--partial", is_flag=True, help="Leave out records that cannot be used.")
def collect(experiment: Path, partial: bool) -> None:
    """Collect the records of an experiment into one frame.

    The frame contains all metrics and is written as Parquet and CSV. A record cannot be used if it was edited, was
    made under another configuration, or does not follow from the files beside it. With --partial such records are
    named and left out. The workflow does so after a failure, and its next run makes an incomplete frame again.
    """
    from hafabench.reporting.frame import collect_experiment
    from hafabench.results.findings import Finding

    loaded = load(experiment)
    with attempt(loaded, "collect_records"):
        left_out: list[Finding] = []
        frame, missing = collect_experiment(loaded, partial=partial, left_out=left_out)
    for finding in left_out:
        click.echo(f"left out: {finding}", err=True)
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
    from hafabench.audit.chain import audit_records
    from hafabench.reporting.html.page import page_file
    from hafabench.reporting.report import build_report
    from hafabench.reporting.write import write_report

    loaded = load(experiment)
    with attempt(loaded, "write_report"):
        built = build_report(loaded, partial=partial)
        built = replace(built, audit=tuple(audit_records(loaded)))
        write_report(built)
    report_left_out(built)
    reports = built.experiment.reports
    click.echo(f"report: {page_file(built)}")
    layouts = built.experiment.table_layouts
    if layouts:
        click.echo(
            f"all {len(layouts)} tables: {reports}/tables.md; each: {reports}/tables/{layouts[0].id}.md, .tex, .csv"
        )


@click.command()
@experiment_option
def summary(experiment: Path) -> None:
    """Print the final numbers of the trained models.

    The table has a row per model, with the mean over its seeds and the difference from its baseline. The numbers are
    those of the report.
    """
    from hafabench.reporting.html.page import page_file
    from hafabench.reporting.report import build_report
    from hafabench.reporting.summary import final_numbers

    built = build_report(load(experiment), partial=True)
    numbers = final_numbers(built)
    click.echo(f"\n{numbers}\n" if numbers else "No model has been evaluated yet.")
    if page_file(built).is_file():
        click.echo(f"Report (any browser opens it offline): {page_file(built)}")
        click.echo(f"Tables: {built.experiment.reports}/tables.md, and as .md, .tex and .csv in its folder tables")
