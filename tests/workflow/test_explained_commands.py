"""The command that `hafabench explain` prints is valid for Snakemake and runs only the jobs of its cell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.data.report import DatasetReport
from hafabench.explain.explain import explain
from hafabench.files import sha256_of, write_text
from hafabench.results.record import write_record
from hafabench.runs.fingerprints import complexity_fingerprint
from hafabench.runs.paths import complexity_record, dataset_report
from hafabench.runs.run import expand
from tools.checkout import BIN, REPOSITORY, job_counts
from tools.synthetic_records import complexity, evaluation


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A checkout like a user's, with its own results."""
    for name in ("Snakefile", "workflow", "configs", "slurm"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(command: str) -> dict[str, int]:
    """Return the jobs that this command would run, from a dry run in a shell."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    environment["PATH"] = os.pathsep.join([str(BIN), environment["PATH"]])
    done = subprocess.run(
        f"{command} --dry-run",
        shell=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return job_counts(done.stdout)


@pytest.mark.slow
def test_jobs_without_outputs(workspace):
    experiment = load_experiment(Path("configs/digits.yaml"))
    one = {"prepare_dataset": 2, "train_run": 2, "evaluate_run": 1, "total": 5}
    assert planned(explain(experiment, "table2/pvt_tiny_hafa/miou").remake.command) == one
    both = {"prepare_dataset": 2, "train_run": 4, "evaluate_run": 2, "total": 8}
    assert planned(explain(experiment, "table2/pvt_tiny_hafa/miou_delta").remake.command) == both
    assert planned(explain(experiment, "table1/pvt_tiny/gflops").remake.command) == {
        "count_complexity": 1,
        "total": 1,
    }
    timed = explain(experiment, "table4/pvt_v2_b1_sia_sia_sia/latency_ms")
    assert planned(timed.remake.command) == {"measure_latency": 1, "total": 1}
    study = load_experiment(Path("configs/digits_study.yaml"))
    seeds = {"prepare_dataset": 2, "train_run": 10, "evaluate_run": 5, "total": 17}
    assert planned(explain(study, "table2/pvt_tiny_hafa/miou").remake.command) == seeds


def test_existing_outputs_are_made_again_without_their_inputs(workspace):
    experiment = load_experiment(Path("configs/digits.yaml"))
    runs = expand(experiment)
    for task in ("classification", "segmentation"):
        dataset = experiment.config.datasets[task]
        report = DatasetReport(
            name=dataset.name,
            layout=dataset.data_format,
            identity=dataset.identity(),
            root=str(dataset.root),
            counts=dataset.images,
            classes=None,
            digest="d" * 64,
            digest_of="content",
            decoded=dataset.images,
        )
        dataset.root.mkdir(parents=True)
        write_text(dataset_report(experiment, task), report.model_dump_json(by_alias=True))
        run = runs[f"{task}/pvt_tiny/seed0"]
        run.folder.mkdir(parents=True)
        run.checkpoint.write_bytes(b"weights")
        name = {"classification": "top1", "segmentation": "miou"}[task]
        fields = {"fingerprint": run.fingerprint, "checkpoint_sha256": sha256_of(run.checkpoint)}
        write_record(run.record, evaluation(task, "pvt_tiny", 0, {name: 30.0}, **fields))
    found = explain(experiment, "table2/pvt_tiny/miou")
    assert found.value.mark == "measured"
    # The data set and the classification run stay as they are.
    assert planned(found.remake.command) == {"train_run": 1, "evaluate_run": 1, "total": 2}
    mark = complexity_fingerprint(experiment, "classification")
    record = complexity("classification", {"pvt_tiny": {"params": 1.0}}, fingerprint=mark)
    write_record(complexity_record(experiment, "classification"), record)
    counted = explain(experiment, "table1/pvt_tiny/params_m")
    assert planned(counted.remake.command) == {"count_complexity": 1, "total": 1}


def test_full_scale_jobs_run_on_the_cluster(workspace):
    experiment = load_experiment(Path("configs/paper.yaml"))
    found = explain(experiment, "table3/pvt_small_hafa/box_ap")
    assert "--profile slurm" in found.remake.command
    assert planned(found.remake.command) == {"prepare_dataset": 2, "train_run": 2, "evaluate_run": 1, "total": 5}
    assert "GPU-hours" in found.cost
