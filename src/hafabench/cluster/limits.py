"""How many jobs of a user Slurm accepts at a time.

Slurm takes a limit from the first of these that defines it: the quality of service of the partition, that of the job,
and the association of the user (https://slurm.schedmd.com/resource_limits.html, "hierarchy"). Limits of groups are
compared in addition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hafabench.cluster.commands import TIMEOUT_S, CommandFailed, Runner
from hafabench.cluster.findings import Finding
from hafabench.cluster.nodes import Partition
from hafabench.config.site import Pool, Site

_KEY = "max_submitted_jobs"
_QUALITY = (
    "name",
    "flags",
    "maxsubmitjobsperuser",
    "maxsubmitjobsperaccount",
    "grpsubmitjobs",
    "preempt",
    "preemptmode",
)
# The quality of service of jobs whose association has no default and allows several.
_DEFAULT_QUALITY = "normal"


@dataclass(frozen=True)
class SubmitLimit:
    """A limit of the jobs in Slurm, waiting and running.

    Attributes:
        jobs: The largest number.
        setting: The setting of Slurm that sets it.
        is_shared: Whether jobs of other users count.
    """

    jobs: int
    setting: str
    is_shared: bool = False

    def __str__(self) -> str:
        whose = "all users of the group together" if self.is_shared else "the user"
        return f"{self.jobs:,} jobs of {whose} at a time ({self.setting})"


@dataclass(frozen=True)
class Association:
    """An association of the user with an account, for all partitions or for one; limits are None without a limit."""

    account: str
    qualities: tuple[str, ...]
    default_quality: str
    partition: str
    max_submit: int | None
    group_submit: int | None


def read_associations(user: str, cluster: str | None, runner: Runner) -> list[Association]:
    """The associations of a user with accounts.

    Args:
        user: The name of the user.
        cluster: The name of the cluster; None reads the associations of all clusters.
        runner: Runs Slurm's commands.

    Raises:
        CommandFailed: If sacctmgr fails.
    """
    columns = ("account", "qos", "defaultqos", "partition", "maxsubmitjobs", "grpsubmitjobs")
    rows = _rows(runner, "associations", columns, *([f"cluster={cluster}"] if cluster else []), f"user={user}")
    return [
        Association(
            account=row["account"],
            qualities=tuple(filter(None, (name.strip() for name in row["qos"].split(",")))),
            default_quality=row["defaultqos"],
            partition=row["partition"],
            max_submit=_number(row["maxsubmitjobs"]),
            group_submit=_number(row["grpsubmitjobs"]),
        )
        for row in rows
        if row["account"]
    ]


@dataclass(frozen=True)
class Limits:
    """What Slurm's data base says about the number of jobs.

    Attributes:
        settings: The cluster's configuration.
        associations: The associations of the user with the account that is charged.
        accounts: Every account: its parent, and the largest number of jobs of its users together.
        qualities: The qualities of service by name, with the columns of sacctmgr and ``preempted_by``.
    """

    settings: Mapping[str, str]
    associations: Sequence[Association]
    accounts: Mapping[str, tuple[str, int | None]]
    qualities: Mapping[str, Mapping[str, str]]

    @property
    def is_enforced(self) -> bool:
        """Whether Slurm enforces the limits of associations and qualities of service."""
        enforced = re.split(r"[,\s]+", self.settings.get("AccountingStorageEnforce", "limits").lower())
        return not {"limits", "safe", "all"}.isdisjoint(enforced)

    def quality(self, pool: Pool) -> Mapping[str, str] | None:
        """The quality of service of a pool's jobs; None if it is not known."""
        names = [pool.qos] if pool.qos else []
        for association in self.associations:
            allowed = association.qualities[:1] if len(association.qualities) == 1 else ()
            names += [association.default_quality, *allowed]
        name = next(filter(None, names), _DEFAULT_QUALITY)
        return self.qualities.get(name) or self.qualities.get(name.lower())

    def of(self, pool: Pool, partition: Partition) -> list[SubmitLimit]:
        """The limits of a pool's jobs in one of its partitions."""
        own = self.quality(pool)
        qualities = [self.qualities[partition.qos]] if partition.qos in self.qualities else []
        if own is not None:
            qualities = [own, *qualities] if "overpartqos" in own["flags"].lower() else [*qualities, own]
        mine = [one for one in self.associations if one.partition in ("", partition.name)]
        found = []
        for column, is_shared in (
            ("maxsubmitjobsperuser", False),
            ("maxsubmitjobsperaccount", True),
            ("grpsubmitjobs", True),
        ):
            defined = [(_number(quality[column]), quality["name"]) for quality in qualities]
            limit = next(((jobs, name) for jobs, name in defined if jobs is not None), None)
            if limit is not None:
                setting = f"{_SPELLED[column]} of the quality of service {limit[1]}"
                found.append(SubmitLimit(limit[0], setting, is_shared))
            elif column == "maxsubmitjobsperuser":
                found += [
                    SubmitLimit(one.max_submit, f"MaxSubmitJobs of the association with account {one.account}")
                    for one in mine
                    if one.max_submit is not None
                ]
            elif column == "grpsubmitjobs":
                found += self._of_groups(mine)
        return found

    def _of_groups(self, associations: Sequence[Association]) -> Iterator[SubmitLimit]:
        for one in associations:
            if one.group_submit is not None:
                yield SubmitLimit(one.group_submit, f"GrpSubmitJobs of the association with account {one.account}")
            account, seen = one.account, set[str]()
            while account in self.accounts and account not in seen:
                seen.add(account)
                parent, jobs = self.accounts[account]
                if jobs is not None:
                    yield SubmitLimit(jobs, f"GrpSubmitJobs of account {account}", is_shared=True)
                account = parent


