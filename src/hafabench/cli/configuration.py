"""Commands that check an experiment and list models and runs."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import experiment_option, load
from hafabench.errors import Problem, UserError


@click.command()
@experiment_option
@click.option(
    "--data/--no-data",
    default=True,
    help="Also check that the folders of the data sets exist, and that published weights fit their models.",
)
def check(experiment: Path, data: bool) -> None:
    """Check an experiment file and all files that it names.

    Warnings name learning rates that do not fit the batch size. The exit code is 1 if something is wrong or missing.
    """
    from hafabench.data.prepare import missing_datasets
    from hafabench.runs.experiment_file import check_data_folders
    from hafabench.runs.learning_rates import learning_rate_warnings
    from hafabench.runs.run import expand

    loaded = load(experiment)
    check_data_folders(loaded)
    runs = expand(loaded)
    click.echo(f"{experiment}: {len(runs)} runs, {len(loaded.table_layouts)} tables")
    for warning in learning_rate_warnings(loaded, runs.values()):
        click.echo(f"warning: {warning}", err=True)
    missing = missing_datasets(loaded.config.datasets) if data else {}
    problems: list[Problem | str] = [
        Problem(str(experiment), "datasets", sentence) for sentences in missing.values() for sentence in sentences
    ]
    if data and any(run.weights for run in runs.values()):
        # torch is imported only if there are weights to read.
        from hafabench.models.checkpoints.starting import check_starting_weights

        try:
            check_starting_weights(runs.values())
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    click.echo("no problems found")


@click.command()
def models() -> None:
    """List all models with their mergers or keep rates."""
    from hafabench.config.catalog import CATALOG

    width = max(map(len, CATALOG))
    for spec in CATALOG.values():
        click.echo(
            f"{spec.name:{width}}  {spec.family:12}  {spec.query_mode:4} {spec.fidelity:15} {spec.description}"
        )


@click.command()
@experiment_option
def runs(experiment: Path) -> None:
    """List the runs of an experiment with fingerprint and state."""
    from hafabench.runs.run import expand
    from hafabench.runs.state import run_states

    states = run_states(expand(load(experiment)).values())
    width = max(map(len, states), default=0)
    for name, state in states.items():
        changes = "; ".join(state.changes)
        click.echo(f"{state.run.fingerprint}  {state.state:11}  {name:{width}}  {changes}".rstrip())
