"""The command line: thin verbs, the only thing that workflow rules call.

Every verb imports what it needs when it runs: ``--help`` and the verbs that only read configuration stay fast.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from hafabench import __version__
from hafabench.errors import Problem, UserError

DEFAULT_EXPERIMENT = Path("configs/digits.yaml")

experiment_option = click.option(
    "--experiment",
    "-e",
    type=click.Path(path_type=Path),
    default=DEFAULT_EXPERIMENT,
    show_default=True,
    help="The experiment's YAML file.",
)
threads_option = click.option("--threads", type=click.IntRange(min=1), help="CPU threads for torch.")
task_argument = click.argument("task", type=click.Choice(["classification", "segmentation", "detection"]))


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""
\b
A first look:
  hafabench check                                  is the embedded experiment in order?
  hafabench runs                                   what it trains, and what is there already
  hafabench train classification/pvt_tiny/seed0    one run, by hand
  hafabench complexity pvt_tiny_hafa --format csv  parameters and multiply-accumulates
The whole of it:
  snakemake all --profile workflow/profiles/local  train, evaluate, measure, make Tables 1-6
""",
)
@click.version_option(__version__, prog_name="hafabench")
def cli() -> None:
    """Reproduce Tables 1-6 of "Building Vision Transformers with Hierarchy Aware Feature Aggregation" (ICCV 2023).

    An experiment (configs/*.yaml) says which models train on which data; every verb takes it with --experiment.
    A run is named task/model/seed. Its folder under results/ holds its checkpoint, history and records; tables are
    made from records alone.
    """


def _set_threads(threads: int | None) -> None:
    """Fix the size of every thread pool; must happen before torch is imported."""
    if threads is not None:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(threads)


def _load(experiment: Path):
    from hafabench.config import load_experiment

    return load_experiment(experiment)


