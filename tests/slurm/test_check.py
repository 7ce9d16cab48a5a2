"""`hafabench cluster check` on a real cluster: a correct site file passes, and each error gives one message."""

from __future__ import annotations

import shutil

import pytest

from hafabench.cluster.check import check_cluster
from hafabench.config.experiment import load_experiment
from hafabench.config.site import GpuPool, Pool, Site
from tests.support.messages import missing_facts
from tests.support.slurm_jobs import submit, wait_for_state
from tools.checkout import REPOSITORY
from tools.slurm_cluster.configuration import ACCOUNT
from tools.waiting import wait_until

CPU = Pool(partition="cpu", cpus=8, memory_gb=7)
GPU = GpuPool(partition="gpu", gpus=2, cpus=8, memory_gb=7)


def findings(experiment, level: str | None = None, probe: bool = False, wait_s: int = 60, **changes) -> list[str]:
    site = Site(**({"account": ACCOUNT, "cpu": CPU, "gpu": GPU} | changes))
    found = check_cluster(experiment, site, probe=probe, wait_s=wait_s)
    return [f"{finding.about}: {finding.sentence}" for finding in found if level in (None, finding.level)]


@pytest.fixture
def paper(write_experiment):
    return load_experiment(write_experiment(base="paper"))


def test_a_correct_site_file_has_no_problem_and_a_node_is_probed(cluster, workspace, write_experiment):
    digits = load_experiment(write_experiment())
    assert findings(digits, "problem", probe=True) == []
    said = findings(digits, "ok", probe=True)
    assert any(line.startswith("cpu node: ") and "hafabench runs" in line for line in said)


def test_the_largest_request_of_the_paper_is_tested_with_slurm(cluster, workspace, paper):
    assert findings(paper, "problem") == []
    assert any("largest request (train_run" in line for line in findings(paper, "ok"))


def test_data_that_a_node_does_not_see(cluster, workspace, paper):
    said = findings(paper, "problem", probe=True)
    assert any("data set imagenet1k: 2 of 2 paths are not visible from node" in line for line in said)
    # The test cluster's GPUs are no real devices, so torch finds none.
    assert any("torch finds no GPU on node" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"gpu": GPU.model_copy(update={"partition": "gpus"})},
            ("gpu.partition: ", "'gpus'"),
        ),
        (
            {"gpu": GPU.model_copy(update={"gpu_type": "a100"})},
            ("gpu.gpu_type: ", "'a100'"),
        ),
        (
            {"gpu": GPU.model_copy(update={"partition": "short"})},
            ("gpu.max_hours: ", "partition short"),
        ),
        (
            {"gpu": GPU.model_copy(update={"constraint": "fast&huge"})},
            ("gpu.constraint: ", "fast&huge", "fast"),
        ),
        (
            {"gpu": GPU.model_copy(update={"gpus": 8})},
            ("gpu.gpus: ", "8 GPUs", "has 2"),
        ),
        ({"account": "nobody"}, ("account: ", "user root", "'nobody'")),
    ],
)
def test_each_error_is_one_message(cluster, workspace, paper, changes, expected):
    said = findings(paper, "problem", **changes)
    assert any(line.startswith(expected[0]) and not missing_facts(line, *expected) for line in said), said
    assert not any("\n" in line for line in said)


def test_no_free_node_is_no_problem(cluster, workspace, write_experiment):
    for _ in cluster.settings.node_names:
        job = submit(cluster, workspace, "sleep 300", "others", "--nodes=1", "--exclusive", "--partition=cpu")
        wait_for_state(cluster, job, "RUNNING")
    digits = load_experiment(write_experiment())
    assert findings(digits, "problem", probe=True, wait_s=3) == []
    assert any("within 3 s" in line for line in findings(digits, "note", probe=True, wait_s=3))


def about(experiment, key: str, **changes) -> list[str]:
    """What is said about one subject, with the level."""
    site = Site(**({"account": ACCOUNT, "cpu": CPU, "gpu": GPU} | changes))
    found = check_cluster(experiment, site, probe=False)
    return [f"{finding.level}: {finding.sentence}" for finding in found if finding.about == key]


@pytest.fixture
def digits(write_experiment):
    return load_experiment(write_experiment())


def test_a_low_age_of_ended_jobs(cluster, workspace, digits):
    assert about(digits, "MinJobAge")[0].startswith("ok: squeue shows an ended job for 300 s")
    with cluster.configure(MinJobAge=30):
        (said,) = about(digits, "MinJobAge")
        assert not missing_facts(said, "note", "after 30 s", "every 15 s", "asks sacct")
        cluster.stop_accounting()
        (said,) = about(digits, "MinJobAge")
        assert not missing_facts(said, "note", "for 30 s", "no accounting answers", "outputs were made")
    assert any("sacct does not answer" in line for line in about(digits, "accounting"))


