"""Costs per job from a real sacct, summed over attempts and requeues."""

from __future__ import annotations

import os
import time
import types
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from hafabench.cluster.accounting import Sacct
from hafabench.cluster.commands import run
from hafabench.cluster.costs import read_accounting, update_accounting, write_costs
from hafabench.cluster.pyslurm_backend import PySlurm, choose_accounting
from hafabench.config.experiment import load_experiment
from tests.support.markdown import table_rows
from tests.support.slurm_jobs import EVALUATION, TRAINING, submit, wait_for_state
from tools.slurm_cluster.configuration import GPU_TYPE
from tools.waiting import wait_until


def ended(job: str, count: int) -> None:
    """Wait until the accounting contains ``count`` finished attempts of a job."""

    def known() -> bool:
        attempts = Sacct(run).of_jobs([job])
        return len(attempts) == count and all(attempt.ended for attempt in attempts)

    wait_until(known, lambda: f"{count} attempts of {job}: {Sacct(run).of_jobs([job])}", timeout=60)


def test_costs_sum_over_requeues_and_attempts(cluster, workspace, write_experiment):
    experiment = load_experiment(write_experiment())
    requeued = submit(cluster, workspace, "sleep 300", TRAINING, "--gpus=2")
    wait_for_state(cluster, requeued, "RUNNING")
    time.sleep(2)
    cluster.run("scontrol", "requeue", requeued)
    wait_until(
        lambda: cluster.details(requeued).get("Restarts") == "1" and cluster.job(requeued).state == "RUNNING",
        lambda: f"{requeued} runs again ({cluster.job(requeued)})",
        timeout=90,
    )
    cluster.scancel(requeued)
    # The workflow's next attempt is another Slurm job of the same job.
    work = "import time; kept = bytearray(150_000_000)\nwhile time.process_time() < 3: pass"
    second = submit(
        cluster, workspace, f"srun --ntasks=1 python3 -c '{work}'", TRAINING, "--gpus=1", "--cpus-per-task=2"
    )
    failing = submit(cluster, workspace, "exit 3", EVALUATION)
    elsewhere = submit(cluster, Path("/tmp"), "true", TRAINING)
    for job, attempts in ((requeued, 2), (second, 1), (failing, 1), (elsewhere, 1)):
        ended(job, attempts)

    record = update_accounting(experiment, Sacct(run), datetime.now() - timedelta(hours=1))

    training, evaluation = record.jobs
    assert (training.rule, training.subject) == ("train_run", "classification/pvt_tiny/seed0")
    assert [attempt.job_id for attempt in training.attempts] == [requeued, requeued, second]
    assert [attempt.gpus for attempt in training.attempts] == [2, 2, 1]
    assert (training.submissions, training.requeues) == (2, 1)
    assert [attempt.state for attempt in training.attempts] == ["REQUEUED", "CANCELLED", "COMPLETED"]
    assert training.gpu_hours == pytest.approx(sum(one.gpus * one.elapsed_s for one in training.attempts) / 3600)
    assert training.attempts[0].elapsed_s >= 2
    assert training.attempts[0].elapsed_s + training.attempts[1].elapsed_s < training.gpu_hours * 3600
    assert training.peak_memory_mb == pytest.approx(160, abs=20)
    assert training.attempts[-1].cpus == 2
    assert training.attempts[-1].cpu_s == pytest.approx(3, abs=1)
    assert 0 < training.cpu_use < 0.6
    assert training.nodes and set(training.nodes) <= set(cluster.settings.node_names)
    assert (evaluation.state, evaluation.attempts[0].exit_code, evaluation.gpu_hours) == ("FAILED", 3, 0)

    assert read_accounting(workspace / "results/digits/accounting.json") == record
    markdown, _ = write_costs(record, workspace / "reports")
    rows = [row[:5] for row in table_rows(markdown.read_text())]
    assert ["train_run", "classification/pvt_tiny/seed0", "COMPLETED", "2", "1"] in rows


