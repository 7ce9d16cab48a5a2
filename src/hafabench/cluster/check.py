"""A comparison of the cluster with the site file before jobs are submitted. Every finding is one sentence."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hafabench.cluster.commands import TIMEOUT_S, CommandFailed, Runner, run, slurm_release
from hafabench.cluster.findings import Finding, listed
from hafabench.cluster.limits import (
    Association,
    Limits,
    check_submit_limit,
    default_account,
    read_associations,
    read_limits,
)
from hafabench.cluster.nodes import Partition, check_pool, partitions_of, read_partitions, reservation_key
from hafabench.cluster.probe import node_options, probe_node
from hafabench.cluster.refusals import classify
from hafabench.cluster.settings import check_preemption, check_settings, has_accounting, read_settings
from hafabench.config.experiment import Experiment
from hafabench.config.site import Pool, Site
from hafabench.errors import UserError
from hafabench.formatting.durations import format_duration
from hafabench.runs.jobs import JobList
from hafabench.runs.resources import Resources
from hafabench.runs.snakemake import (
    Profile,
    executor_resources,
    slurm_profile,
    submission_problems,
    workflow_command,
)

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
    try:
        settings = read_settings(runner)
    except CommandFailed as error:
        settings = {}
        yield Finding("note", "settings", f"the settings of the cluster are not known: {error}")
    yield from check_settings(settings, runner, experiment.config.uses_gpus)
    for sentence in submission_problems(experiment.file, Path("Snakefile")):
        yield Finding("problem", "paths", sentence)
    associations = _Associations(settings, runner)
    charged = list(_check_account(site, associations))
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
        has_reserved = any(finding.about == reservation_key(name) for finding in findings)
        # Slurm would only report the same problem again. About accounts it knows more than sacctmgr shows.
        if not any(finding.level == "problem" for finding in findings):
            submission = list(_check_submission(name, site, requests, runner, has_reserved))
            yield from submission
            if not any(finding.level == "problem" for finding in charged + submission):
                without_problems.add(name)
    profile = slurm_profile()
    used = {name: partitions_of(pool, partitions) for name, pool in pools.items()}
    yield from _check_limits(site, profile, settings, associations, used, partitions, runner)
    yield from _check_attempts(experiment, requests, profile)
    for name in sorted(without_problems) if probe else ():
        yield from probe_node(name, site, experiment, runner, wait_s)


def _requests(jobs: JobList) -> list[tuple[str, Resources]]:
    """What trainings and data preparation request: the largest requests of the workflow."""
    return [(job.id, job.resources()) for job in jobs.values() if job.rule in ("train_run", "prepare_dataset")]


class _Associations:
    """The user's associations with accounts.

    Args:
        settings: The cluster's configuration.
        runner: Runs Slurm's commands.
    """

    def __init__(self, settings: dict[str, str], runner: Runner):
        self.user = _user()
        self.problem: str | None = None
        self.rows: list[Association] = []
        self._runner = runner
        if not has_accounting(settings):
            self.problem = "the cluster has no accounting"
            return
        try:
            self.rows = read_associations(self.user, settings.get("ClusterName"), runner)
        except CommandFailed as error:
            self.problem = str(error)

    def charged(self, site: Site) -> list[Association]:
        """The associations with the account that jobs are charged to, or with all accounts if it is not known."""
        accounts = {row.account for row in self.rows}
        name = site.account or (default_account(self.user, self._runner) if len(accounts) > 1 else None)
        stored = _stored(name, accounts)
        return [row for row in self.rows if stored in (None, row.account)]


def _check_limits(
    site: Site,
    profile: Profile | None,
    settings: dict[str, str],
    associations: _Associations,
    used: dict[str, list[Partition]],
    partitions: dict[str, Partition],
    runner: Runner,
) -> Iterator[Finding]:
    """Report submit limits and preemption.

    Args:
        site: The site.
        profile: The profile of the workflow.
        settings: The cluster's configuration.
        associations: The user's associations.
        used: The partitions of each pool that the experiment uses.
        partitions: All partitions of the cluster.
        runner: Runs Slurm's commands.
    """
    limits = Limits(settings, (), {}, {})
    if has_accounting(settings):
        unknown = None if associations.rows else "sacctmgr shows no association"
        try:
            limits = read_limits(settings, associations.charged(site), runner)
        except CommandFailed as error:
            unknown = str(error)
        if unknown:
            sentence = f"the submit limits of user {associations.user} are not known: {unknown}"
            yield Finding("note", "max_submitted_jobs", sentence)
    for key, mine in used.items():
        yield from check_preemption(key, mine, partitions, settings, limits.quality(getattr(site, key)))
    yield from check_submit_limit(site, profile.jobs if profile else None, limits, used)


def _check_account(site: Site, associations: _Associations) -> Iterator[Finding]:
    """Compare account and quality of service with the user's associations, whose names Slurm stores in lower case."""
    user = associations.user
    if associations.problem:
        yield Finding("note", "account", f"associations are not known: {associations.problem}")
        return
    accounts = {row.account for row in associations.rows}
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
    known = {name for row in associations.rows if account in (None, row.account) for name in row.qualities}
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
    key: str, site: Site, requests: list[tuple[str, Resources]], runner: Runner, has_reserved: bool
) -> Iterator[Finding]:
    """Let Slurm test the largest request without submitting it.

    Args:
        key: The pool in the site file.
        site: The site.
        requests: The requests of all jobs.
        runner: Runs Slurm's commands.
        has_reserved: Whether nodes of the pool are reserved.
    """
    mine = [item for item in requests if bool(item[1].gpus) == (key == "gpu")]
    if not mine:
        return
    name, request = max(mine, key=lambda item: (item[1].gpus, item[1].mem_mb, item[1].runtime))
    command = ["sbatch", "--test-only", *_options(site, request), "--wrap=true"]
    try:
        runner(command, TIMEOUT_S)
    except CommandFailed as error:
        if has_reserved and "node configuration is not available" in error.message:
            # The test leaves out reserved nodes, but a submission waits for them.
            sentence = f"Slurm cannot test the request of {name} while nodes are reserved; it accepts such jobs"
            yield Finding("note", key, sentence)
        elif classify(error.message).kind == "now":
            sentence = (
                f"Slurm does not test the request of {name} now: {error.message}; the driver waits in this case"
            )
            yield Finding("note", key, sentence)
        else:
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


