"""Synthetic records, and frames collected from them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hafabench.config.metrics import METRICS
from hafabench.reporting.frame import collect
from hafabench.results.record import ImportSource, Metric, Provenance, Record, write_record

COMMIT = "0123456789abcdef0123456789abcdef01234567"

SOURCE = ImportSource(
    kind="csv", file="elsewhere.csv", sha256="0" * 64, read="line 2", imported="2026-01-02T03:04:05+00:00"
)


def provenance(**changes) -> Provenance:
    values = {
        "command": "hafabench evaluate",
        "git_commit": COMMIT,
        "git_dirty": False,
        "packages": {"torch": "2.14.1"},
        "python": "3.11.2",
        "device": "cpu",
        "threads": 1,
        "host": "node1",
        "started": "2026-01-02T03:04:05+00:00",
        "duration_s": 1.5,
        "peak_memory_mb": 512.0,
    }
    return Provenance(**(values | changes))


def evaluation(task: str, model: str, seed: int | None, values: dict[str, float], **changes) -> Record:
    """Return the evaluation record of one run.

    Args:
        task: The task.
        model: The name of the model.
        seed: The seed of the run.
        values: Percentages by the name of their metric.
        changes: Fields of the record or of its provenance.
    """
    about = {key: changes.pop(key) for key in list(changes) if key in Provenance.model_fields}
    fields = {
        "experiment": "digits",
        "scale": "embedded",
        "verb": "evaluate",
        "id": f"{task}/{model}/seed{seed}",
        "fingerprint": "0" * 12,
        "metrics": [
            Metric(task=task, model=model, seed=seed, name=name, value=value, unit="%")
            for name, value in values.items()
        ],
        "provenance": provenance(**about),
    }
    if changes.get("origin") == "imported":
        fields["source"] = SOURCE
    return Record(**(fields | changes))


def complexity(task: str, values: dict[str, dict[str, float]], convention: str | None = None, **changes) -> Record:
    """Return the complexity record of a task from ``{model: {metric: value}}``."""
    metrics = [
        Metric(task=task, model=model, name=name, value=value, unit=METRICS[name].unit, convention=convention)
        for model, numbers in values.items()
        for name, value in numbers.items()
    ]
    return evaluation(task, "any", None, {}, verb="complexity", id=f"complexity/{task}", metrics=metrics, **changes)


def latency(
    name: str, values: dict[str, tuple[float, float, float]], *, baseline: str | None = None, **changes
) -> Record:
    """Return the record of a latency group.

    Args:
        name: The name of the group.
        values: First quartile, median and third quartile of each model's latency, in ms.
        baseline: The model to which the others have a ratio; without one there are no ratios.
        changes: Fields of the record or of its provenance.
    """
    about = {"task": "classification", "repeats": 20}
    metrics = [
        Metric(model=model, name="latency_ms", value=median, unit="ms", low=low, high=high, **about)
        for model, (low, median, high) in values.items()
    ]
    metrics += [
        Metric(model=model, name="latency_ratio", value=median / values[baseline][1], unit="1", **about)
        for model, (_, median, _) in values.items()
        if baseline is not None and model != baseline
    ]
    return evaluation(
        "classification", "any", None, {}, verb="latency", id=f"latency/{name}", metrics=metrics, **changes
    )


def write_records(folder: Path, records: list[Record]) -> list[Path]:
    """Write each record to its path in an experiment's results."""
    paths = []
    for record in records:
        path = folder / record.id / "evaluate.json" if record.verb == "evaluate" else folder / f"{record.id}.json"
        write_record(path, record)
        paths.append(path)
    return paths


def frame_of(folder: Path, *records: Record) -> pd.DataFrame:
    """Return the frame collected from ``records``."""
    return collect(write_records(folder, list(records)))
