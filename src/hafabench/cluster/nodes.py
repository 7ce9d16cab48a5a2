"""Partitions and nodes as Slurm shows them, compared with the site file and with what jobs request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hafabench.cluster.commands import TIMEOUT_S, CommandFailed, Runner
from hafabench.cluster.findings import Finding, listed
from hafabench.cluster.reservations import named_reservations, read_reservations
from hafabench.config.site import GpuPool, Pool, Site
from hafabench.formatting.durations import format_duration
from hafabench.runs.resources import Resources


@dataclass(frozen=True)
class Partition:
    """A partition as scontrol shows it.

    Attributes:
        name: Its name.
        max_hours: Its time limit; None without a limit.
        state: ``UP``, ``DOWN``, ``DRAIN`` or ``INACTIVE``.
        default: Whether jobs that name no partition use it.
        accounts: The accounts that may use it; empty if all may.
        qos: The quality of service whose limits all of its jobs have; empty if there is none.
        tier: Its PriorityTier. Jobs of a higher tier may preempt those of a lower one.
        preempt_mode: What happens to a preempted job: ``OFF``, ``REQUEUE``, ``CANCEL``, ``SUSPEND`` or
            ``GANG,SUSPEND``.
    """

    name: str
    max_hours: float | None
    state: str
    default: bool
    accounts: tuple[str, ...]
    qos: str = ""
    tier: int = 1
    preempt_mode: str = "OFF"


@dataclass(frozen=True)
class Node:
    """A node as sinfo shows it; ``gpus`` is the number of GPUs by type, with an empty name for no type."""

    name: str
    state: str
    cpus: int
    memory_mb: int
    gpus: dict[str, int]
    features: tuple[str, ...]

    @property
    def is_reserved(self) -> bool:
        """Whether an active reservation keeps it from other jobs."""
        # "$" marks drained and failed nodes in maintenance.
        return self.state.startswith(("maint", "reserved")) or self.state.endswith("$")

    @property
    def is_in_service(self) -> bool:
        """Whether it runs jobs, or will do so as soon as it is free."""
        return not self.is_reserved and not re.match(r"down|drain|fail|unknown", self.state)

    def gpus_of(self, kind: str | None) -> int:
        """The number of GPUs of a type, or of any type."""
        return self.gpus.get(kind, 0) if kind else sum(self.gpus.values())


def partitions_of(pool: Pool, partitions: dict[str, Partition]) -> list[Partition]:
    """The existing partitions of a pool: those that it names, or the default of the cluster."""
    if pool.partition:
        return [partitions[name] for name in pool.partition.split(",") if name in partitions]
    return [partition for partition in partitions.values() if partition.default]


def check_pool(
    key: str, pool: Pool, partitions: dict[str, Partition], requests: Sequence[Resources], site: Site, runner: Runner
) -> Iterator[Finding]:
    """Findings about one pool of a site. A note about ``<key>.reservation`` says that nodes are reserved.

    Args:
        key: The name of the pool in the site file.
        pool: The pool.
        partitions: The partitions of the cluster.
        requests: What jobs will request from this pool.
        site: The site that the pool belongs to.
        runner: Runs Slurm's commands.
    """
    names = pool.partition.split(",") if pool.partition else [p.name for p in partitions_of(pool, partitions)]
    if not names:
        sentence = f"not given, and the cluster has no default; it has {listed(partitions)}"
        yield Finding("problem", f"{key}.partition", sentence)
        return
    missing = [name for name in names if name not in partitions]
    for name in missing:
        yield Finding("problem", f"{key}.partition", f"no partition {name!r}; the cluster has {listed(partitions)}")
    if missing:
        return
    for name in names:
        yield from _check_partition(key, pool, partitions[name], site)
    try:
        nodes = read_nodes(names, runner)
    except CommandFailed as error:
        yield Finding("problem", f"{key}.partition", str(error))
        return
    yield from _check_nodes(key, pool, ",".join(names), nodes, requests, runner)


def _check_partition(key: str, pool: Pool, partition: Partition, site: Site) -> Iterator[Finding]:
    if partition.state != "UP":
        yield Finding("problem", f"{key}.partition", f"partition {partition.name} is {partition.state}")
    if partition.max_hours is not None and pool.max_hours > partition.max_hours:
        wanted, limit = (format_duration(3600 * hours) for hours in (pool.max_hours, partition.max_hours))
        sentence = f"{wanted}, but partition {partition.name} ends jobs after {limit}"
        yield Finding("problem", f"{key}.max_hours", sentence)
    accepted = {account.casefold() for account in partition.accounts}
    if site.account and accepted and site.account.casefold() not in accepted:
        sentence = f"partition {partition.name} accepts {listed(partition.accounts)}, not {site.account!r}"
        yield Finding("problem", "account", sentence)


def reservation_key(key: str) -> str:
    """What findings about reserved nodes of a pool are about."""
    return f"{key} reservation"


def _check_nodes(
    key: str, pool: Pool, partition: str, nodes: list[Node], requests: Sequence[Resources], runner: Runner
) -> Iterator[Finding]:
    if not nodes:
        yield Finding("problem", f"{key}.partition", f"sinfo shows no node of {partition}")
        return
    features = _required_features(pool.constraint)
    fitting = [node for node in nodes if features is None or features <= set(node.features)]
    if not fitting:
        known = listed({feature for node in nodes for feature in node.features})
        sentence = f"no node of {partition} has {pool.constraint}; features there: {known}"
        yield Finding("problem", f"{key}.constraint", sentence)
        return
    if isinstance(pool, GpuPool):
        types = {kind or "(no type)" for node in fitting for kind in node.gpus}
        fitting = [node for node in fitting if node.gpus_of(pool.gpu_type)]
        if not fitting and pool.gpu_type and types:
            sentence = f"no node of {partition} has GPUs of type {pool.gpu_type!r}; there are {listed(types)}"
            yield Finding("problem", f"{key}.gpu_type", sentence)
            return
        if not fitting:
            yield Finding("problem", f"{key}.partition", f"no node of {partition} has GPUs")
            return
    yield from _check_sizes(key, pool, partition, fitting, requests)
    yield from _check_service(key, pool, partition, fitting, requests, runner)


def _check_service(
    key: str, pool: Pool, partition: str, nodes: list[Node], requests: Sequence[Resources], runner: Runner
) -> Iterator[Finding]:
    """Count the nodes in service. Slurm accepts jobs for reserved nodes and starts them after the reservation."""
    mine = named_reservations(pool.extra or "")
    known = read_reservations(runner)
    own_nodes = {name for one in known if one.name in mine for name in one.nodes}
    others = [one for one in known if one.name not in mine]
    usable = [node for node in nodes if node.is_in_service or (node.name in own_nodes and node.is_reserved)]
    waiting = [node for node in nodes if node.is_reserved and node not in usable]
    sentence = f"{partition}: {len(usable)} of {len(nodes)} fitting nodes in service"
    suffice, will_suffice = len(usable) >= pool.max_nodes, len(usable) + len(waiting) >= pool.max_nodes
    yield Finding("ok" if suffice else "note" if will_suffice else "problem", f"{key}.partition", sentence)
    now = datetime.now()
    if waiting:
        active = [one for one in others if one.start <= now and any(node.name in one.nodes for node in waiting)]
        until = f" until {max(one.end for one in active):%Y-%m-%d %H:%M}" if active else ""
        names = listed(repr(one.name) for one in active)
        sentence = f"{len(waiting)} fitting nodes are reserved{until} (reservations: {names})"
        if not suffice:
            sentence += "; Slurm accepts jobs and starts them when the nodes are free again"
        yield Finding("note", reservation_key(key), sentence)
    longest = timedelta(minutes=max((request.runtime for request in requests), default=0))
    for one in others:
        left = [node for node in usable if node.name not in one.nodes]
        if now < one.start < now + longest and len(left) < pool.max_nodes <= len(usable):
            time_left = format_duration((one.start - now).total_seconds())
            sentence = (
                f"the reservation {one.name!r} begins in {time_left}, and {len(left)} fitting nodes are left then: a "
                f"job with a longer time limit waits until its end at {one.end:%Y-%m-%d %H:%M}. With a smaller "
                "`max_hours`, trainings begin before it and are resumed after it"
            )
            yield Finding("note", reservation_key(key), sentence)


def _check_sizes(
    key: str, pool: Pool, partition: str, nodes: list[Node], requests: Sequence[Resources]
) -> Iterator[Finding]:
    """Compare the largest request for one node with the largest node."""
    kind = pool.gpu_type if isinstance(pool, GpuPool) else None
    for name, requested, most, unit in (
        ("gpus", max((r.gpus_per_node for r in requests), default=0), max(n.gpus_of(kind) for n in nodes), "GPUs"),
        ("cpus", max((r.cpus for r in requests), default=0), max(n.cpus for n in nodes), "CPUs"),
        (
            "memory_gb",
            max((r.mem_mb for r in requests), default=0) / 1024,
            max(n.memory_mb for n in nodes) / 1024,
            "GiB",
        ),
    ):
        if requested > most:
            sentence = f"jobs request {requested:.4g} {unit} per node, but the largest of {partition} has {most:.4g}"
            yield Finding("problem", f"{key}.{name}", sentence)


def _required_features(constraint: str | None) -> set[str] | None:
    """The features that a node must have; None if only Slurm can evaluate the constraint."""
    if constraint is None:
        return set()
    return set(constraint.split("&")) if re.fullmatch(r"[\w.+:-]+(&[\w.+:-]+)*", constraint) else None


def read_partitions(runner: Runner) -> dict[str, Partition]:
    """The cluster's partitions by name."""
    found = {}
    for line in runner(["scontrol", "--all", "--oneliner", "show", "partition"], TIMEOUT_S).splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" not in words:
            continue
        accounts = words.get("AllowAccounts", "ALL")
        found[words["PartitionName"]] = Partition(
            name=words["PartitionName"],
            max_hours=_hours(words.get("MaxTime", "UNLIMITED")),
            state=words.get("State", "UP"),
            default=words.get("Default") == "YES",
            accounts=() if accounts in ("ALL", "(null)") else tuple(filter(None, accounts.split(","))),
            qos="" if words.get("QoS", "N/A") in ("N/A", "(null)") else words["QoS"],
            tier=int(words.get("PriorityTier", "1")) if words.get("PriorityTier", "1").isdecimal() else 1,
            preempt_mode=words.get("PreemptMode", "OFF"),
        )
    return found


