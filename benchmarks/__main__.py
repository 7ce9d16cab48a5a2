"""Run the benchmarks and print every goal with its measured value: ``python -m benchmarks``."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click

from benchmarks.rows import Row, markdown, update_page
from benchmarks.timing import THREADS, report_progress
from hafabench.cli import friendly
from hafabench.errors import UserError
from hafabench.results.machine import MachineWatch
from hafabench.results.provenance import Stopwatch

# Benchmark name to (module, function), in the order of the table. A module is imported when its benchmark runs.
BENCHMARKS = {
    "hafa_over_pvt": "modules",
    "variants_of_pvt_v2": "modules",
    "pvt_over_mmdet": "modules",
    "swin": "modules",
    "parts": "parts",
    "clustering": "clustering",
    "memory": "clustering",
    "compilation": "compilation",
    "training_loops": "training",
    "decoders": "loading",
    "loading": "loading",
    "evaluation": "evaluation",
    "imports": "workflow",
    "plans": "workflow",
    "second_run": "workflow",
    "records": "workflow",
    "demo": "workflow",
    "instrument": "instrument",
    "gate": "gate",
}


def function(name: str) -> Callable[[bool], Iterator[Row]]:
    """Return the benchmark of this name."""
    return getattr(import_module(f"benchmarks.{BENCHMARKS[name]}"), name)


def run_benchmark(name: str, quick: bool) -> Iterator[Row]:
    """Run one benchmark and yield its rows, or a row with the error, so that the other rows are kept."""
    try:
        yield from function(name)(quick)
    except Exception as error:
        traceback.print_exc()
        what = function(name).__doc__.splitlines()[0]
        yield Row(name, what, None, failure=f"failed: {type(error).__name__}: {str(error)[:200]}")


def describe_setup(watch: MachineWatch, quick: bool) -> str:
    """Describe the machine, the load, the software and the commit in one sentence."""
    machine = watch.state()
    provenance = Stopwatch().provenance(device="cpu", threads=THREADS)
    commit, dirty = provenance.git_commit, provenance.git_dirty
    load = f"load {machine.load[0]:g} to {machine.load[1]:g}" if machine.load else "load unknown"
    code = f"commit {commit[:7]}{' with changes' if dirty else ''}" if commit else "no commit"
    rough = "; rough figures (--quick)" if quick else ""
    software = f"Python {provenance.python}, torch {provenance.packages['torch']}"
    return f"{machine.cpu}, {machine.cores} cores, {load}; {software}; {code}{rough}."


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Run only this benchmark. Can be given several times.")
@click.option("--quick", is_flag=True, help="Use fewer repeats and leave out what takes many minutes.")
@click.option("--list", "list_names", is_flag=True, help="List the benchmarks and what they measure.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Also write the rows to this file as JSON."
)
@click.option("--update", type=click.Path(path_type=Path), help="Write the table between the markers in this file.")
def cli(only: tuple[str, ...], quick: bool, list_names: bool, json_file: Path | None, update: Path | None) -> None:
    """Measure every performance goal of the project and print a Markdown table."""
    if list_names:
        for name in BENCHMARKS:
            click.echo(f"{name:20} {function(name).__doc__.splitlines()[0]}")
        return
    if unknown := [name for name in only if name not in BENCHMARKS]:
        raise UserError(f"unknown benchmark {unknown[0]!r}; expected one of {', '.join(BENCHMARKS)}")
    watch, rows = MachineWatch(), []
    for name in only or BENCHMARKS:
        report_progress(f"{name} ...")
        start = time.perf_counter()
        for row in run_benchmark(name, quick):
            report_progress(f"  {row.what}: {row.figure} [{row.interval}] {row.goal} {row.verdict} {row.failure}")
            rows.append(row)
        report_progress(f"{name} took {time.perf_counter() - start:.0f} s")
    about = describe_setup(watch, quick)
    table = markdown(rows, about)
    click.echo(table)
    if json_file:
        json_file.write_text(json.dumps({"about": about, "rows": [row.as_json() for row in rows]}, indent=2) + "\n")
    if update:
        update_page(update, table)
    if failed := sum(bool(row.failure) for row in rows):
        raise UserError(f"{failed} of {len(only or BENCHMARKS)} benchmarks failed; the table names them")


@friendly
def main() -> None:
    """Run the command line."""
    cli(prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
