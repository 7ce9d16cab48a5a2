"""Jobs that end in different ways: which are submitted again, and what the next attempt requests.

Each test concerns one job or driver. All jobs take seconds and run at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.slurm_tiny import ENDLESS, UNTIL, SideBySide
from tools.slurm_cluster.cluster import SlurmCluster
from tools.waiting import wait_until

PATIENCE = 240
AT_FIRST = "if [ $(wc -l < {name}.ran) = 1 ]; then {script}; fi"
FIRST_ATTEMPTS = {
    "memory": "python3 -c 'x = bytearray(900_000_000); x[::4096] = bytes(len(x[::4096]))'",
    "time": ENDLESS,
    "failure": "exit 3",
    "cancelled": ENDLESS,
}


def second_succeeds(first_attempts: dict[str, str]) -> dict[str, str]:
    """Return scripts of jobs whose first attempts are these, and whose second attempts succeed."""
    return {name: AT_FIRST.format(name=name, script=script) for name, script in first_attempts.items()}


@pytest.fixture(scope="module")
def ended(session_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SideBySide]:
    """Drivers whose jobs have ended in different ways."""
    cluster = session_cluster
    elsewhere = {"slurm_extra": "'--exclude=node3'"}
    with SideBySide(cluster, tmp_path_factory.mktemp("ended")) as drivers:
        everything = drivers.start("scancel", second_succeeds({"a": ENDLESS, "b": ENDLESS}), resources=elsewhere)
        everything.wait_until_running()
        cluster.scancel("--user=root")

        growing = drivers.start("growth", second_succeeds(FIRST_ATTEMPTS), resources=elsewhere, grows=True)
        for partition in ("cancelled", "preemptible"):
            where = {"slurm_partition": partition, "slurm_extra": "'--nodelist=node3'"}
            drivers.start(partition, {"weak": UNTIL.format("end")}, resources=where)
        drivers.wait_until_running()
        cluster.scancel(*growing.ran("cancelled"))
        cluster.run("scontrol", "update", f"jobid={growing.ran('time')[0]}", "endtime=now+1second")
        strong = cluster.sbatch("sleep 1", "--partition=gpu", "--nodelist=node3", "--exclusive")
        wait_until(lambda: cluster.job(strong).state == "COMPLETED", lambda: f"{cluster.jobs()}", timeout=60)
        for partition in ("cancelled", "preemptible"):
            drivers[partition].wait_until_running(times=2)
            drivers[partition].let("end")
        yield drivers


def test_jobs_that_are_cancelled_beside_a_living_driver_are_submitted_again(ended: SideBySide):
    workflow = ended["scancel"]
    workflow.driver.succeeds(PATIENCE)
    assert [len(set(workflow.ran(name))) for name in workflow.names] == [2, 2]


def test_a_job_that_preemption_cancels_is_submitted_again(ended: SideBySide):
    workflow = ended["cancelled"]
    workflow.driver.succeeds(PATIENCE)
    first, second = workflow.ran("weak")
    assert first != second
    assert ended.cluster.job(first).state == "PREEMPTED"
    assert len(workflow.calls("sbatch")) == 2


def test_a_job_that_preemption_requeues_is_not_submitted_again(ended: SideBySide):
    workflow = ended["preemptible"]
    workflow.driver.succeeds(PATIENCE)
    first, second = workflow.ran("weak")
    assert first == second
    assert len(workflow.calls("sbatch")) == 1


@pytest.mark.parametrize(
    ("name", "states", "memory", "minutes"),
    [
        # Slurm kills the step that uses too much memory, and the job fails with it.
        ("memory", ("OUT_OF_MEMORY", "FAILED"), "800M", 5),
        ("time", ("TIMEOUT",), "400M", 10),
        ("failure", ("FAILED",), "400M", 5),
        ("cancelled", ("CANCELLED",), "400M", 5),
    ],
)
def test_only_too_little_memory_or_time_raises_a_request(
    ended: SideBySide, name: str, states: tuple[str, ...], memory: str, minutes: int
):
    workflow = ended["growth"]
    workflow.driver.succeeds(PATIENCE)
    first, second = workflow.ran(name)
    assert ended.cluster.job(first).state in states
    details = ended.cluster.details(second)
    assert (details["MinMemoryNode"], details["TimeLimit"]) == (memory, f"00:{minutes:02}:00")