_SPELLED = {
    "maxsubmitjobsperuser": "MaxSubmitJobsPerUser",
    "maxsubmitjobsperaccount": "MaxSubmitJobsPerAccount",
    "grpsubmitjobs": "GrpSubmitJobs",
}


def read_limits(settings: Mapping[str, str], associations: Sequence[Association], runner: Runner) -> Limits:
    """Read the limits of accounts and qualities of service.

    Args:
        settings: The cluster's configuration.
        associations: The associations of the user with the account that is charged.
        runner: Runs Slurm's commands.

    Raises:
        CommandFailed: If sacctmgr fails.
    """
    cluster = [f"cluster={settings['ClusterName']}"] if "ClusterName" in settings else []
    # The empty user selects the associations of accounts.
    rows = _rows(runner, "associations", ("account", "user", "parentname", "grpsubmitjobs"), *cluster, "user=")
    accounts = {row["account"]: (row["parentname"], _number(row["grpsubmitjobs"])) for row in rows if not row["user"]}
    qualities = {row["name"]: row for row in _rows(runner, "qos", _QUALITY)}
    for name, quality in qualities.items():
        others = (other for other in qualities.values() if name in other["preempt"].split(","))
        quality["preempted_by"] = ",".join(other["name"] for other in others)
    return Limits(settings, associations, accounts, qualities)


def default_account(user: str, runner: Runner) -> str | None:
    """The account that Slurm charges if a submission names none; None if it is not known."""
    try:
        rows = _rows(runner, "user", ("defaultaccount",), f"name={user}")
    except CommandFailed:
        return None
    return next((row["defaultaccount"] for row in rows if row["defaultaccount"]), None)


def _rows(runner: Runner, what: str, columns: Sequence[str], *conditions: str) -> list[dict[str, str]]:
    """The rows of a listing of sacctmgr."""
    command = ["sacctmgr", "--noheader", "--parsable2", "show", what, *conditions, f"format={','.join(columns)}"]
    lines = [line.split("|") for line in runner(command, TIMEOUT_S).splitlines() if line.strip()]
    # A missing column is taken for an empty one.
    return [
        dict(zip(columns, [*map(str.strip, line), *[""] * len(columns)], strict=False)) for line in lines if line[0]
    ]


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def check_submit_limit(
    site: Site, jobs: int | None, limits: Limits, pools: Mapping[str, Sequence[Partition]]
) -> Iterator[Finding]:
    """Compare the number of jobs that the driver submits with the limits of Slurm.

    Args:
        site: The site.
        jobs: The largest number of jobs of the profile; None if it is not known.
        limits: The limits of Slurm.
        pools: The partitions of each pool that the experiment uses, by the key of the pool.
    """
    every = {limit for key in pools for partition in pools[key] for limit in limits.of(getattr(site, key), partition)}
    found = sorted(every, key=lambda limit: (limit.jobs, limit.is_shared, limit.setting))
    if found and not limits.is_enforced:
        enforced = limits.settings.get("AccountingStorageEnforce", "")
        sentence = f"{found[0]}, but Slurm does not enforce it (AccountingStorageEnforce={enforced})"
        yield Finding("note", _KEY, sentence)
        found = []
    most = _number(limits.settings.get("MaxJobCount", ""))
    if most is not None:
        found = sorted([*found, SubmitLimit(most, "MaxJobCount", is_shared=True)], key=lambda limit: limit.jobs)
    if not found:
        return
    lowest = found[0]
    accepted = f"Slurm accepts at most {lowest}"
    if lowest.setting == "MaxJobCount":
        accepted = f"Slurm accepts at most {lowest.jobs:,} jobs of all users together (MaxJobCount)"
    hint = "Slurm counts all jobs of the user, also those of other programs and drivers"
    wanted = site.max_submitted_jobs
    if lowest.jobs == 0:
        yield Finding("problem", _KEY, f"{accepted}; ask the operators of the cluster")
    elif wanted is not None and wanted > lowest.jobs:
        sentence = f"{wanted:,}, but {accepted}; set `{_KEY}: {lowest.jobs}`, or less: {hint}"
        yield Finding("problem", _KEY, sentence)
    elif wanted is None and jobs is not None and jobs > lowest.jobs:
        sentence = f"{accepted}, but the profile submits up to {jobs:,}; set `{_KEY}: {lowest.jobs}`, or less: {hint}"
        yield Finding("note", _KEY, sentence)
    else:
        number = wanted if wanted is not None else jobs
        submitted = f"the driver submits up to {number:,}; " if number is not None else ""
        yield Finding("ok", _KEY, f"{submitted}{accepted}")
