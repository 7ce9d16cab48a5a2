"""Slurm does not answer, or has forgotten a job that ended: the driver notices every end, and runs no job twice.

Each test concerns one driver, with jobs that take seconds. All drivers of a fixture run at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.slurm_tiny import ENDLESS, UNTIL, SideBySide, TinyWorkflow
from tools.slurm_cluster.cluster import SlurmCluster
from tools.waiting import wait_until

PATIENCE = 100
ONCE = ("--retries", "0")


def unanswered(workflow: TinyWorkflow) -> int:
    return len(workflow.calls("squeue", "sacct", failed=True))


@pytest.fixture(scope="module")
def outage(session_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SideBySide]:
    """Drivers during and after a time in which neither the controller nor the accounting answers."""
    cluster = session_cluster
    with SideBySide(cluster, tmp_path_factory.mktemp("outage")) as drivers:
        jobs = {"good": UNTIL.format("away"), "bad": f"{UNTIL.format('away')}; exit 3", "late": UNTIL.format("back")}
        ends = drivers.start("jobs end", jobs, *ONCE)
        during = drivers.start("interrupted during", {"one": ENDLESS})
        after = drivers.start("interrupted after", {"one": ENDLESS})
        drivers.wait_until_running()

        # The controller is too slow for sbatch, but submits the job afterwards.
        with cluster.paused_controller():
            slow = drivers.start("slow", {"one": "true"}, *ONCE)
            wait_until(lambda: slow.calls("sbatch", failed=True), lambda: slow.driver.output, timeout=90)
        wait_until(lambda: slow.jobs(cluster, live=False), "the controller submits the job", timeout=30)

        cluster.stop_controller()
        cluster.stop_accounting()
        drivers.start("started during", {"one": "true", "two": "true"}, *ONCE)
        ends.let("away")
        watching = (ends, during, after)
        before = [unanswered(workflow) for workflow in watching]
        wait_until(
            lambda: all(unanswered(workflow) >= count + 2 for workflow, count in zip(watching, before, strict=True)),
            lambda: f"queries fail: {[unanswered(workflow) for workflow in watching]}",
            timeout=120,
        )
        during.driver.interrupt()
        wait_until(lambda: during.calls("scancel", failed=True), lambda: during.driver.output, timeout=60)
        cluster.start_accounting()
        cluster.start_controller()
        ends.let("back")
        after.driver.interrupt()
        yield drivers


def test_jobs_that_end_during_an_outage(outage: SideBySide):
    workflow = outage["jobs end"]
    assert workflow.driver.finished(PATIENCE) == 1
    assert workflow.done() == ["good", "late"]
    assert [len(workflow.ran(name)) for name in workflow.names] == [1, 1, 1]
    assert workflow.failed() == {"bad"}


@pytest.mark.parametrize("when", ["during", "after"])
def test_a_driver_that_is_interrupted_cancels_its_jobs(outage: SideBySide, when: str):
    workflow = outage[f"interrupted {when}"]
    assert workflow.driver.finished(PATIENCE) == 1
    wait_until(lambda: not workflow.jobs(outage.cluster), lambda: workflow.driver.output, timeout=30)
    assert "Traceback" not in workflow.driver.output


def test_a_driver_that_is_started_during_an_outage_waits(outage: SideBySide):
    workflow = outage["started during"]
    workflow.driver.succeeds(PATIENCE)
    assert [len(workflow.ran(name)) for name in workflow.names] == [1, 1]


def test_a_submission_that_timed_out_but_succeeded_is_not_repeated(outage: SideBySide):
    workflow = outage["slow"]
    workflow.driver.succeeds(PATIENCE)
    assert len(workflow.ran("one")) == 1
    assert len(workflow.jobs(outage.cluster, live=False)) == 1


@pytest.fixture(scope="module")
def forgotten(session_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SideBySide]:
    """Drivers whose jobs ended, and were forgotten by the controller, between two of their queries."""
    cluster = session_cluster
    with (
        SideBySide(cluster, tmp_path_factory.mktemp("forgotten")) as drivers,
        cluster.configure(MinJobAge=2),
    ):
        jobs = {"good": UNTIL.format("end"), "bad": f"{UNTIL.format('end')}; exit 3", "cancelled": ENDLESS}
        held = {"squeue": f'{UNTIL.format("unheld")}; run "$@"'}
        none = {"sacct": 'echo "Slurm accounting storage is disabled" >&2; return 1'}
        drivers.start("with accounting", jobs, *ONCE, programs=held)
        drivers.start("without accounting", jobs, *ONCE, programs=held | none)
        stopped = drivers.start("stopped", jobs, *ONCE)
        drivers.wait_until_running()
        with stopped.driver.paused():
            for workflow in drivers.workflows.values():
                workflow.let("end")
                cluster.scancel(*workflow.ran("cancelled"))
            wait_until(lambda: not cluster.jobs(live=False), lambda: f"{cluster.jobs(live=False)}", timeout=60)
            for workflow in drivers.workflows.values():
                workflow.let("unheld")
        yield drivers


@pytest.mark.parametrize("name", ["with accounting", "without accounting", "stopped"])
def test_ends_that_the_controller_has_forgotten(forgotten: SideBySide, name: str):
    workflow = forgotten[name]
    assert workflow.driver.finished(PATIENCE) == 1
    assert workflow.done() == ["good"]
    assert [len(workflow.ran(name)) for name in workflow.names] == [1, 1, 1]
    assert workflow.failed() == {"bad", "cancelled"}