def _find_run(experiment: Path, run_id: str):
    from difflib import get_close_matches

    from hafabench.matrix import expand

    runs = expand(_load(experiment))
    if run_id not in runs:
        near = get_close_matches(run_id, runs, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`hafabench runs` lists them"
        raise UserError(Problem(str(experiment), "", f"no run {run_id!r} in this experiment; {hint}"))
    return runs[run_id]


@cli.command()
@experiment_option
@click.option("--data/--no-data", default=True, help="Also look for the data sets' folders.")
def check(experiment: Path, data: bool) -> None:
    """Check an experiment file and everything it names; exit code 1 where something is wrong or missing."""
    from hafabench.data.verify import missing_datasets
    from hafabench.matrix import expand

    loaded = _load(experiment)
    runs = expand(loaded)
    click.echo(f"{experiment}: {len(runs)} runs, {len(loaded.layouts)} tables, configuration in order")
    missing = missing_datasets(loaded.config.datasets) if data else []
    if missing:
        raise UserError([Problem(str(experiment), "datasets", sentence) for sentence in missing])


@cli.command()
def models() -> None:
    """List every model of the tables with its family and mergers."""
    from hafabench.catalog import CATALOG

    width = max(map(len, CATALOG))
    for spec in CATALOG.values():
        mergers = "-".join(spec.mergers[1:]) if spec.is_plugin else "own grid"
        note = "" if spec.available else "  (not built yet)"
        click.echo(f"{spec.name:{width}}  {spec.family:10}  {mergers:14} {spec.variant:4} {spec.fidelity}{note}")


@cli.command()
@experiment_option
def runs(experiment: Path) -> None:
    """List an experiment's runs with their fingerprints and what is there of each."""
    from hafabench.matrix import expand

    for run in expand(_load(experiment)).values():
        state = "evaluated" if run.record.exists() else "trained" if run.checkpoint.exists() else "-"
        if state == "-" and run.work.exists():
            state = "interrupted"
        click.echo(f"{run.fingerprint}  {state:11}  {run.id}")


@cli.group()
def data() -> None:
    """Make, verify and look at data sets."""


@data.command("prepare")
@task_argument
@experiment_option
def data_prepare(task: str, experiment: Path) -> None:
    """Make the task's data set where it can be made, verify it in any case, and write a report of it."""
    from hafabench.data.verify import prepare_dataset
    from hafabench.matrix import dataset_report

    loaded = _load(experiment)
    prepare_dataset(_dataset(loaded, task), dataset_report(loaded, task))


@data.command("verify")
@task_argument
@experiment_option
def data_verify(task: str, experiment: Path) -> None:
    """Verify the task's data set: folders, counts, annotations, decodable images."""
    from hafabench.data.verify import verify_dataset

    report = verify_dataset(_dataset(_load(experiment), task))
    click.echo(report.summary())


@data.command("preview")
@task_argument
@experiment_option
@click.option("--output", "-o", type=click.Path(path_type=Path), help="PNG to write [reports/.../preview_TASK.png].")
def data_preview(task: str, experiment: Path, output: Path | None) -> None:
    """Draw a contact sheet of a data set with its labels, boxes and masks."""
    from hafabench.data.preview import draw_preview

    loaded = _load(experiment)
    output = output or loaded.reports / f"preview_{task}.png"
    draw_preview(_dataset(loaded, task), output)
    click.echo(f"wrote {output}")


def _dataset(loaded, task: str):
    if task not in loaded.config.datasets:
        raise UserError(Problem(str(loaded.file), "datasets", f"no entry for {task}"))
    return loaded.config.datasets[task]


@cli.command()
@click.argument("run_id")
@experiment_option
@threads_option
@click.option("--processes", type=click.IntRange(min=1), default=1, help="Training processes on this node (GPUs).")
def train(run_id: str, experiment: Path, threads: int | None, processes: int) -> None:
    """Train one run, or resume it from its last checkpoint, up to its final checkpoint."""
    run = _find_run(experiment, run_id)
    _set_threads(threads)
    if processes > 1 and "RANK" not in os.environ:
        _start_processes(processes)
    from hafabench.files import write_text

    if os.environ.get("RANK", "0") == "0":
        write_text(run.folder / "config.json", _pretty_json(run.resolved()))
    _engine(run.task).train(run)


def _start_processes(processes: int) -> None:
    """Replace this process by torchrun, which starts the same command ``processes`` times on this node."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [*launcher, "-m", "hafabench", *sys.argv[1:]])


def _engine(task: str):
    if task == "classification":
        from hafabench.engines import classification

        return classification
    from hafabench.engines import dense

    return dense


def _pretty_json(content: object) -> str:
    import json

    return json.dumps(content, indent=2) + "\n"


@cli.command()
@click.argument("run_id")
@experiment_option
@threads_option
def evaluate(run_id: str, experiment: Path, threads: int | None) -> None:
    """Evaluate a trained run on its validation split and write its record."""
    run = _find_run(experiment, run_id)
    _set_threads(threads)
    from hafabench.recording import record_evaluation

    record = record_evaluation(_load(experiment), run, _engine(run.task).evaluate)
    for metric in record.metrics:
        click.echo(f"{run.id} {metric.name} {metric.value:.4g} {metric.unit}")


@cli.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--task", type=click.Choice(["classification", "segmentation", "detection"]), default="classification")
@click.option("--format", "style", type=click.Choice(["text", "csv", "record"]), default="text", show_default=True)
@experiment_option
def complexity(names: tuple[str, ...], task: str, style: str, experiment: Path) -> None:
    """Count parameters and multiply-accumulates (MACs) of models at the experiment's full sizes, heads included.

    Without MODEL, all models of the task's tables. ``--format record`` writes the experiment's complexity record.
    """
    _set_threads(1)
    from hafabench.recording import record_complexity

    loaded = _load(experiment)
    if style == "record":
        if names:
            raise UserError("--format record counts all models of the tables; leave the names out")
        record = record_complexity(loaded, task)
        click.echo(f"complexity/{task}: {len({metric.model for metric in record.metrics})} models")
        return
    from hafabench.measure.complexity import table_rows

    for line in table_rows(loaded, list(names), task, style):
        click.echo(line)


@cli.command()
@click.argument("group")
@experiment_option
def latency(group: str, experiment: Path) -> None:
    """Measure one latency group: its models interleaved with their baseline in one process; writes a record."""
    loaded = _load(experiment)
    known = {entry.name: entry for entry in loaded.config.latency}
    if group not in known:
        message = f"no group {group!r}; expected one of {', '.join(known) or 'none'}"
        raise UserError(Problem(str(experiment), "latency", message))
    _set_threads(known[group].threads)
    from hafabench.recording import record_latency

    for metric in record_latency(loaded, known[group]).metrics:
        click.echo(
            f"{metric.model} {metric.name} {metric.value:.4g} {metric.unit} [{metric.low:.4g}, {metric.high:.4g}]"
        )


@cli.command()
@experiment_option
def collect(experiment: Path) -> None:
    """Collect the experiment's records into one tidy frame (parquet and CSV)."""
    from hafabench.results.collect import collect_experiment

    frame, missing = collect_experiment(_load(experiment))
    for path in missing:
        click.echo(f"not there yet: {path}", err=True)
    click.echo(f"{len(frame)} metrics of {frame['id'].nunique()} records; {len(missing)} records not there yet")


@cli.command()
@experiment_option
def report(experiment: Path) -> None:
    """Write Tables 1-6 (Markdown, LaTeX, CSV) and the figures from the collected frame."""
    from hafabench.cluster.costs import accounting_file, read_accounting, write_costs
    from hafabench.reporting.report import write_report

    loaded = _load(experiment)
    write_report(loaded)
    if accounting_file(loaded).exists():
        write_costs(read_accounting(accounting_file(loaded)), loaded.reports)
    click.echo(f"Tables 1-6: {loaded.reports}/tables.md (all six), {loaded.reports}/tables/table1.md, .tex, .csv ...")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("configs/paper.yaml"))
