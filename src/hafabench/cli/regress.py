"""The command of the regression gate."""

from __future__ import annotations

import getpass
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from hafabench.cli.failures import messages_of
from hafabench.config.shipped import own_or_shipped
from hafabench.errors import UserError

FAILED, NOT_COMPARED = 1, 2
"""Exit codes: the gate failed, and the two folders could not be compared."""
TITLE, SUITE = "Regression gate", "regression"
"""The title of the Markdown report, and the name of the JUnit suite."""


@click.command()
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    default=Path("results/baseline"),
    show_default=True,
    help="Folder of the records to compare with.",
)
@click.option("--candidate", type=click.Path(path_type=Path), required=True, help="Folder of the records to check.")
@click.option(
    "--limits",
    type=click.Path(path_type=Path),
    default=lambda: own_or_shipped(Path("configs"), "regression.yaml"),
    show_default="configs/regression.yaml",
    help="File with the metrics to compare and their limits.",
)
@click.option("--strict", is_flag=True, help="Also fail if the result for a metric is 'cannot tell'.")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path),
    help="Write the changes as Markdown.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write the changes as JUnit XML.")
@click.option(
    "--update", is_flag=True, help="Replace the baseline by the candidate, with an entry in the baseline's history."
)
@click.option("--reason", default="", help="Why the baseline is replaced. Required with --update.")
def regress(
    baseline: Path,
    candidate: Path,
    limits: Path,
    strict: bool,
    markdown: Path | None,
    junit: Path | None,
    update: bool,
    reason: str,
) -> None:
    """Compare the records of a candidate with a baseline.

    The result for each metric is better, worse, no change, or cannot tell. The exit code is 0 if nothing is worse, 1
    if a metric is worse or missing (with --strict also for cannot tell), and 2 if the two cannot be compared.
    """
    # Python's own exit code after an error is 1, which here means that something is worse.
    try:
        if reason and not update:
            raise UserError("--reason requires --update")
        if update:
            _update(baseline, candidate, limits, reason)
            return
        failed = _compare(baseline, candidate, limits, strict, markdown, junit)
    except Exception as error:
        messages = messages_of(error)
        if not messages:
            click.echo(traceback.format_exc(), err=True)
            messages = [f"hafabench failed: {type(error).__name__}: {error}"]
        _not_compared(messages, markdown, junit)
    if failed:
        sys.exit(FAILED)


def _not_compared(problems: Sequence[str], markdown: Path | None, junit: Path | None) -> NoReturn:
    """Print why there is no comparison, replace the reports of an earlier one, and exit."""
    from hafabench.files import write_text
    from hafabench.regression import report

    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    # A report that cannot be written may be one of the problems.
    with suppress(UserError, OSError):
        if markdown:
            write_text(markdown, report.markdown_of_problems(problems, TITLE))
        if junit:
            write_text(junit, report.junit_of_problems(problems, SUITE))
    sys.exit(NOT_COMPARED)


def _compare(
    baseline: Path, candidate: Path, limits: Path, strict: bool, markdown: Path | None, junit: Path | None
) -> bool:
    from hafabench.config.regression import load_limits
    from hafabench.files import write_text
    from hafabench.regression import report
    from hafabench.regression.baseline import read_baseline, refuse_exchanged
    from hafabench.regression.changes import find_changes
    from hafabench.regression.records import read_records

    refuse_exchanged(baseline, candidate)
    changes = find_changes(read_baseline(baseline), read_records(candidate), load_limits(limits))
    click.echo(report.text(changes))
    if markdown:
        write_text(markdown, report.markdown(changes, TITLE, strict=strict))
    if junit:
        write_text(junit, report.junit(changes, SUITE, strict=strict))
    return changes.failed(strict=strict)


def _update(baseline: Path, candidate: Path, limits: Path, reason: str) -> None:
    from hafabench.config.regression import load_limits
    from hafabench.regression.baseline import replace_baseline
    from hafabench.regression.changes import undecided
    from hafabench.regression.records import read_records

    records = read_records(candidate)
    unknown = undecided(records, load_limits(limits))
    entry = replace_baseline(baseline, records, reason=reason, who=_who())
    click.echo(
        f"{baseline} was replaced and {len(entry['changes'])} numbers changed; "
        "commit it with the change that explains them"
    )
    if unknown:
        named = ", ".join(map(str, unknown))
        click.echo(
            f"note: even without any change the gate cannot tell for {named}; predictions, more seeds or rounds help"
        )


def _who() -> str:
    """Return the user's name in git's configuration, or the login name."""
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return getpass.getuser()
    return done.stdout.strip() or getpass.getuser()
