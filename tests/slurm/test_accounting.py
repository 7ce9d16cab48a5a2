"""Costs per job from a real sacct, summed over attempts and requeues."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hafabench.cluster.accounting import Sacct
from hafabench.cluster.commands import run
from hafabench.cluster.costs import read_accounting, update_accounting, write_costs
from hafabench.cluster.pyslurm_backend import choose_accounting
from hafabench.config.experiment import load_experiment
from tests.support.markdown import table_rows
from tests.support.slurm_jobs import EVALUATION, TRAINING, submit, wait_for_state
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


def test_sacct_serves_where_pyslurm_does_not(cluster, workspace):
    backend, sentence = choose_accounting()
    assert backend.name == "sacct"
    assert "pyslurm" in sentence and "\n" not in sentence
    assert os.environ["SLURM_CONF"] == str(cluster.settings.slurm_conf)