@click.option("--gpus", type=click.IntRange(min=1), default=8, show_default=True, help="GPUs to run on.")
@click.option("--budget", type=float, help="GPU-hours: choose the runs that settle the most claims for them.")
@click.option("--gpu-speed", type=float, default=1.0, help="Speed of one GPU against configs/throughput.yaml's.")
@click.option("--site", type=click.Path(path_type=Path), help="The site file [configs/site.yaml].")
@click.option("--format", "style", type=click.Choice(["markdown", "json", "targets"]), default="markdown")
@click.option("--listing", is_flag=True, help="Also every job, with what it asks for and what its estimate rests on.")
def plan(
    file: Path, gpus: int, budget: float | None, gpu_speed: float, site: Path | None, style: str, listing: bool
) -> None:
    """Plan an experiment before it is run: jobs, GPU-hours per table, critical path, disk, what an edit invalidates.

    ``--format targets`` prints the files to ask Snakemake for, so that exactly the runs chosen for --budget are run.
    """
    from hafabench.cluster.site import load_site, site_file
    from hafabench.plan.plan import make_plan
    from hafabench.plan.render import targets, to_json, to_markdown

    if gpu_speed <= 0:
        raise UserError(f"expected a GPU speed above zero, found {gpu_speed:g}")
    if style == "targets" and budget is None:
        raise UserError("--format targets lists the runs chosen for a budget; give --budget as well")
    loaded = _load(file)
    made = make_plan(loaded, gpus=gpus, budget=budget, site=load_site(site or site_file()), speed=gpu_speed)
    if style == "targets":
        click.echo("\n".join(targets(made, loaded.results)))
    else:
        click.echo(to_json(made) if style == "json" else to_markdown(made, listing=listing), nl=False)


@cli.command()
@experiment_option
@click.option("--all", "everything", is_flag=True, help="Also name the cells that wait or are done.")
def status(experiment: Path, everything: bool) -> None:
    """Show every cell: done, running (epoch, rate, time left, node), queued (why), failed (why, how to repeat it)."""
    from hafabench.cluster.status import experiment_status, render

    click.echo(render(experiment_status(_load(experiment)), everything=everything))


@cli.group()
def cluster() -> None:
    """Slurm: check a site before submitting, account for jobs, recover from a killed driver."""


@cluster.command("check")
@click.option(
    "--experiment", "-e", type=click.Path(path_type=Path), default=Path("configs/paper.yaml"), show_default=True
)
@click.option("--site", type=click.Path(path_type=Path), help="The site file [configs/site.yaml].")
@click.option(
    "--probe/--no-probe", default=True, help="Look at data and environment from compute nodes (a job of seconds)."
)
def cluster_check(experiment: Path, site: Path | None, probe: bool) -> None:
    """Compare the site file with the cluster; exit code 1 where jobs would fail or wait for ever."""
    from hafabench.cluster.check import check_cluster
    from hafabench.cluster.site import load_site, site_file

    problems = 0
    for finding in check_cluster(_load(experiment), load_site(site or site_file()), probe=probe):
        click.echo(str(finding))
        problems += finding.level == "problem"
    if problems:
        raise UserError(f"{problems} problems; nothing was submitted")


@cluster.command("account")
@experiment_option
@click.option("--days", type=click.IntRange(min=1), default=180, show_default=True, help="How far to look back.")
def cluster_account(experiment: Path, days: int) -> None:
    """Read what every cell has cost from Slurm's accounting; writes accounting.json and the cost tables."""
    from datetime import datetime, timedelta

    from hafabench.cluster.costs import update_accounting, write_costs
    from hafabench.cluster.pyslurm_backend import choose_accounting

    loaded = _load(experiment)
    backend, _ = choose_accounting()
    record = update_accounting(loaded, backend, datetime.now() - timedelta(days=days))
    paths = write_costs(record, loaded.reports)
    click.echo(f"{record.gpu_hours:.1f} GPU-hours of {len(record.cells)} cells: {', '.join(map(str, paths))}")


@cluster.command("recover")
@experiment_option
@click.option("--wait", "mode", flag_value="wait", help="Wait until the live jobs have ended, then unlock.")
@click.option("--cancel", "mode", flag_value="cancel", help="Cancel the live jobs, then unlock.")
def cluster_recover(experiment: Path, mode: str | None) -> None:
    """After a killed driver: show its live jobs, wait for or cancel them on request, and only then unlock."""
    from hafabench.cluster.recover import recover, unlock_command

    recover(Path.cwd(), unlock_command(experiment), mode or "show", click.echo)


def friendly(command: Callable[[], None]) -> Callable[[], None]:
    """Turn a `UserError` into its sentences on standard error and exit code 1."""

    @functools.wraps(command)
    def wrapped() -> None:
        try:
            command()
        except UserError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            sys.exit(1)

    return wrapped


@friendly
def main() -> None:
    """Entry point of the ``hafabench`` command."""
    cli(prog_name="hafabench")
