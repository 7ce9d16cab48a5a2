"""The command that checks the chain from an experiment to its numbers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hafabench.cli.options import experiment_option, load
from hafabench.errors import UserError
from hafabench.formatting.text import one_line

if TYPE_CHECKING:
    from hafabench.results.findings import LinkCheck

BROKEN, NOT_CHECKED = 1, 2
"""Exit codes: something does not hold, and the experiment could not be checked."""
BASELINE = Path("results/baseline")
_SECONDS_BETWEEN_REPORTS = 2.0


@click.command()
@experiment_option
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="Folder of the records that the regression gate compares with; results/baseline if it exists.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def audit(experiment: Path, baseline: Path | None, as_json: bool) -> None:
    """Check the whole chain of an experiment.

    The chain leads from the experiment over data, checkpoints, predictions and records to the frame, the tables, the
    report and the baseline of the regression gate. Every file is compared with what it was made from. Files that are
    not on this machine are not checked.

    The exit code is 0 if everything holds, 1 if something does not, and 2 if the experiment cannot be read.
    """
    from hafabench.audit.chain import audit as walk
    from hafabench.results.findings import do_hold

    try:
        loaded = load(experiment)
        if baseline is not None and not baseline.is_dir():
            raise UserError(f"{baseline}: no such folder; expected the records of a baseline")
        folder = baseline or (BASELINE if BASELINE.is_dir() else None)
        checks = []
        for check in walk(loaded, folder, _progress()):
            checks.append(check)
            if not as_json:
                _print(check)
    except UserError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(NOT_CHECKED)
    if as_json:
        click.echo(json.dumps(_as_json(loaded.name, checks), indent=2))
    elif do_hold(checks):
        click.echo(f"{loaded.name}: everything that was checked holds")
    else:
        number = sum(len(check.findings) for check in checks)
        click.echo(f"{loaded.name}: {number} {'finding' if number == 1 else 'findings'}")
    if not do_hold(checks):
        sys.exit(BROKEN)


def _print(check: LinkCheck) -> None:
    click.echo(f"{check.link:13}{check.sentence}")
    for finding in check.findings:
        click.echo(f"  {one_line(str(finding))}")


def _progress() -> Callable[[str], None]:
    shown = time.monotonic()

    def report(text: str) -> None:
        nonlocal shown
        if time.monotonic() - shown > _SECONDS_BETWEEN_REPORTS:
            shown = time.monotonic()
            click.echo(f"audit: {text}", err=True)

    return report


def _as_json(name: str, checks: list[LinkCheck]) -> dict[str, object]:
    links = [
        {
            "link": check.link,
            "things": check.things,
            "checked": check.checked,
            "broken": check.broken,
            "unchecked": check.unchecked,
            "findings": [{"file": found.file, "key": found.key, "says": found.says} for found in check.findings],
        }
        for check in checks
    ]
    return {
        "schema": "hafabench.audit/1",
        "experiment": name,
        "holds": not any(check.findings for check in checks),
        "links": links,
    }
