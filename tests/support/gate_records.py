"""Synthetic records and predictions for tests of the regression gate."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np

from hafabench.config.regression import GateLimits
from hafabench.files import sha256_of
from hafabench.regression.changes import Changes, find_changes
from hafabench.regression.records import read_records
from hafabench.results.predictions import Hits, Predictions, write_predictions
from hafabench.results.record import Machine, Metric, write_record
from tools.synthetic_records import complexity, evaluation

HERE = Machine(cpu="this one", cores=2)
LIMITS = GateLimits.model_validate(
    {
        "metrics": {
            "top1": {"better": "higher", "absolute": 1.0, "elsewhere": {"absolute": 3.0}},
            "miou": {"better": "higher", "absolute": 1.0},
            "latency_ratio": {"better": "lower", "relative": 0.05, "elsewhere": {"relative": 0.15}},
            "params": {"better": "lower"},
        }
    }
)


def hits(rng: np.random.Generator, images: int, share: float) -> Hits:
    names = np.array([f"{index}.jpg" for index in range(images)])
    right = rng.random(images) < share
    return Hits(names, right, right | (rng.random(images) < 0.5))


def changed(kept: Hits, rng: np.random.Generator, lost: float, won: float) -> Hits:
    """Flip correct predictions of a share ``lost`` of all images, and wrong ones of a share ``won``."""
    top1 = kept.top1.copy()
    right, wrong = rng.permutation(np.flatnonzero(top1)), rng.permutation(np.flatnonzero(~top1))
    top1[right[: round(lost * len(top1))]] = False
    top1[wrong[: round(won * len(top1))]] = True
    return Hits(kept.images, top1, kept.top5)


def write_evaluation(
    folder: Path,
    task: str,
    model: str,
    seed: int,
    values: Mapping[str, float] | None = None,
    kept: Predictions | None = None,
    trained: str = "once",
    **changes,
) -> None:
    """Write the record of one run. With predictions, its metrics are computed from them.

    Records with equal ``trained`` have the same checkpoint.
    """
    place = folder / f"{task}/{model}/seed{seed}"
    if kept is not None:
        write_predictions(place / "predictions.npz", kept)
        changes["predictions_sha256"] = sha256_of(place / "predictions.npz")
        ones = np.ones((1, len(kept.images)))
        values = {name: kept.resampled(name, ones).item() for name in kept.metrics}
    checkpoint = sha256(f"{task}/{model}/{seed} {trained}".encode()).hexdigest()
    fields = {"machine": HERE, "checkpoint_sha256": checkpoint} | changes
    write_record(place / "evaluate.json", evaluation(task, model, seed, dict(values), **fields))


def write_complexity(folder: Path, values: dict[str, dict[str, float]]) -> None:
    write_record(folder / "complexity/classification.json", complexity("classification", values))


def write_ratio(folder: Path, value: float, half: float = 0.01, **changes) -> None:
    """Write the latency record of one model; ``half`` is the relative half width of its interval."""
    metric = Metric(
        task="classification",
        model="pvt_tiny_hafa",
        name="latency_ratio",
        value=value,
        unit="1",
        repeats=100,
        interval=(value * (1 - half), value * (1 + half)),
        confidence=0.99,
    )
    fields = {"machine": HERE, "verb": "latency", "id": "latency/pvt_tiny", "metrics": [metric]} | changes
    write_record(folder / "latency/pvt_tiny.json", evaluation("classification", "any", None, {}, **fields))


def judged(baseline: Path, candidate: Path, limits: GateLimits = LIMITS) -> Changes:
    return find_changes(read_records(baseline), read_records(candidate), limits)


def verdicts(changes: Changes) -> dict[str, str]:
    return {str(change.key): change.verdict for change in changes.changes}
