"""The command that explains where a number comes from."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import experiment_option, load


@click.command()
@click.argument("locator")
@experiment_option
@click.option("--format", "style", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
def explain(locator: str, experiment: Path, style: str) -> None:
    """Show the source of a number in a table.

    The output includes the command that reproduces the number. LOCATOR is table/row/column, as in the claims, for
    example table2/pvt_small_hafa/miou, or table2/pvt_small_hafa/miou_delta for the difference from the baseline.
    """
    from hafabench.explain.explain import explain as build_explanation
    from hafabench.explain.render import to_json, to_markdown, to_text

    render = {"text": to_text, "markdown": to_markdown, "json": to_json}[style]
    click.echo(render(build_explanation(load(experiment), locator)), nl=False)