def read_nodes(partitions: list[str], runner: Runner) -> list[Node]:
    """The nodes of some partitions."""
    text = runner(
        ["sinfo", "--noheader", "--Node", f"--partition={','.join(partitions)}", "--format=%N|%T|%c|%m|%G|%f"],
        TIMEOUT_S,
    )
    found = {}
    for line in text.splitlines():
        fields = re.fullmatch(r"([^|]+)\|([^|]*)\|(\d+)\+?\|(\d+)\+?\|([^|]*)\|(.*)", line.strip())
        if fields is None:
            continue
        name, state, cpus, memory, gres, features = fields.groups()
        known = "" if features == "(null)" else features
        found[name] = Node(name, state, int(cpus), int(memory), gpus_of_gres(gres), tuple(known.split(",")))
    return list(found.values())


def gpus_of_gres(text: str) -> dict[str, int]:
    """GPUs of a node by type: ``gpu:a100:4(S:0-1),gpu:v100:2`` -> ``{"a100": 4, "v100": 2}``."""
    found: dict[str, int] = {}
    for kind, count in re.findall(r"(?:^|,)gpu(?::([^:,()]+))??(?::(\d+))?(?=[,(]|$)", text):
        found[kind] = found.get(kind, 0) + int(count or 1)
    return found


def _hours(limit: str) -> float | None:
    """A time limit of Slurm in hours; None for no limit.

    Slurm writes ``days-hours[:minutes[:seconds]]``, ``hours:minutes:seconds``, ``minutes:seconds`` or ``minutes``.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", limit)
    if found is None:
        return None
    parts = [int(part) for part in found[2].split(":")]
    if found[1] is None and len(parts) < 3:
        parts.insert(0, 0)
    hours, minutes, seconds = [*parts, 0, 0][:3]
    return int(found[1] or 0) * 24 + hours + minutes / 60 + seconds / 3600
