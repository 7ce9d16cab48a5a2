"""Changes of the embedded experiment for tests, and finished runs that were never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from hafabench.config.metrics import main_metric
from hafabench.results.record import write_record
from hafabench.runs.run import Run
from tools import synthetic_records
from tools.checkout import REPOSITORY

EXAMPLE = Path(__file__).parent / "data/digits.yaml"
"""An experiment with models of all tasks in full size. Tests rely on its numbers, and the shipped ones may change."""


def fixed_length(content: dict[str, Any]) -> None:
    """Train classification for 4 epochs of 32 steps of 32 images, independent of the embedded experiment's budget."""
    content["datasets"]["classification"]["images"]["train"] = 1024
    length = {"epochs": 4, "warmup_epochs": 0, "batch_size": 32}
    content["overrides"].append({"runs": "classification/*", "why": "tests", "set": length})


def experiment_content(base: str = "digits") -> dict[str, Any]:
    """Return the content of an experiment file of this project, which can be written into any folder.

    Args:
        base: Name of the experiment; ``digits`` is that of the tests.
    """
    configs = REPOSITORY / "configs"
    file = EXAMPLE if base == "digits" else configs / f"{base}.yaml"
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    for name in ("recipes", "tables.yaml", "paper_values.csv", "claims.yaml"):
        content[name.split(".")[0]] = str(configs / name)
    return content


def shrink(content: dict[str, Any]) -> None:
    """Keep two classification models, one of them with both dense tasks, and a few images and steps."""
    content["train"] = {
        "classification": ["resnet18", "pvt_tiny_hafa"],
        "segmentation": ["pvt_tiny_hafa"],
        "detection": ["pvt_tiny_hafa"],
    }
    content["datasets"]["classification"]["images"] = {"train": 20, "val": 10}
    for task in ("segmentation", "detection"):
        content["datasets"][task]["images"] = {"train": 4, "val": 3}
    # Overrides of single models name runs that this experiment does not have.
    content["overrides"] = [entry for entry in content["overrides"] if entry["runs"].split("/")[1:] == ["*"]]
    content["overrides"] += [
        {"runs": "classification/*", "why": "miniature", "set": {"epochs": 1, "warmup_epochs": 0, "batch_size": 10}},
        {"runs": "segmentation/*", "why": "miniature", "set": {"iterations": 2, "batch_size": 2}},
        {
            "runs": "detection/*",
            "why": "miniature",
            "set": {"epochs": 1, "milestones": [], "batch_size": 2, "warmup_iterations": 0},
        },
    ]
    content["latency"][0].update(models=["pvt_v2_b1_hafa"], image_size=64, repeats=3, warmup=1)


def evaluated(run: Run, **changes: Any) -> None:
    """Pretend that a run was trained and evaluated under its present configuration."""
    record = synthetic_records.evaluation(
        run.task, run.model.name, run.seed, {main_metric(run.task).name: 50.0}, fingerprint=run.fingerprint, **changes
    )
    write_record(run.record, record)
    (run.folder / "config.json").write_text(json.dumps(run.resolved()))
    run.checkpoint.touch()