def test_a_running_job_is_known_by_its_submission(cluster, workspace, write_experiment):
    experiment = load_experiment(write_experiment())
    job = submit(cluster, workspace, "sleep 300", TRAINING, "--gpus=1")
    wait_for_state(cluster, job, "RUNNING")

    def known() -> list[tuple[str, str]]:
        record = update_accounting(experiment, Sacct(run), datetime.now() - timedelta(hours=1))
        return [(job.state, job.attempts[0].job_id) for job in record.jobs]

    assert wait_until(known, f"the accounting contains {job} and its job of the workflow", timeout=60) == [
        ("RUNNING", job)
    ]
    cluster.scancel(job)
    ended(job, 1)
    record = update_accounting(experiment, Sacct(run), datetime.now() - timedelta(hours=1))
    assert [(job.state, len(job.attempts)) for job in record.jobs] == [("CANCELLED", 1)]


# One job for each way to request GPUs: options of sbatch, and the GPUs that Slurm then allocates.
GPU_REQUESTS = {
    "of the job": (["--gpus=2"], 2),
    "of a node": (["--gres=gpu:2"], 2),
    "with a type, on two nodes": ([f"--gres=gpu:{GPU_TYPE}:1", "--nodes=2"], 2),
    "per node, on two nodes": (["--gpus-per-node=1", "--nodes=2"], 2),
    "per task": (["--gpus-per-task=1", "--ntasks=2"], 2),
    "all of a node": (["--exclusive"], 2),
    "none": ([], 0),
}


def as_pyslurm_reports(jobs: dict[str, str], work_s: float) -> types.ModuleType:
    """A stand-in of pyslurm 22.5.3: its jobs have no GPUs and no CPU seconds, and their steps have milliseconds."""
    loaded = []
    for attempt in Sacct(run).of_jobs(list(jobs.values())):
        statistics = SimpleNamespace(total_cpu_time=int(1000 * work_s), max_resident_memory=10**7)
        times = {
            f"{name}_time": int(datetime.fromisoformat(value).timestamp())
            for name, value in (("submit", attempt.submitted), ("start", attempt.started), ("end", attempt.ended))
        }
        loaded.append(
            SimpleNamespace(
                **times,
                id=int(attempt.job_id),
                name=attempt.name,
                state=attempt.state,
                exit_code=0,
                elapsed_time=int(attempt.elapsed_s),
                cpus=attempt.cpus,
                comment=attempt.comment,
                nodelist=attempt.nodes,
                submit_command=attempt.submit_line,
                working_directory=attempt.folder,
                steps={0: SimpleNamespace(state="COMPLETED", stats=statistics)},
                stats=SimpleNamespace(total_cpu_time=0),
            )
        )
    module = types.ModuleType("pyslurm")
    module.RPCError = OSError
    module.db = SimpleNamespace(JobFilter=SimpleNamespace, Jobs=SimpleNamespace(load=lambda _filter: loaded))
    return module


def test_gpus_and_cpu_seconds_however_they_were_requested(cluster, workspace):
    """The same from sacct and from what pyslurm 22.5.3 reports, completed by sacct; then by very many ids."""
    work_s = 1.0
    script = f"python3 -c 'import time\nwhile time.process_time() < {work_s}: pass'"
    jobs = {
        name: submit(cluster, workspace, script, TRAINING, *options) for name, (options, _) in GPU_REQUESTS.items()
    }
    for job in jobs.values():
        ended(job, 1)
    expected = {jobs[name]: gpus for name, (_, gpus) in GPU_REQUESTS.items()}
    by_sacct = Sacct(run).of_jobs(list(jobs.values()))
    assert {attempt.job_id: attempt.gpus for attempt in by_sacct} == expected
    assert all(attempt.cpu_s == pytest.approx(work_s, abs=0.5) for attempt in by_sacct)

    since = datetime.now() - timedelta(hours=1)
    by_pyslurm = PySlurm(as_pyslurm_reports(jobs, work_s), run).attempts(since)
    mine = {attempt.job_id: attempt for attempt in by_pyslurm if attempt.job_id in expected}
    assert {job: attempt.gpus for job, attempt in mine.items()} == expected
    assert all(attempt.cpu_s == work_s for attempt in mine.values())

    unknown = map(str, range(10**6, 10**6 + 17_000))
    found = Sacct(run).of_jobs([*jobs.values(), *unknown])
    assert {attempt.job_id for attempt in found} == set(expected)


def test_sacct_serves_where_pyslurm_does_not(cluster, workspace):
    backend, sentence = choose_accounting()
    assert backend.name == "sacct"
    assert "pyslurm" in sentence and "\n" not in sentence
    assert os.environ["SLURM_CONF"] == str(cluster.settings.slurm_conf)
