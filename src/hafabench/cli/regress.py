"""The verb of the regression gate."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path

import click

from hafabench.errors import UserError

# Told apart by CI: a regression is 1, as is what cannot be told under --strict; what could not be compared is 2.
WORSE, MISUSE = 1, 2


@click.command()
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    default=Path("results/baseline"),
    show_default=True,
    help="Folder of the records to compare with.",
)
@click.option(
    "--candidate", type=click.Path(path_type=Path), required=True, help="Folder of the records that are judged."
)
@click.option(
    "--limits",
    type=click.Path(path_type=Path),
    default=Path("configs/regression.yaml"),
    show_default=True,
    help="Which metrics are judged, and what change matters.",
)
@click.option("--strict", is_flag=True, help="Fail where it cannot be told, too.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write a comment for a pull request.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--update", is_flag=True, help="Make the candidate the baseline, and say so in its history.")
@click.option("--reason", default="", help="Of --update: why, a sentence.")
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
    """Compare records with a baseline: per metric better, worse, no change or cannot tell.

    Exit codes: 0 nothing is worse, 1 something is worse or missing (with --strict: or cannot be told), 2 the two
    cannot be compared.
    """
    try:
        if reason and not update:
            raise UserError("--reason is about --update, which is not given")
        if update:
            _update(baseline, candidate, reason)
            return
        failed = _compare(baseline, candidate, limits, strict, markdown, junit)
    except UserError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(MISUSE)
    if failed:
        sys.exit(WORSE)


def _compare(
    baseline: Path, candidate: Path, limits: Path, strict: bool, markdown: Path | None, junit: Path | None
) -> bool:
    from hafabench.config.regression import load_limits
    from hafabench.files import write_text
    from hafabench.regression import report
    from hafabench.regression.compare import compare
    from hafabench.regression.records import load_side

    found = compare(load_side(baseline), load_side(candidate), load_limits(limits))
    click.echo(report.text(found))
    if markdown:
        write_text(markdown, report.markdown(found, "Regression gate", strict=strict))
    if junit:
        write_text(junit, report.junit(found, "regression", strict=strict))
    return found.failed(strict=strict)


def _update(baseline: Path, candidate: Path, reason: str) -> None:
    from hafabench.regression.baseline import move_baseline
    from hafabench.regression.records import load_side

    entry = move_baseline(baseline, load_side(candidate), reason=reason, who=_who())
    click.echo(f"{baseline} moved: {len(entry['changes'])} numbers changed; add it to the commit that explains them")


def _who() -> str:
    """The name that git would sign with, or the user's."""
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return getpass.getuser()
    return done.stdout.strip() or getpass.getuser()
