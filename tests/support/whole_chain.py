"""A tiny experiment with every link of the chain on disk, from its data to its report, without any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hafabench.config.experiment import Experiment
from hafabench.config.operation_kinds import PARAMETERS
from hafabench.data.prepare import prepare_dataset
from hafabench.data.report import dataset_digest
from hafabench.engines.trained import identity
from hafabench.files import sha256_of
from hafabench.models.checkpoints.storage import save_checkpoint
from hafabench.results.counts import Counted, Counts, write_counts
from hafabench.results.decomposition import Amount, Decomposition
from hafabench.results.predictions import Hits, write_predictions
from hafabench.results.record import read_record, write_record
from hafabench.runs.paths import CONFIGURATION, complexity_record, counts_record, dataset_report
from hafabench.runs.run import Run, expand
from hafabench.runs.static_models import counts_fingerprint
from tests.support.synthetic_experiment import fill_results
from tools.synthetic_records import evaluation, provenance

IMAGES = 10


def shrink_to_one_task(content: dict[str, Any]) -> None:
    """Keep two classification models with two seeds, a few images, and one latency group."""
    content["train"] = {"classification": ["pvt_tiny", "pvt_tiny_hafa"]}
    content["datasets"] = {"classification": content["datasets"]["classification"]}
    content["datasets"]["classification"]["images"] = {"train": 20, "val": IMAGES}
    content["seeds"] = [0, 1]
    content["overrides"] = [
        {"runs": "classification/*", "why": "tiny", "set": {"epochs": 1, "warmup_epochs": 0, "batch_size": 10}}
    ]


def make_chain(experiment: Experiment) -> None:
    """Write the data, the checkpoint, the predictions and the record of every run, and all other records."""
    fill_results(experiment)
    for task, dataset in experiment.config.datasets.items():
        prepare_dataset(dataset, dataset_report(experiment, task))
    for run in expand(experiment).values():
        make_run(experiment, run)
    write_counts(counts_record(experiment), _counts(experiment))


def _counts(experiment: Experiment) -> Counts:
    """Return counts of one model that agree with its complexity record."""
    record = read_record(complexity_record(experiment, "classification"))
    numbers = {metric.name: metric.value for metric in record.metrics if metric.model == "pvt_tiny"}
    amounts = Decomposition((Amount("head", PARAMETERS[0], int(numbers["params"])),))
    counted = Counted(task="classification", model="pvt_tiny", amounts=amounts)
    fingerprint = counts_fingerprint(experiment)
    return Counts(experiment=experiment.name, fingerprint=fingerprint, cells=[counted], provenance=provenance())


def make_run(experiment: Experiment, run: Run) -> None:
    """Write the configuration, the checkpoint, the predictions and the record of one run."""
    rng = np.random.default_rng([run.seed, *run.id.encode()])
    (run.folder / CONFIGURATION).write_text(json.dumps(run.resolved()))
    seconds = round(40 + 5 * rng.random(), 3)
    training = {"command": f"hafabench train {run.id}", "git_commit": "0" * 40, "steps": 2, "seconds": seconds}
    weights = {"weight": torch.from_numpy(rng.normal(size=(4, 4)))}
    save_checkpoint(run.checkpoint, {"state_dict": weights, "meta": {**identity(run), "training": training}})
    top1 = rng.random(IMAGES) < 0.6
    hits = Hits(np.array([f"{index}.png" for index in range(IMAGES)]), top1, top1 | (rng.random(IMAGES) < 0.5))
    write_predictions(run.predictions, hits)
    values = {"top1": 10.0 * hits.top1.sum(), "top5": 10.0 * hits.top5.sum()}
    record = evaluation(
        run.task,
        run.model.name,
        run.seed,
        values,
        fingerprint=run.fingerprint,
        training=training,
        predictions_sha256=sha256_of(run.predictions),
        checkpoint_sha256=sha256_of(run.checkpoint),
        dataset_digest=dataset_digest(experiment, run.task),
        command=f"hafabench evaluate {run.id}",
        experiment=experiment.name,
        scale=experiment.config.scale,
    )
    write_record(run.record, record)


def edit_json(path: Path, *keys: str | int, value: Any) -> None:
    """Change one value of a JSON file as an editor would."""
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content, indent=2))
