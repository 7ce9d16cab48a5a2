"""The workflow with a training that collapses and one that fails: tables are made of what there is, and completed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from tests.support.experiments import experiment_content, shrink
from tests.support.markdown import table_rows
from tools.checkout import job_counts, snakemake

pytestmark = pytest.mark.slow

COLLAPSING = "classification/pvt_tiny_hafa"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outcomes")
    content = experiment_content()
    shrink(content)
    del content["latency"]
    diverging = {"lr": 1.0e37, "weight_decay": 1.0e4}
    content["overrides"].append({"runs": f"{COLLAPSING}/*", "why": "to diverge", "set": diverging})
    (folder / "digits.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def row_of(workspace: Path, table: str, label: str) -> list[str]:
    rows = table_rows((workspace / f"reports/digits/tables/{table}.md").read_text())
    return next(row for row in rows if row[0] == label)


def test_a_collapse_and_a_failure_leave_tables_that_the_next_run_completes(workspace):
    experiment = workspace / "digits.yaml"
    results = workspace / "results/digits"
    # A training state that cannot be read fails until it is deleted.
    damaged = results / "classification/resnet18/seed0/work/state.pth"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    first = snakemake(workspace, experiment, "--keep-going", "--retries", "1", "all")
    assert first.returncode != 0
    assert "1 failed or interrupted" in first.stdout, first.stdout[-6000:]
    # The training that fails is tried twice, and the collapsed one is not repeated.
    assert first.stdout.count("training collapsed at step") >= 1
    record = json.loads((results / COLLAPSING / "seed0/evaluate.json").read_text())
    assert (record["metrics"], record["collapse"]["step"]) == ([], 2)
    for task in ("segmentation", "detection"):
        dependent = json.loads((results / task / "pvt_tiny_hafa/seed0/evaluate.json").read_text())
        assert (dependent["metrics"], dependent["collapse"]) == ([], record["collapse"])
    assert "\u2014" in row_of(workspace, "table1", "PVT-Tiny(HAFA)")
    assert "failed" in row_of(workspace, "table1", "ResNet18")
    assert any(cell.replace(".", "").isdigit() for cell in row_of(workspace, "table1", "ResNet18"))
    page = (workspace / "reports/digits/report.html").read_text()
    assert "state.pth: delete this file to start the training over" in page
    assert "its starting weights, classification/pvt_tiny_hafa/seed0, collapsed at step 2" in page

    checkpoint = results / COLLAPSING / "seed0/checkpoint.pth"
    written = checkpoint.stat().st_mtime_ns
    planned = job_counts(snakemake(workspace, experiment, "--dry-run", "all").stdout)
    assert (
        planned["train_run"] == planned["evaluate_run"] == planned["collect_records"] == planned["write_report"] == 1
    )
    damaged.unlink()
    started = time.time()
    second = snakemake(workspace, experiment, "all")
    assert second.returncode == 0, second.stdout[-6000:]
    assert checkpoint.stat().st_mtime_ns == written
    assert (workspace / "reports/digits/report.html").stat().st_mtime > started
    assert "failed" not in row_of(workspace, "table1", "ResNet18")
    assert "\u2014" in row_of(workspace, "table1", "PVT-Tiny(HAFA)")
    assert job_counts(snakemake(workspace, experiment, "--dry-run", "all").stdout) == {}

    # Another learning rate repeats the collapsed run and those that start from it.
    content = yaml.safe_load(experiment.read_text())
    del content["overrides"][-1]
    experiment.write_text(yaml.safe_dump(content, sort_keys=False))
    assert job_counts(snakemake(workspace, experiment, "--dry-run", "all").stdout)["train_run"] == 3
