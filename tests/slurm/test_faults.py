"""Faults of a cluster during real trainings: each experiment completes with the results of an undisturbed one.

Every fault has its own checkout, driver and node. All faults run at the same time, because they mostly wait. The
weights must equal those of an undisturbed training outside Slurm, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from hafabench.config.experiment import load_experiment
from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.results.history import read_history
from hafabench.results.record import read_record
from hafabench.runs.run import expand
from tests.support.markdown import table_rows
from tests.support.slurm_jobs import restore
from tests.support.slurm_workspace import EXPERIMENT, MODEL, Workspace
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.driver import Driver
from tools.waiting import wait_until

RUN = f"classification/{MODEL}/seed0"
PATIENCE = 400


class Session:
    """One checkout with one fault: its driver, the fault, and the observations when the fault occurred."""

    def __init__(self, cluster: SlurmCluster, workspace: Workspace):
        self.cluster, self.workspace = cluster, workspace
        self.driver: Driver
        self.seen: dict[str, Any] = {}

    def job(self, rule: str = "train_run", seed: int = 0):
        """Return the only live job of a rule and seed. Two Slurm jobs for one job of the workflow are an error."""
        jobs = self.jobs(rule, seed)
        assert len(jobs) == 1, jobs
        return jobs[0]

    def jobs(self, rule: str = "train_run", seed: int = 0):
        here = str(self.workspace.folder)
        wanted = f"rule_{rule}_wildcards_classification_{MODEL}_{seed}"
        return [job for job in self.cluster.jobs() if job.folder == here and job.comment == wanted]

    def history_steps(self, seed: int = 0) -> list[int]:
        path = self.workspace.run_folder(seed) / "history.jsonl"
        return [int(entry["step"]) for entry in read_history(path)] if path.exists() else []


def cancel(session: Session) -> None:
    session.cluster.scancel(session.seen.setdefault("job", session.job().id))


def preempt(session: Session) -> None:
    """Run a job of a partition with higher priority on the whole node for some seconds."""
    session.seen["job"] = session.job().id
    session.cluster.sbatch("sleep 5", "--partition=gpu", "--nodelist=node3", "--exclusive", "--time=1")


def let_node_die(session: Session) -> None:
    session.seen["job"] = session.job().id
    session.cluster.node_down("node4")
    wait_until(lambda: session.job().state == "PENDING", "the job is queued again", timeout=30)
    session.cluster.node_up("node4")


def kill_driver(session: Session) -> None:
    session.seen["job"] = session.job().id
    session.driver.kill()


def restart_controller(session: Session) -> None:
    session.seen["job"] = session.job().id
    session.cluster.restart_controller()
    session.seen["state"] = session.cluster.job(session.seen["job"]).state


def none(session: Session) -> None:
    session.seen["job"] = session.job().id


@pytest.fixture(scope="module")
def sessions(tmp_path_factory, session_cluster, undisturbed) -> Iterator[dict[str, Session]]:
    """The session of every fault, after the fault occurred in a training that had written a work checkpoint."""
    seconds = load_checkpoint(undisturbed.run_folder() / "checkpoint.pth")["meta"]["training"]["seconds"]
    # The margin leaves a training so little of its minute that it needs another attempt on a quiet machine too. On a
    # busy one, where a job takes half a minute before it trains, each attempt needs more of the minute.
    margin = 0.5 if seconds < 25 else 0.25
    faults: dict[str, tuple[dict[str, Any], Callable[[Session], None], tuple[str, ...], tuple[int, ...]]] = {
        "scancel": ({"constraint": "only_node1"}, cancel, (), (0,)),
        "preemption": ({"partition": "preemptible", "constraint": "only_node3"}, preempt, (), (0,)),
        "node loss": ({"constraint": "only_node4"}, let_node_die, (), (0,)),
        "driver killed": ({"constraint": "only_node2"}, kill_driver, (), (0,)),
        # On a busy machine some attempts reach their minute before they train.
        "time limit": (
            {"constraint": "only_node2"},
            none,
            ("--retries", "20", "--set-resources", "train_run:runtime=1"),
            (0,),
        ),
        # This fault comes last, because a job that starts without the controller waits a minute for its step.
        "controller restart": ({"constraint": "only_node1"}, restart_controller, ("--retries", "1"), (0, 1)),
    }
    folder = tmp_path_factory.mktemp("faults")
    running: dict[str, Session] = {}

    def start(name: str) -> None:
        pool, _, arguments, seeds = faults[name]
        site = {"cpu": pool, "stop_margin_minutes": margin if name == "time limit" else 0.5}
        session = Session(session_cluster, Workspace(folder / name.replace(" ", "_"), site, undisturbed))
        if name == "controller restart":
            # One of several jobs fails: its work checkpoint cannot be read, and is never deleted automatically.
            broken = session.workspace.run_folder(seed=1) / "work/state.pth"
            broken.parent.mkdir(parents=True)
            broken.write_bytes(b"not a state")
        session.driver = session.workspace.start(session_cluster, *arguments, seeds=seeds)
        running[name] = session

    def let_faults_occur(names: list[str]) -> None:
        for name in names:
            start(name)
        waiting = {name: running[name] for name in names}
        deadline = time.monotonic() + PATIENCE
        while waiting:
            assert time.monotonic() < deadline, f"never trained: {list(waiting)}"
            for name, session in list(waiting.items()):
                finished = session.driver.process.poll()
                assert finished is None, f"{name}: over before its fault: {session.driver.output[-4000:]}"
                if session.workspace.is_training():
                    faults[name][1](waiting.pop(name))
            time.sleep(0.1)

    try:
        *first, last = faults
        let_faults_occur(first)
        let_faults_occur([last])
        yield running
    finally:
        for session in running.values():
            session.driver.kill()
        restore(session_cluster)


def completes_like(undisturbed: Workspace, session: Session, seed: int = 0) -> dict[str, Any]:
    """Check weights, history and record of a finished run, and return the training's provenance."""
    workspace = session.workspace
    content = load_checkpoint(workspace.run_folder(seed) / "checkpoint.pth")
    expected = load_checkpoint(undisturbed.run_folder(seed) / "checkpoint.pth")
    assert content["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        assert torch.equal(content["state_dict"][name], value), name
    training = content["meta"]["training"]
    assert session.history_steps(seed) == list(range(5, training["steps"] + 1, 5)), (
        "no step is missing or there twice"
    )
    run = expand(load_experiment(workspace.folder / EXPERIMENT))[f"classification/{MODEL}/seed{seed}"]
    record = read_record(workspace.run_folder(seed) / "evaluate.json")
    assert (record.id, record.fingerprint) == (run.id, run.fingerprint)
    assert record.training == training
    leftovers = [path for path in workspace.run_folder(seed).rglob("*") if path.name.endswith((".tmp", ".old"))]
    assert leftovers == []
    assert not (workspace.run_folder(seed) / "work").exists()
    return training


def states(session: Session, rule: str = "train_run", seed: int = 0) -> list[str]:
    """Return the states of all attempts at a job, requeues included, from the oldest."""
    name = f"rule_{rule}_wildcards_classification_{MODEL}_{seed}"
    fields = ("JobID", "State", "Comment", "WorkDir", "Start")
    rows = session.cluster.sacct(*fields)
    here = [row for row in rows if row["Comment"] == name and row["WorkDir"] == str(session.workspace.folder)]
    return [row["State"].split()[0] for row in sorted(here, key=lambda row: (int(row["JobID"]), row["Start"]))]


def accounted(session: Session, expected: list[str]) -> None:
    """Wait until the accounting contains exactly these attempts."""
    wait_until(lambda: states(session) == expected, lambda: f"attempts {expected}, now {states(session)}", timeout=60)


def test_a_cancelled_job_is_retried_and_resumes(sessions, undisturbed):
    session = sessions["scancel"]
    session.driver.succeeds(PATIENCE)
    assert completes_like(undisturbed, session)["resumes"] == 1
    accounted(session, ["CANCELLED", "COMPLETED"])
    assert "resumed after step" in session.workspace.slurm_logs()[-1]
    costs = (session.workspace.folder / "reports/faults/costs.md").read_text()
    rows = [row[:5] for row in table_rows(costs)]
    assert ["train_run", RUN, "COMPLETED", "2", "0"] in rows, "the driver writes the costs when it ends"


def test_a_preempted_job_is_requeued_and_resumes(sessions, undisturbed):
    session = sessions["preemption"]
    session.driver.succeeds(PATIENCE)
    assert completes_like(undisturbed, session)["resumes"] == 1
    accounted(session, ["PREEMPTED", "COMPLETED"])
    assert session.driver.output.count("rule train_run:") == 1, "the driver did not submit it again"


def test_a_job_whose_node_died_is_requeued_and_resumes(sessions, undisturbed):
    session = sessions["node loss"]
    session.driver.succeeds(PATIENCE)
    assert completes_like(undisturbed, session)["resumes"] == 1
    accounted(session, ["NODE_FAIL", "COMPLETED"])


def test_a_training_leaves_before_its_time_limit_and_the_next_attempt_resumes(sessions, undisturbed):
    session = sessions["time limit"]
    # On a busy machine a dozen attempts may be necessary, each with some seconds of training.
    session.driver.succeeds(2 * PATIENCE)
    resumes = completes_like(undisturbed, session)["resumes"]
    assert resumes >= 1
    logs = session.workspace.slurm_logs()
    # On a busy machine an attempt may reach its limit of one minute before it trains.
    assert len(logs) >= resumes + 1
    assert any("stopped after step" in text for text in logs[:-1])
    assert "resumed after step" in logs[-1]
    wait_until(lambda: len(states(session)) == len(logs), lambda: f"attempts: {states(session)}", timeout=60)
    *left, last = states(session)
    # The rest of the job has some seconds before the limit of one minute, too few on a busy machine.
    assert set(left) <= {"FAILED", "TIMEOUT"}
    assert last == "COMPLETED"


def test_a_running_job_outlives_its_driver_and_is_not_trained_again(sessions, undisturbed):
    session = sessions["driver killed"]
    before = session.seen["job"]
    with session.workspace.start(session.cluster) as second:
        assert second.finished(PATIENCE) != 0
        assert "Directory cannot be locked" in second.output
        assert second.submitted() == []
    wait_until(lambda: not session.jobs(), "the job ends by itself", timeout=PATIENCE)
    with session.workspace.start(session.cluster, "--unlock") as third:
        third.succeeds(PATIENCE)
    with session.workspace.start(session.cluster) as fourth:
        fourth.succeeds(PATIENCE)
        assert "train_run" not in fourth.output
        assert len(fourth.submitted()) == 1, "the evaluation alone"
    assert completes_like(undisturbed, session)["resumes"] == 0
    accounted(session, ["COMPLETED"])
    assert before not in fourth.submitted()


def test_jobs_continue_over_a_restart_of_the_controller(sessions, undisturbed):
    session = sessions["controller restart"]
    assert session.seen["state"] == "RUNNING"
    session.driver.finished(PATIENCE)
    assert completes_like(undisturbed, session)["resumes"] == 0
    accounted(session, ["COMPLETED"])


def test_a_failing_job_stops_no_other_and_is_named(sessions, undisturbed):
    session = sessions["controller restart"]
    assert session.driver.finished(PATIENCE) == 1
    said, run = session.driver.output, f"classification/{MODEL}/seed1"
    assert (session.workspace.run_folder(0) / "evaluate.json").exists()
    assert "Error in rule train_run" in said
    assert f"results/faults/{run}/train.log" in said
    assert f"hafabench train {run} " in said, "the command to repeat it"
    assert "not a readable checkpoint" in said
    assert "delete this file to start the training over" in said
    summary = said[said.index("1 failed or interrupted") :]
    assert f"log: results/faults/{run}/train.log" in summary
    assert f"again: hafabench train {run} --experiment" in summary
    broken = session.workspace.run_folder(1) / "work/state.pth"
    assert broken.read_bytes() == b"not a state"
    broken.unlink()
    with session.workspace.start(session.cluster, seeds=(0, 1)) as again:
        again.succeeds(PATIENCE)
        assert len(again.submitted()) == 2, "training and evaluation of the one that failed, nothing else"
    assert completes_like(undisturbed, session, seed=1)["resumes"] == 0
