"""Verbs about the paper's claims: count what static ones are settled with, and say what became of all of them."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import experiment_option, load, set_threads

# Written out: importing the ledger for them would cost every `--help` a second.
VERDICTS = ("reproduced", "reproduced under a convention", "contradicted", "inconclusive", "not run")
FORMATS = ("text", "markdown", "csv", "json")


@click.command()
@experiment_option
def count(experiment: Path) -> None:
    """Take every model of the tables apart by kinds of parameters and operations; writes a record.

    The paper's static figures are settled with it, whatever convention they were counted under.
    """
    set_threads(1)
    from hafabench.measure.counts import record_counts

    counts = record_counts(load(experiment), _announce)
    click.echo(f"{len(counts.cells)} models")


@click.command()
@experiment_option
@click.option("--static", is_flag=True, help="Parameters and GFLOPs alone, which need no training.")
@click.option("--verdict", type=click.Choice(VERDICTS), multiple=True, help="Only claims of this verdict.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="text", show_default=True)
def claims(experiment: Path, static: bool, verdict: tuple[str, ...], style: str) -> None:
    """Settle every figure that the paper prints, as far as this experiment can.

    Measured figures are those of the collected frame. Models are counted now (half a minute) where `hafabench count`
    has not done it before.
    """
    set_threads(1)
    from hafabench.measure.counts import counts_of
    from hafabench.reporting.claims.render import FORMATS as RENDERERS
    from hafabench.reporting.claims.settle import frame_of, settle

    loaded = load(experiment)
    ledger = settle(loaded, counts_of(loaded, _announce), None if static else frame_of(loaded))
    shown = [ruling for ruling in ledger.rulings if not verdict or ruling.verdict in verdict]
    click.echo(RENDERERS[style](ledger, shown).rstrip("\n"))


def _announce(progress: str) -> None:
    click.echo(f"counting {progress}", err=True)
