"""What the check of the cluster says about settings, submit limits and reservations, from recorded outputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from hafabench.cluster.check import check_cluster
from hafabench.cluster.commands import CommandFailed
from hafabench.cluster.settings import has_accounting, read_settings
from hafabench.config.experiment import load_experiment
from hafabench.config.site import Pool, Site
from tests.support.messages import missing_facts

# Lines of Slurm 22.05.8, with limits that are enforced.
CONFIG = """\
Configuration data as of 2026-11-29T00:27:42
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = associations,limits
AccountingStorageHost   = 127.0.0.1
AccountingStorageTRES   = cpu,mem,energy,node,billing,fs/disk,vmem,pages,gres/gpu
AccountingStorageType   = accounting_storage/slurmdbd
AccountingStoreFlags    = job_comment
ClusterName             = hafabench
JobRequeue              = 1
KillWait                = 5 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 300 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
PreemptExemptTime       = 00:00:00

Cgroup Support Configuration:
MinRAMSpace             = 30 MB

Slurmctld(primary) at vm is UP
"""
# The same lines of 25.05, where nothing of this is configured.
UNCONFIGURED = """\
AccountingStorageEnforce = none
AccountingStorageType   = (null)
AccountingStoreFlags    = (null)
MaxJobCount             = 10000
MinJobAge               = 300 sec
PreemptMode             = OFF
PreemptType             = (null)
"""
PARTITION = (
    "PartitionName={} AllowAccounts=ALL Default={} QoS={} MaxTime=1-00:00:00 PriorityTier={} PreemptMode={} State=UP"
)
PARTITIONS = [
    PARTITION.format("cpu", "YES", "N/A", 10, "OFF"),
    PARTITION.format("cancelled", "NO", "N/A", 1, "CANCEL"),
    PARTITION.format("preemptible", "NO", "few", 1, "REQUEUE"),
    PARTITION.format("urgent", "NO", "N/A", 10, "REQUEUE"),
    PARTITION.format("shared", "NO", "N/A", 1, "GANG,SUSPEND"),
]
RESERVATION = (
    "ReservationName=maint StartTime={:%Y-%m-%dT%H:%M:%S} EndTime={:%Y-%m-%dT%H:%M:%S} Duration=01:00:00 "
    "Nodes=node[1-4] NodeCnt=4 CoreCnt=32 Features=(null) PartitionName=(null) Flags=MAINT,SPEC_NODES,ALL_NODES "
    "TRES=cpu=32 Users=root Groups=(null) Accounts=(null) Licenses=(null) State={} BurstBuffer=(null) Watts=n/a "
    "MaxStartDelay=(null)"
)
IDLE = ["node1|idle|8|16000|gpu:fake:2|fast", "node2|mixed|8|16000|gpu:fake:2|fast"]


class Slurm:
    """Recorded answers of a cluster; each of them can be changed.

    Args:
        config: The answer of ``scontrol show config``, or its lines to change by name.
        associations, accounts, qualities: The rows of sacctmgr.
        nodes: The rows of sinfo.
        reservations: The lines of ``scontrol show reservation``.
        fails: The beginnings of command lines that fail, with the message.
    """

    def __init__(
        self,
        config: str | dict[str, str] = "",
        *,
        associations: Sequence[str] = ("hafa|normal||||",),
        accounts: Sequence[str] = ("root|||", "hafa||root|"),
        qualities: Sequence[str] = ("normal||||||cluster", "few||||||cluster"),
        nodes: Sequence[str] = IDLE,
        reservations: Sequence[str] = ("No reservations in the system",),
        fails: dict[str, str] | None = None,
    ):
        if isinstance(config, dict):
            kept = [line for line in CONFIG.splitlines() if line.split(" ")[0] not in config]
            config = "\n".join([*kept, *(f"{name} = {value}" for name, value in config.items())])
        self.answers = {
            "sinfo --version": "slurm-wlm 22.05.8",
            "sinfo": "\n".join(nodes),
            "scontrol show config": config or CONFIG,
            "scontrol --all --oneliner show partition": "\n".join(PARTITIONS),
            "scontrol --oneliner show reservation": "\n".join(reservations),
            "scontrol show hostnames": "node1\nnode2\nnode3\nnode4\n",
            "sacctmgr --noheader --parsable2 show associations cluster=hafabench user= ": "\n".join(accounts),
            "sacctmgr --noheader --parsable2 show associations": "\n".join(associations),
            "sacctmgr --noheader --parsable2 show qos": "\n".join(qualities),
            "sacctmgr --noheader --parsable2 show user": "hafa",
            "sbatch": "",
            "sacct ": "",
        }
        self.fails = fails or {}

    def __call__(self, arguments: Sequence[str], timeout: float) -> str:
        line = " ".join(arguments)
        for beginning, message in self.fails.items():
            if line.startswith(beginning):
                raise CommandFailed(f"{line}: {message}", message)
        return next(answer for beginning, answer in self.answers.items() if line.startswith(beginning))


@pytest.fixture
def said(write_experiment, tmp_path, monkeypatch):
    """A function that returns what is said about one subject, with the level."""
    monkeypatch.chdir(tmp_path)
    experiments = {name: load_experiment(write_experiment(base=name)) for name in ("digits", "paper")}

    def said(
        key: str, slurm: Slurm | None = None, partition: str | None = None, experiment: str = "digits", **changes
    ) -> list[str]:
        pool = {"cpus": 8, "memory_gb": 7, "partition": partition, **changes.pop("cpu", {})}
        site = Site(cpu=Pool(**pool), **changes)
        found = check_cluster(experiments[experiment], site, probe=False, runner=slurm or Slurm())
        return [f"{finding.level}: {finding.sentence}" for finding in found if finding.about == key]

    return said


def test_a_healthy_cluster_has_no_problem(said, write_experiment):
    assert said("MinJobAge")[0].startswith("ok: squeue shows an ended job for 300 s")
    assert said("accounting") == ["note: through sacct: pyslurm is not installed"]
    assert said("cpu preemption") == said("cpu reservation") == []


@pytest.mark.parametrize(
    ("age", "fails", "facts"),
    [
        ("30 sec", {}, ("note", "after 30 s", "every 15 s", "asks sacct")),
        ("30", {}, ("note", "after 30 s")),
        ("1", {}, ("note", "every 1 s")),
        ("1h", {}, ("ok", "3600 s")),
        ("119 sec", {}, ("note", "every 59.5 s")),
        ("120 sec", {}, ("ok", "for 120 s", "every 60 s or more often")),
        ("0 sec", {}, ("ok", "without an end")),
        ("(null)", {}, ("note", "not known")),
        ("300 sec", {"sacct ": "connection refused"}, ("note", "no accounting answers", "outputs were made")),
    ],
)
def test_how_long_slurm_remembers_ended_jobs(said, age, fails, facts):
    (sentence,) = said("MinJobAge", Slurm({"MinJobAge": age}, fails=fails))
    assert not missing_facts(sentence, *facts)


@pytest.mark.parametrize("storage", ["accounting_storage/none", "(null)", ""])
def test_a_cluster_without_accounting(said, storage):
    refused = "You are not running a supported accounting_storage plugin"
    slurm = Slurm({"AccountingStorageType": storage}, fails={"sacct": refused, "sacctmgr": refused})
    (sentence,) = said("accounting", slurm)
    assert not missing_facts(sentence, "note", "this cluster has none", "no costs", "squeue alone")
    assert said("account", slurm) == ["note: associations are not known: the cluster has no accounting"]
    (limit,) = said("max_submitted_jobs", slurm, max_submitted_jobs=20000)
    assert not missing_facts(limit, "problem", "20,000", "10,000 jobs of all users", "MaxJobCount")


@pytest.mark.parametrize(
    ("tracked", "experiment", "is_said"),
    [
        ("cpu,mem,node,billing", "paper", True),
        ("cpu,gres/gpuutil", "paper", True),
        ("cpu,gres/gpu:a100", "paper", False),
        ("cpu,gres/gpu", "paper", False),
        ("cpu,mem", "digits", False),
    ],
)
def test_gpus_that_the_accounting_does_not_record(said, tracked, experiment, is_said):
    sentences = said("accounting", Slurm({"AccountingStorageTRES": tracked}), experiment=experiment)
    assert [not missing_facts(one, "note", "no gres/gpu", "0 GPU-hours") for one in sentences[1:]] == [True] * is_said


@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        ({"AccountingStoreFlags": "(null)"}, False),
        ({"AccountingStoreFlags": "job_env,job_script"}, False),
        ({"AccountingStoreFlags": "job_comment,job_env"}, True),
    ],
)
def test_comments_that_the_accounting_does_not_store(said, settings, stored):
    assert any("no job_comment" in line for line in said("accounting", Slurm(settings))) != stored


def test_commands_that_fail_are_notes(said, write_experiment):
    for name in ("scontrol show config", "sacctmgr", "sacct ", "scontrol --oneliner show reservation"):
        slurm = Slurm(fails={name: "Unable to contact slurm controller"})
        found = check_cluster(load_experiment(write_experiment()), Site(), probe=False, runner=slurm)
        assert [finding for finding in found if finding.level == "problem"] == [], name


@pytest.mark.parametrize("text", ["", "nonsense", "=\n = \nMinJobAge\n", UNCONFIGURED])
def test_any_answer_of_scontrol_is_read(said, text):
    slurm = Slurm(text or "\n")
    assert said("cpu preemption", slurm, "cancelled") == []
    assert len(said("MinJobAge", slurm)) == 1
    assert has_accounting(read_settings(slurm)) == (text != UNCONFIGURED)


@pytest.mark.parametrize(
    ("partition", "facts"),
    [
        ("cancelled", [("note", "partition cancelled", "PreemptMode=CANCEL", "`retries`")]),
        ("preemptible", [("ok", "PreemptMode=REQUEUE", "queues a preempted job again")]),
        ("shared", [("note", "PreemptMode=SUSPEND", "Latencies")]),
        ("cpu,cancelled", [("note", "partition cancelled")]),
        ("cpu", []),
        # No partition has a higher priority.
        ("urgent", []),
    ],
)
def test_preemption_by_partitions(said, partition, facts):
    found = said("cpu preemption", partition=partition)
    assert len(found) == len(facts)
    assert not [
        missing for line, wanted in zip(found, facts, strict=True) if (missing := missing_facts(line, *wanted))
    ]


def test_preemption_by_qualities_of_service(said):
    settings = {"PreemptType": "preempt/qos", "PreemptMode": "CANCEL"}
    qualities = ["normal||||||cluster", "high|||||low,normal|cluster", "low||||||requeue"]
    slurm = Slurm(settings, qualities=qualities, associations=["hafa|high,low,normal||||"])
    assert "PreemptMode=CANCEL" in said("cpu preemption", slurm)[0]
    assert said("cpu preemption", slurm, cpu={"qos": "low"})[0].startswith("ok: quality of service low")
    assert said("cpu preemption", slurm, cpu={"qos": "high"}) == []
    # The modes of partitions do not count here.
    assert said("cpu preemption", slurm, "preemptible")[0].startswith("note: quality of service normal")


LIMITED = "hafa|normal|||7|"


@pytest.mark.parametrize(
    ("slurm", "partition", "facts"),
    [
        (Slurm(associations=[LIMITED]), "cpu", ("7 jobs of the user", "MaxSubmitJobs of the association")),
        # Slurm uses the first limit that is defined, not the lowest: that of the partition, of the job, of the user.
        (Slurm(associations=[LIMITED], qualities=["normal||9||||cluster"]), "cpu", ("9 jobs", "PerUser", "normal")),
        (
            Slurm(associations=[LIMITED], qualities=["normal||9||||cluster", "few||4||||cluster"]),
            "preemptible",
            ("4 jobs", "quality of service few"),
        ),
        (
            Slurm(qualities=["normal|OverPartQOS|9||||cluster", "few||4||||cluster"]),
            "preemptible",
            ("9 jobs", "quality of service normal"),
        ),
        (Slurm(qualities=["normal|||6|||cluster"]), "cpu", ("6 jobs of all users", "MaxSubmitJobsPerAccount")),
        (
            Slurm(accounts=["root|||", "dep||root|5", "hafa||dep|", "dep|me||"]),
            "cpu",
            ("5 jobs of all users", "account dep"),
        ),
        (Slurm(accounts=["hafa||hafa|5"]), "cpu", ("5 jobs", "account hafa")),
        # A group limit of the quality of service takes the place of those of accounts.
        (
            Slurm(accounts=["root|||", "hafa||root|5"], qualities=["normal||||8||cluster"]),
            "cpu",
            ("8 jobs", "GrpSubmitJobs of the quality of service normal"),
        ),
        (Slurm(associations=["hafa|normal||cancelled|3|", LIMITED]), "cpu", ("7 jobs",)),
        (Slurm(associations=["hafa|normal||cancelled|3|", LIMITED]), "cancelled", ("3 jobs",)),
        (Slurm({"MaxJobCount": "20"}), "cpu", ("20 jobs of all users together (MaxJobCount)",)),
    ],
)
def test_the_lowest_submit_limit_is_reported_with_its_setting(said, slurm, partition, facts):
    (sentence,) = said("max_submitted_jobs", slurm, partition, account="hafa", max_submitted_jobs=90)
    number = facts[0].split()[0]
    assert not missing_facts(sentence, "problem", "90, but", f"`max_submitted_jobs: {number}`", "all jobs", *facts)


def test_the_number_of_jobs_follows_from_the_site_file(said, tmp_path):
    slurm, key = Slurm(associations=[LIMITED]), "max_submitted_jobs"
    assert said(key, slurm, max_submitted_jobs=7)[0].startswith("ok: the driver submits up to 7;")
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/config.yaml").write_text("jobs: 100\n")
    (sentence,) = said(key, slurm)
    assert not missing_facts(sentence, "note", "at most 7 jobs", "up to 100", "`max_submitted_jobs: 7`", "all jobs")
    (tmp_path / "slurm/config.v9+.yaml").write_text("jobs: 5\n")
    assert said(key, slurm)[0].startswith("ok: the driver submits up to 5;")
    assert said(key, Slurm(associations=["hafa|normal|||0|"]))[0].startswith("problem: Slurm accepts at most 0 jobs")


# From Slurm 22.05.8.
LIMIT_REACHED = (
    "sbatch: error: AssocMaxSubmitJobLimit allocation failure: Job violates accounting/QOS policy (job submit limit, "
    "user's size and/or time limits)"
)


def test_a_reached_submit_limit_is_no_problem(said):
    (sentence,) = said("cpu", Slurm(fails={"sbatch": LIMIT_REACHED}))
    assert not missing_facts(sentence, "note", "AssocMaxSubmitJobLimit", "the driver waits")
    too_large = LIMIT_REACHED.replace("AssocMaxSubmitJobLimit", "AssocMaxCpuPerJobLimit")
    assert said("cpu", Slurm(fails={"sbatch": too_large}))[0].startswith("problem: Slurm refuses")


@pytest.mark.parametrize("fails", [{}, {"sacctmgr": "access denied"}])
def test_unknown_limits_of_the_user_are_a_note(said, fails):
    unknown, known = said("max_submitted_jobs", Slurm(associations=[], fails=fails), max_submitted_jobs=90)
    reason = "access denied" if fails else "no association"
    assert not missing_facts(unknown, "note", "limits of user", "not known", reason)
    assert not missing_facts(known, "ok", "10,000 jobs of all users")


def test_a_limit_that_is_not_enforced(said):
    slurm = Slurm({"AccountingStorageEnforce": "associations"}, associations=[LIMITED])
    first, second = said("max_submitted_jobs", slurm, max_submitted_jobs=90)
    assert not missing_facts(first, "note", "7 jobs", "does not enforce", "AccountingStorageEnforce=associations")
    assert second.startswith("ok: the driver submits up to 90;")


def test_the_account_that_is_charged_decides(said):
    slurm = Slurm(associations=["root|normal|||2|", LIMITED])
    # Without an account in the site file, Slurm charges the default one.
    for account in (None, "hafa", "HAFA"):
        (sentence,) = said("max_submitted_jobs", slurm, max_submitted_jobs=90, account=account)
        assert not missing_facts(sentence, "problem", "7 jobs", "account hafa")


def reservation(begins: timedelta, state: str) -> str:
    start = datetime.now() + begins
    return RESERVATION.format(start, start + timedelta(hours=1), state)


def test_nodes_in_maintenance_are_waited_for(said):
    nodes = ["node1|maint|8|16000|(null)|fast", "node2|drained$|8|16000|(null)|fast"]
    refusal = {"sbatch": "allocation failure: Requested node configuration is not available"}
    slurm = Slurm(nodes=nodes, reservations=[reservation(timedelta(minutes=-1), "ACTIVE")], fails=refusal)
    assert said("cpu.partition", slurm) == ["note: cpu: 0 of 2 fitting nodes in service"]
    (sentence,) = said("cpu reservation", slurm)
    assert not missing_facts(sentence, "note", "2 fitting nodes are reserved until 2", "'maint'", "accepts jobs")
    assert said("cpu", slurm)[0].startswith("note: Slurm cannot test the request of ")
    # A reservation that the jobs use.
    mine = said("cpu.partition", slurm, cpu={"extra": "--reservation=maint"})
    assert mine == ["ok: cpu: 2 of 2 fitting nodes in service"]
    # Nodes that are out of service without a reservation, and other refusals.
    drained = Slurm(nodes=["node1|drained|8|16000|(null)|fast"])
    assert said("cpu.partition", drained) == ["problem: cpu: 0 of 1 fitting nodes in service"]
    assert said("cpu", Slurm(fails=refusal))[0].startswith("problem: Slurm refuses")


def test_a_reservation_that_begins_soon(said):
    slurm = Slurm(reservations=[reservation(timedelta(minutes=10), "INACTIVE")])
    (sentence,) = said("cpu reservation", slurm)
    assert not missing_facts(sentence, "note", "'maint' begins in ", "0 fitting nodes are left", "`max_hours`")
    assert said("cpu reservation", Slurm(reservations=[reservation(timedelta(days=9), "INACTIVE")])) == []
    others = Slurm(
        nodes=[*IDLE, "node5|idle|8|16000|(null)|fast"],
        reservations=slurm.answers["scontrol --oneliner show reservation"].splitlines(),
    )
    assert said("cpu reservation", others) == []