def test_partitions_with_preemption(cluster, workspace, digits):
    assert about(digits, "cpu preemption") == []
    (said,) = about(digits, "cpu preemption", cpu=CPU.model_copy(update={"partition": "cancelled"}))
    assert not missing_facts(said, "note", "PreemptMode=CANCEL", "submits it again", "`retries`")
    several = about(digits, "cpu preemption", cpu=CPU.model_copy(update={"partition": "cpu,preemptible"}))
    assert [line.partition(":")[0] for line in several] == ["ok"]


def test_submit_limits(cluster, workspace, digits):
    key = "max_submitted_jobs"
    assert about(digits, key) == ["ok: Slurm accepts at most 10,000 jobs of all users together (MaxJobCount)"]
    with cluster.limit(MaxSubmitJobs=7):
        (said,) = about(digits, key)
        assert not missing_facts(said, "ok", "7 jobs of the user", "MaxSubmitJobs of", f"account {ACCOUNT}")
        (said,) = about(digits, key, max_submitted_jobs=30)
        assert not missing_facts(said, "problem", "30, but", "at most 7 jobs", f"`{key}: 7`", "all jobs of the user")
        assert about(digits, key, max_submitted_jobs=7)[0].startswith("ok: the driver submits up to 7;")
        with cluster.limit(MaxSubmitJobsPerUser=5):
            (said,) = about(digits, key, max_submitted_jobs=7)
            assert not missing_facts(said, "problem", "at most 5 jobs", "MaxSubmitJobsPerUser of", "normal")
        with cluster.configure(AccountingStorageEnforce="associations"):
            said = about(digits, key, max_submitted_jobs=7)
            assert any(line.startswith("note") and "does not enforce it" in line for line in said)


def test_a_reached_submit_limit_is_no_problem(cluster, workspace, digits):
    with cluster.limit(MaxSubmitJobs=1):
        submit(cluster, workspace, "sleep 300", "others")
        assert findings(digits, "problem", probe=True) == []
        assert "AssocMaxSubmitJobLimit" in about(digits, "cpu")[0]


def test_submit_limits_of_accounts(cluster, workspace, digits):
    account = ("sacctmgr", "--immediate", "modify", "account", "where", f"name={ACCOUNT}", "set")
    cluster.run(*account, "GrpSubmitJobs=6")
    try:
        (said,) = about(digits, "max_submitted_jobs", max_submitted_jobs=7)
        assert not missing_facts(said, "problem", "6 jobs of all users", f"GrpSubmitJobs of account {ACCOUNT}")
    finally:
        cluster.run(*account, "GrpSubmitJobs=-1")


def test_nodes_that_are_reserved_for_maintenance(cluster, workspace, digits):
    cpu = CPU.model_copy(update={"constraint": "only_node1"})
    assert about(digits, "cpu", cpu=cpu)[0].startswith("ok: Slurm accepts")
    options = ("duration=60", "flags=maint,ignore_jobs", "nodes=node[1-3]", "users=root")
    cluster.run("scontrol", "create", "reservation", "reservationname=repairs", "starttime=now", *options)
    try:
        wait_until(lambda: cluster.nodes()["node1"] == "maint", lambda: str(cluster.nodes()), timeout=60)
        # Slurm's own test refuses what a submission accepts.
        assert findings(digits, "problem", cpu=cpu, probe=True, wait_s=2) == []
        assert "accepts such jobs" in about(digits, "cpu", cpu=cpu)[0]
        (said,) = about(digits, "cpu reservation", cpu=cpu)
        assert not missing_facts(said, "note", "1 fitting nodes are reserved until", "'repairs'", "accepts jobs")
        job = submit(cluster, workspace, "true", "others", "--constraint=only_node1", "--partition=cpu")
        wait_for_state(cluster, job, "PENDING")
        # Enough other nodes are in service.
        assert about(digits, "cpu.partition") == ["ok: cpu: 1 of 4 fitting nodes in service"]
    finally:
        cluster.run("scontrol", "delete", "reservationname=repairs")


def test_a_reservation_that_begins_before_a_job_ends(cluster, workspace, digits):
    options = ("starttime=now+10minutes", "duration=60", "flags=maint", "nodes=ALL", "users=root")
    cluster.run("scontrol", "create", "reservation", "reservationname=soon", *options)
    try:
        (said,) = about(digits, "cpu reservation")
        assert not missing_facts(said, "note", "'soon' begins in 9 min", "waits until its end", "`max_hours`")
        assert findings(digits, "problem") == []
    finally:
        cluster.run("scontrol", "delete", "reservationname=soon")
    assert about(digits, "cpu reservation") == []


def test_more_attempts_than_the_profile_allows(cluster, workspace, paper):
    # On nodes with two GPUs, the longest training takes about eight attempts of a day.
    shutil.copytree(REPOSITORY / "workflow/profiles/slurm", workspace / "slurm")
    (said,) = about(paper, "retries")
    assert not missing_facts(said, "problem", "8 attempts of 24 h", "allows 6", "--retries 16", "`gpu.max_hours`")
    profile = workspace / "slurm/config.yaml"
    profile.write_text(profile.read_text().replace("retries: 5", "retries: 16"))
    assert about(paper, "retries") == []
    assert any("8 attempts" in line and "allows 17" in line for line in about(paper, "gpu.max_hours"))
