"""Slurm refuses a submission: for now, which uses up no attempt, or for good, which ends the job with Slurm's words.

Each test concerns one driver, with jobs that take seconds. All drivers run at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.slurm_tiny import SideBySide, TinyWorkflow
from tools.slurm_cluster.cluster import SlurmCluster
from tools.waiting import wait_until

PATIENCE = 240
ONCE = ("--retries", "0")
THREE = dict.fromkeys(("a", "b", "c"), "sleep 1")
TIMED_OUT = 'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; return 1'
# The first call of sbatch fails, and every other one works.
FIRST = "if mkdir first 2>/dev/null; then {}; {}; fi; "


@pytest.fixture(scope="module")
def refused(session_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SideBySide]:
    """Drivers whose submissions were refused for some seconds, or always."""
    cluster = session_cluster
    with SideBySide(cluster, tmp_path_factory.mktemp("refused")) as drivers:
        cluster.run("scontrol", "update", "partitionname=short", "state=drain")
        drained = drivers.start("drained", {"a": "true", "b": "true"}, *ONCE, resources={"slurm_partition": "short"})
        drivers.start("unknown partition", {"a": "true"}, resources={"slurm_partition": "absent"})
        drivers.start("unknown account", {"a": "true"}, resources={"slurm_account": "absent"})
        accepted = FIRST.format('run "$@" > first/accepted', TIMED_OUT)
        late = drivers.start("accepted", {"a": "sleep 1"}, *ONCE, programs={"sbatch": accepted + 'run "$@"'})
        lost = FIRST.format("true", TIMED_OUT)
        drivers.start("lost", {"a": "sleep 1"}, *ONCE, programs={"sbatch": lost + 'run "$@"'})
        wait_until(lambda: late.calls("sbatch", failed=True), lambda: late.driver.output, timeout=60)
        with cluster.limit(MaxSubmitJobs=2):
            association = drivers.start("association", THREE, *ONCE)
            wait_for_refusals(association, drained)
            cluster.run("scontrol", "update", "partitionname=short", "state=up")
            with cluster.limit(MaxSubmitJobsPerUser=2):
                service = drivers.start("quality of service", THREE, *ONCE)
                wait_for_refusals(service)
                for workflow in (association, service):
                    workflow.driver.finished(PATIENCE)
        yield drivers


def wait_for_refusals(*workflows: TinyWorkflow) -> None:
    """Wait until two submissions of each workflow were refused."""
    wait_until(
        lambda: all(len(workflow.calls("sbatch", failed=True)) >= 2 for workflow in workflows),
        lambda: f"submissions are refused: {[workflow.driver.output for workflow in workflows]}",
        timeout=90,
    )


def requests(workflow: TinyWorkflow) -> set[tuple[str, ...]]:
    """Return the memory and time limit of every submission, accepted or not."""
    calls = workflow.calls("sbatch")
    return {tuple(re.findall(r"(?:--mem|-t|--time)[ =]\S+", call.arguments)) for call in calls}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("association", "AssocMaxSubmitJobLimit"),
        ("quality of service", "QOSMaxSubmitJobPerUserLimit"),
        ("drained", "Required partition not available"),
    ],
)
def test_jobs_that_are_refused_for_now_complete_without_using_up_an_attempt(
    refused: SideBySide, name: str, words: str
):
    workflow = refused[name]
    output = workflow.driver.succeeds(PATIENCE)
    assert workflow.done() == workflow.names
    assert [len(workflow.ran(name)) for name in workflow.names] == [1] * len(workflow.names)
    (request,) = requests(workflow)
    assert len(request) == 2, "a memory and a time limit"
    assert workflow.failed() == set()
    assert words in output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown partition", "Invalid partition name specified"),
        ("unknown account", "Invalid account or account/partition combination specified"),
    ],
)
def test_a_job_that_is_refused_for_good_fails_at_once(refused: SideBySide, name: str, words: str):
    workflow = refused[name]
    assert workflow.driver.finished(PATIENCE) == 1
    assert words in workflow.driver.output
    assert len(workflow.calls("sbatch")) == 1
    assert "Traceback" not in workflow.driver.output


@pytest.mark.parametrize("name", ["accepted", "lost"])
def test_a_job_whose_submission_timed_out_runs_once(refused: SideBySide, name: str):
    workflow = refused[name]
    workflow.driver.succeeds(PATIENCE)
    assert len(workflow.ran("a")) == 1
    assert len(workflow.jobs(refused.cluster, live=False)) == 1


def test_array_jobs_are_refused(cluster: SlurmCluster, tmp_path):
    workflow = TinyWorkflow(tmp_path / "array", {"a": "true", "b": "true"})
    with workflow.start(cluster, "--hafabench-slurm-array-jobs=a,b") as driver:
        assert driver.finished(PATIENCE) == 1
    assert "array jobs are not supported" in driver.output
    assert "Traceback" not in driver.output
    assert workflow.calls("sbatch") == []
