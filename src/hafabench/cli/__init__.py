"""The command line, the only part of the package that the rules of the workflow call.

Every command imports what it needs when it runs, so that ``--help`` and commands that only read configuration are
fast.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from hafabench import __version__
from hafabench.cli.audit import audit
from hafabench.cli.claims import claims, count
from hafabench.cli.cluster import cluster, plan, status
from hafabench.cli.configuration import check, models, runs
from hafabench.cli.data import data
from hafabench.cli.explain import explain
from hafabench.cli.failures import messages_of
from hafabench.cli.imports import import_file
from hafabench.cli.measure import complexity, latency
from hafabench.cli.pictures import pictures
from hafabench.cli.regress import regress
from hafabench.cli.results import collect, report, summary
from hafabench.cli.terminal import clean_up_on_signals, print_everywhere
from hafabench.cli.training import evaluate, train
from hafabench.formatting.text import one_line


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""
\b
A first look:
  hafabench check                                  check the embedded experiment
  hafabench runs                                   list its runs and their states
  hafabench train classification/pvt_tiny/seed0    train one run
  hafabench complexity pvt_tiny_hafa --format csv  count parameters and multiply-accumulates
The whole experiment:
  make demo                                        train, evaluate, measure, make Tables 1-6
""",
)
@click.version_option(__version__, prog_name="hafabench")
def cli() -> None:
    """Reproduce Tables 1-6 of "Building Vision Transformers with Hierarchy Aware Feature Aggregation" (ICCV 2023).

    An experiment (configs/*.yaml) defines which models are trained on which data. Most commands take its file with
    --experiment. A run is named task/model/seed. Its folder under results/ contains its checkpoint, history and
    record. Tables are made from records only.
    """


for _verb in (
    check,
    models,
    runs,
    data,
    train,
    evaluate,
    complexity,
    count,
    latency,
    import_file,
    collect,
    pictures,
    report,
    summary,
    audit,
    regress,
    explain,
    claims,
    plan,
    status,
    cluster,
):
    cli.add_command(_verb)


def friendly(command: Callable[[], None]) -> Callable[[], None]:
    """Print an error that the user can correct as messages and exit with code 1."""

    @functools.wraps(command)
    def wrapped() -> None:
        try:
            command()
        except Exception as error:
            messages = messages_of(error)
            if not messages:
                raise
            _exit_with(messages)

    return wrapped


def _exit_with(messages: Sequence[str]) -> NoReturn:
    for message in messages:
        # A message may contain names of files, which may contain line breaks.
        message = one_line(message)
        click.echo(message if message.startswith("note: ") else f"error: {message}", err=True)
    sys.exit(1)


@friendly
def main() -> None:
    """Entry point of the ``hafabench`` command."""
    print_everywhere()
    clean_up_on_signals()
    cli(prog_name="hafabench")
