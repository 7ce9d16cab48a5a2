"""Verbs around a cluster: plan, watch, check, account, recover."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import ExperimentPath, experiment_option, load
from hafabench.errors import UserError


@click.command()
@click.argument("file", type=ExperimentPath(), default=Path("configs/paper.yaml"))
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
    from hafabench.config.site import load_site, site_file
    from hafabench.plan.plan import make_plan
    from hafabench.plan.render import targets, to_json, to_markdown

    if gpu_speed <= 0:
        raise UserError(f"expected a GPU speed above zero, found {gpu_speed:g}")
    if style == "targets" and budget is None:
        raise UserError("--format targets lists the runs chosen for a budget; give --budget as well")
    loaded = load(file)
    made = make_plan(loaded, gpus=gpus, budget=budget, site=load_site(site or site_file()), speed=gpu_speed)
    if style == "targets":
        click.echo("\n".join(targets(made, loaded.results)))
    else:
        click.echo(to_json(made) if style == "json" else to_markdown(made, listing=listing), nl=False)


@click.command()
@experiment_option
@click.option("--all", "everything", is_flag=True, help="Also name the cells that wait or are done.")
@click.option("--failed", is_flag=True, help="Only failed and interrupted cells, for when the driver has ended.")
def status(experiment: Path, everything: bool, failed: bool) -> None:
    """Show every cell: done, running (epoch, rate, time left, node), queued (why), failed (why, how to repeat it)."""
    from hafabench.cluster.status import experiment_status, render, render_failed

    found = experiment_status(load(experiment), **({"fresh_s": 0} if failed else {}))
    click.echo(render_failed(found) if failed else render(found, everything=everything))


@click.group()
def cluster() -> None:
    """Slurm: check a site before submitting, account for jobs, recover from a killed driver."""


@cluster.command("check")
@experiment_option(default=Path("configs/paper.yaml"))
@click.option("--site", type=click.Path(path_type=Path), help="The site file [configs/site.yaml].")
@click.option(
    "--probe/--no-probe", default=True, help="Look at data and environment from compute nodes (a job of seconds)."
)
def cluster_check(experiment: Path, site: Path | None, probe: bool) -> None:
    """Compare the site file with the cluster; exit code 1 where jobs would fail or wait for ever."""
    from hafabench.cluster.check import check_cluster
    from hafabench.config.site import load_site, site_file

    problems = 0
    for finding in check_cluster(load(experiment), load_site(site or site_file()), probe=probe):
        click.echo(str(finding))
        problems += finding.level == "problem"
    if problems:
        raise UserError(f"{problems} problems; nothing was submitted")


@cluster.command("account")
@experiment_option
@click.option("--days", type=click.IntRange(min=1), default=180, show_default=True, help="How far to look back.")
@click.option(
    "--wait", type=click.FloatRange(min=0), default=0, help="Seconds to wait for the ends of jobs: it lags."
)
def cluster_account(experiment: Path, days: int, wait: float) -> None:
    """Read what every cell has cost from Slurm's accounting; writes accounting.json and the cost tables."""
    from datetime import datetime, timedelta

    from hafabench.cluster.costs import settled_accounting, write_costs
    from hafabench.cluster.pyslurm_backend import choose_accounting

    loaded = load(experiment)
    backend, _ = choose_accounting()
    record = settled_accounting(loaded, backend, datetime.now() - timedelta(days=days), wait)
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