def _check_attempts(
    experiment: Experiment, requests: Iterable[tuple[str, Resources]], profile: Profile | None
) -> Iterator[Finding]:
    """Compare the attempts that trainings take with those that the profile allows."""
    long = [(name, request) for name, request in requests if request.attempts > 1]
    if not long:
        return
    name, request = max(long, key=lambda item: item[1].attempts)
    limit = format_duration(60 * request.runtime)
    sentence = (
        f"{len(long)} trainings take longer than one time limit and are resumed; {name} takes the most, about "
        f"{request.attempts} attempts of {limit}"
    )
    if profile is None or profile.retries is None:
        yield Finding("note", "gpu.max_hours", f"{sentence}; keep the profile's `retries` above this number")
        return
    allowed = profile.retries + 1
    if request.attempts <= allowed:
        sentence += f", and `retries: {profile.retries}` of {profile.file} allows {allowed}"
        yield Finding("note", "gpu.max_hours", sentence)
        return
    # Estimates may be wrong by a factor of two, and failures take attempts as well.
    command = workflow_command(experiment, retries=2 * request.attempts)
    sentence += (
        f", but `retries: {profile.retries}` of {profile.file} allows {allowed}; use a longer `gpu.max_hours`, or "
        f"start the driver with `{command}`"
    )
    yield Finding("problem", "retries", sentence)
