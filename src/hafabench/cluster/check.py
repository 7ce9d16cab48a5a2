"""A comparison of the cluster with the site file before jobs are submitted. Every finding is one sentence."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hafabench.cluster.commands import TIMEOUT_S, CommandFailed, Runner, run, slurm_release
from hafabench.cluster.findings import Finding, listed
from hafabench.cluster.nodes import check_pool, read_partitions
from hafabench.cluster.probe import node_options, probe_node
from hafabench.cluster.pyslurm_backend import choose_accounting
from hafabench.config.experiment import Experiment
from hafabench.config.site import Pool, Site
from hafabench.errors import UserError
from hafabench.formatting.durations import format_duration
from hafabench.runs.jobs import JobList
from hafabench.runs.resources import Resources
from hafabench.runs.snakemake import executor_resources, submission_problems

PROBE_WAIT_S = 60


def check_cluster(
    experiment: Experiment, site: Site, *, probe: bool = True, runner: Runner = run, wait_s: int = PROBE_WAIT_S
) -> Iterator[Finding]:
    """Yield findings about the cluster one after another.

    Args:
        experiment: The experiment whose jobs will run.
        site: The user's description of the cluster.
        probe: Whether to run a job of a few seconds on a compute node, which tests data and environment there.
        runner: Runs Slurm's commands.
        wait_s: How long the probe may wait for a node, in seconds.
    """
    try:
        major, minor = slurm_release(runner)
        partitions = read_partitions(runner)
    except CommandFailed as error:
        yield Finding("problem", "Slurm", str(error))
        return
    yield Finding("ok", "Slurm", f"release {major}.{minor:02d}, {len(partitions)} partitions")
    yield Finding("note", "accounting", choose_accounting(runner)[1])
    for sentence in submission_problems(experiment.file, Path("Snakefile")):
        yield Finding("problem", "paths", sentence)
    charged = list(_check_account(site, runner))
    yield from charged
    try:
        requests = _requests(JobList(experiment, site))
    except UserError as error:
        yield Finding("problem", "site", str(error))
        return
    pools: dict[str, Pool] = {"cpu": site.cpu}
    if any(request.gpus for _, request in requests):
        pools["gpu"] = site.gpu
    without_problems = set()
    for name, pool in pools.items():
        mine = [request for _, request in requests if bool(request.gpus) == (name == "gpu")]
        findings = list(check_pool(name, pool, partitions, mine, site, runner))
        yield from findings
        # Slurm would only report the same problem again. About accounts it knows more than sacctmgr shows.
        if not any(finding.level == "problem" for finding in findings):
            submission = list(_check_submission(name, site, requests, runner))
            yield from submission
            if not any(finding.level == "problem" for finding in charged + submission):
                without_problems.add(name)
    yield from _check_attempts(requests)
    for name in sorted(without_problems) if probe else ():
        yield from probe_node(name, site, experiment, runner, wait_s)


def _requests(jobs: JobList) -> list[tuple[str, Resources]]:
    """What trainings and data preparation request: the largest requests of the workflow."""
    return [(job.id, job.resources()) for job in jobs.values() if job.rule in ("train_run", "prepare_dataset")]


def _check_account(site: Site, runner: Runner) -> Iterator[Finding]:
    """Compare account and quality of service with the user's associations, whose names Slurm stores in lower case."""
    user = _user()
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account,qos"]
    try:
        rows = [line.split("|") for line in runner(command, TIMEOUT_S).splitlines() if "|" in line]
    except CommandFailed as error:
        yield Finding("note", "account", f"associations are not known: {error}")
        return
    accounts = {row[0].strip() for row in rows} - {""}
    if not accounts:
        sentence = f"sacctmgr shows no association of user {user} with an account"
        if site.account:
            sentence += f"; sbatch tests below whether {site.account!r} can be charged"
        yield Finding("note", "account", sentence)
        return
    account = _stored(site.account, accounts)
    if site.account and account is None:
        sentence = f"user {user} has no association with {site.account!r}, only with {listed(accounts)}"
        yield Finding("problem", "account", sentence)
        return
    if account == site.account:
        yield Finding("ok", "account", site.account or f"the default one of {listed(accounts)}")
    else:
        yield Finding("note", "account", f"{site.account!r} is stored as {account!r}, which is the same to Slurm")
    mine = (row[1] for row in rows if account is None or row[0].strip() == account)
    known = {name.strip() for names in mine for name in names.split(",")} - {""}
    for key, pool in (("gpu", site.gpu), ("cpu", site.cpu)):
        if pool.qos and known and _stored(pool.qos, known) is None:
            yield Finding("problem", f"{key}.qos", f"user {user} may not use {pool.qos!r}, only {listed(known)}")


def _stored(name: str | None, names: Iterable[str]) -> str | None:
    """Return the name among ``names`` that is equal but for upper and lower case; None if there is none."""
    wanted = name.casefold() if name else None
    return next((other for other in sorted(names) if other == name or other.casefold() == wanted), None)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # Containers may run without an entry for the user.
        return str(os.getuid())


def _check_submission(
    key: str, site: Site, requests: list[tuple[str, Resources]], runner: Runner
) -> Iterator[Finding]:
    """Let Slurm test the largest request without submitting it."""
    mine = [item for item in requests if bool(item[1].gpus) == (key == "gpu")]
    if not mine:
        return
    name, request = max(mine, key=lambda item: (item[1].gpus, item[1].mem_mb, item[1].runtime))
    command = ["sbatch", "--test-only", *_options(site, request), "--wrap=true"]
    try:
        runner(command, TIMEOUT_S)
    except CommandFailed as error:
        yield Finding("problem", key, f"Slurm refuses the request of {name}: {error.message}")
    else:
        what = f"{request.gpus} GPUs, " if request.gpus else ""
        what += f"{request.cpus} CPUs and {request.mem_mb / 1024:.0f} GiB for {format_duration(60 * request.runtime)}"
        yield Finding("ok", key, f"Slurm accepts the largest request ({name}: {what})")


def _options(site: Site, request: Resources) -> list[str]:
    """The options of sbatch for a request, as the workflow's executor passes them."""
    words = executor_resources(request, site)
    options = [f"--nodes={request.nodes}", f"--cpus-per-task={request.cpus}", f"--mem={request.mem_mb}"]
    options += [f"--time={request.runtime}", *node_options(site, site.pool(request.gpus))]
    if "gres" in words:
        options += [f"--gres={words['gres']}", f"--ntasks={request.nodes}"]
    elif request.gpus:
        kind = f"{words['gpu_model']}:" if "gpu_model" in words else ""
        options.append(f"--gpus={kind}{request.gpus}")
    return options


def _check_attempts(requests: Iterable[tuple[str, Resources]]) -> Iterator[Finding]:
    long = [(name, request) for name, request in requests if request.attempts > 1]
    if long:
        name, request = max(long, key=lambda item: item[1].attempts)
        limit = format_duration(60 * request.runtime)
        sentence = (
            f"{len(long)} trainings take longer than one time limit and are resumed; {name} takes the most, about "
            f"{request.attempts} attempts of {limit}; keep the profile's `retries` above this number"
        )
        yield Finding("note", "gpu.max_hours", sentence)
