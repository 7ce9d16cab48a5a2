"""Changes of the embedded experiment for tests, and finished runs that were never trained."""

from __future__ import annotations

import json
from typing import Any

from hafabench.results.record import write_record
from hafabench.runs.run import Run
from tools import synthetic_records


def fixed_length(content: dict[str, Any]) -> None:
    """Train classification for 4 epochs of 32 steps of 32 images, independent of the embedded experiment's budget."""
    content["datasets"]["classification"]["images"]["train"] = 1024
    length = {"epochs": 4, "warmup_epochs": 0, "batch_size": 32}
    content["overrides"].append({"runs": "classification/*", "why": "tests", "set": length})


def evaluated(run: Run, **changes: Any) -> None:
    """Pretend that a run was trained and evaluated under its present configuration."""
    record = synthetic_records.evaluation(
        run.task, run.model.name, run.seed, {"top1": 50.0}, fingerprint=run.fingerprint, **changes
    )
    write_record(run.record, record)
    (run.folder / "config.json").write_text(json.dumps(run.resolved()))
    run.checkpoint.touch()
