"""Commands for planning, watching and recovering experiments on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from hafabench.cli.options import ExperimentPath, FiniteFloat, experiment_option, load
from hafabench.config.bounds import MAX_GPUS
from hafabench.errors import UserError

# The largest speed of a GPU relative to another one, and the inverse of the smallest.
_FASTEST = 1e4


@click.command()
@click.argument("file", type=ExperimentPath(), default="paper")
@click.option(
    "--gpus", type=click.IntRange(min=1, max=MAX_GPUS), default=8, show_default=True, help="GPUs to schedule for."
)
@click.option(
    "--budget",
    type=FiniteFloat(max=1e12),
    help="Select the runs that settle the most claims within this number of GPU-hours.",
)
@click.option(
    "--gpu-speed",
    type=FiniteFloat(max=_FASTEST),
    default=1.0,
    show_default=True,
    help="Speed of a GPU relative to that of configs/throughput.yaml.",
)
@click.option("--site", type=click.Path(path_type=Path), help="The site file [default: configs/site.yaml].")
@click.option(
    "--format", "style", type=click.Choice(["markdown", "json", "targets"]), default="markdown", show_default=True
)
@click.option("--listing", is_flag=True, help="Also list every job with its request and the source of its estimate.")
def plan(
    file: Path, gpus: int, budget: float | None, gpu_speed: float, site: Path | None, style: str, listing: bool
) -> None:
    """Estimate jobs, GPU-hours, critical path and disk space.

    The plan of the experiment in FILE also lists stale results. ``--format targets`` prints the files to pass to
    Snakemake in order to run only the runs that --budget selects.
    """
    from hafabench.config.site import load_site, site_file
    from hafabench.plan.plan import make_plan
    from hafabench.plan.render import targets, to_json, to_markdown

    if gpu_speed < 1 / _FASTEST:
        raise UserError(f"expected a GPU speed above zero ({1 / _FASTEST:g} to {_FASTEST:g}), found {gpu_speed:g}")
    if style == "targets" and budget is None:
        raise UserError("--format targets lists the runs selected for a budget and requires --budget")
    loaded = load(file)
    made = make_plan(loaded, gpus=gpus, budget=budget, site=load_site(site or site_file()), speed=gpu_speed)
    if style == "targets":
        click.echo("\n".join(targets(made, loaded.results)))
    else:
        click.echo(to_json(made) if style == "json" else to_markdown(made, listing=listing), nl=False)


@click.command()
@experiment_option
@click.option("--all", "everything", is_flag=True, help="Also list the jobs that are to do or done.")
@click.option(
    "--failed", is_flag=True, help="List only failed and interrupted jobs. Use it after the driver has ended."
)
@click.option("--job", "jobs", multiple=True, help="With --failed: a job that the driver has given up; repeatable.")
@click.option("--command", help="The command that runs all jobs again [default: a complete run].")
def status(experiment: Path, everything: bool, failed: bool, jobs: tuple[str, ...], command: str | None) -> None:
    """Show the state of every job.

    Running jobs are shown with progress and node, queued jobs with the reason, and failed jobs with the reason and
    the command that repeats them.
    """
    from hafabench.cluster.status import experiment_status, render, render_failed
    from hafabench.runs.state import FRESH_S

    found = experiment_status(
        load(experiment), fresh_s=0 if failed else FRESH_S, given_up=jobs if failed else (), command=command
    )
    click.echo(render_failed(found) if failed else render(found, everything=everything))


@click.group()
def cluster() -> None:
    """Check a cluster, report costs, recover from a killed driver."""


@cluster.command("check")
@experiment_option(default="paper")
@click.option("--site", type=click.Path(path_type=Path), help="The site file [default: configs/site.yaml].")
@click.option(
    "--probe/--no-probe", default=True, help="Submit short jobs that look for data and environment on compute nodes."
)
def cluster_check(experiment: Path, site: Path | None, probe: bool) -> None:
    """Compare the site file with the cluster.

    The exit code is 1 if jobs would fail or wait forever.
    """
    from hafabench.cluster.check import check_cluster
    from hafabench.config.site import load_site, site_file

    problems = 0
    for finding in check_cluster(load(experiment), load_site(site or site_file()), probe=probe):
        click.echo(str(finding))
        problems += finding.level == "problem"
    if problems:
        raise UserError(
            f"{problems} problem{'s' if problems > 1 else ''}; correct what is wrong before you start the workflow"
        )


@cluster.command("account")
@experiment_option
@click.option(
    "--days",
    type=click.IntRange(min=1, max=36500),
    default=180,
    show_default=True,
    help="Number of past days to read.",
)
@click.option(
    "--wait",
    type=FiniteFloat(min=0, max=1e7),
    default=0,
    help="Longest time in seconds to wait until Slurm has recorded the end of all jobs.",
)
def cluster_account(experiment: Path, days: int, wait: float) -> None:
    """Report the costs of all jobs from Slurm's accounting.

    The command writes accounting.json and the cost tables.
    """
    from datetime import datetime, timedelta

    from hafabench.cluster.costs import complete_accounting, write_costs
    from hafabench.cluster.pyslurm_backend import choose_accounting

    loaded = load(experiment)
    backend, _ = choose_accounting()
    record = complete_accounting(loaded, backend, datetime.now() - timedelta(days=days), wait)
    paths = write_costs(record, loaded.reports)
    click.echo(f"{record.gpu_hours:.1f} GPU-hours of {len(record.jobs)} jobs: {', '.join(map(str, paths))}")


@cluster.command("recover")
@experiment_option
@click.option("--wait", "mode", flag_value="wait", help="Wait until the live jobs have ended, then remove the lock.")
@click.option(
    "--cancel",
    "mode",
    flag_value="cancel",
    help="End the live jobs, then remove the lock. Trainings on this machine save their state first.",
)
def cluster_recover(experiment: Path, mode: Literal["wait", "cancel"] | None) -> None:
    """Recover from a killed driver, on a cluster or on one machine.

    The command removes the lock of the folder if no job of the driver is live: no Slurm job, and no process of this
    machine. Without options, it only lists live jobs. Outputs of jobs that finished after the driver was killed are
    kept. Use this command instead of Snakemake's --unlock, which does not look for live jobs.
    """
    from hafabench.cluster.recover import recover
    from hafabench.runs.snakemake import unlock_command

    command = unlock_command(experiment)
    recover(Path.cwd(), command, mode or "show", click.echo, experiment=load(experiment))
