"""Commands that count the models for the static claims and settle the claims of the paper."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import attempt, experiment_option, load, report_left_out, set_threads
from hafabench.config.verdicts import VERDICTS

FORMATS = ("text", "markdown", "csv", "json")


@click.command()
@experiment_option
def count(experiment: Path) -> None:
    """Count parameters and operations of all models by kind.

    The counts of every model in the tables are written to a record. `hafabench claims` uses it to check the paper's
    parameter counts and GFLOPs under every counting convention.
    """
    set_threads(1)
    from hafabench.measure.counts import record_counts

    loaded = load(experiment)
    with attempt(loaded, "count_conventions"):
        counts = record_counts(loaded, _report_progress)
    click.echo(f"{len(counts.models)} models")


@click.command()
@experiment_option
@click.option("--static", is_flag=True, help="Show only parameters and GFLOPs, which need no training.")
@click.option("--verdict", type=click.Choice(VERDICTS), multiple=True, help="Show only claims with this verdict.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="text", show_default=True)
def claims(experiment: Path, static: bool, verdict: tuple[str, ...], style: str) -> None:
    """Compare the paper's figures with the experiment's results.

    Measured values are read from the frame that `hafabench collect` writes. If `hafabench count` has not been run,
    the models are counted first, which takes half a minute.
    """
    set_threads(1)
    from hafabench.measure.counts import read_or_count
    from hafabench.reporting.claims.output import FORMATS as RENDERERS
    from hafabench.reporting.frame import empty_frame, read_frame
    from hafabench.reporting.report import Report, report_of
    from hafabench.runs.paths import frame_files

    loaded = load(experiment)
    file, _ = frame_files(loaded)
    frame = read_frame(file) if file.is_file() and not static else empty_frame()
    counted = read_or_count(loaded, _report_progress)
    report = Report(loaded, frame, counted) if static else report_of(loaded, frame, counted)
    report_left_out(report)
    ledger = report.ledger.static_only() if static else report.ledger
    shown = [found for found in ledger.verdicts if not verdict or found.verdict in verdict]
    click.echo(RENDERERS[style](ledger, shown).rstrip("\n"))


def _report_progress(progress: str) -> None:
    click.echo(f"counting {progress}", err=True)
