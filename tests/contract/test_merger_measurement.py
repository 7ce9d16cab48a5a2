"""Measurements of mergers in whole runs: the weights before the training are those that it started from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hafabench.config.catalog import CATALOG, derive
from hafabench.engines.engine import engine_for
from hafabench.engines.merger_measurement import measure_mergers, untrained_model
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.runs.run import Run
from tools.tiny_runs import classification as tiny_classification
from tools.tiny_runs import dense as tiny_dense

TASKS = ["classification", "segmentation", "detection"]
# Steps that change no weight by more than this; batch norms still collect statistics.
STILL = {"lr": 1e-30, "weight_decay": 0.0}


def hafa_run(task: str, folder: Path, images: Path) -> Run:
    """Return a run of a small model with LAA and SIA that hardly changes its weights."""
    spec = derive(CATALOG["pvt_v2_b1_hafa"], "small_hafa", width=0.125)
    if task == "classification":
        changes = {**STILL, "warmup_lr": 0.0, "min_lr": 0.0, "epochs": 1, "warmup_epochs": 0, "image_size": 64}
        run = tiny_classification.tiny_run(folder, images=images, seed=3, **changes)
        return replace(run, model=spec)
    tiny_dense.MODELS[spec.name] = spec
    try:
        return tiny_dense.tiny_run(folder, task, spec.name, seed=3, **STILL)
    finally:
        del tiny_dense.MODELS[spec.name]


@pytest.mark.parametrize("task", TASKS)
def test_the_weights_before_are_those_that_the_training_started_from(tmp_path, images, task):
    run = hafa_run(task, tmp_path, images)
    engine_for(task).train(run)
    content = load_checkpoint(run.checkpoint)
    trained, origin = content["state_dict"], content["meta"].get("initialised_from")
    for name, parameter in untrained_model(run, origin).named_parameters():
        torch.testing.assert_close(parameter.detach(), trained[name], rtol=0, atol=1e-20, msg=name)

    found = measure_mergers(run, origin)
    count = run.dataset.images["val"]
    assert found.images == count
    assert [(one.stage, one.merger) for one in found.after] == [(2, "laa"), (3, "laa"), (4, "sia")]
    assert [one.mean_shift for one in found.before[:2]] == [0, 0]
    # Offsets that move the points of the final weights alone.
    for name, value in trained.items():
        if name.endswith("offset.bias"):
            value.copy_(torch.tensor([3.0, 4.0]).repeat(len(value) // 2))
    save_checkpoint(run.checkpoint, content)
    moved = measure_mergers(run, origin)
    assert [one.mean_shift for one in moved.after[:2]] == pytest.approx([5, 5])
    assert moved.before == found.before


def test_an_evaluation_needs_no_starting_weights(tmp_path, images):
    run = hafa_run("segmentation", tmp_path, images)
    engine_for("segmentation").train(run)
    origin = load_checkpoint(run.checkpoint)["meta"]["initialised_from"]
    known = measure_mergers(run, origin)
    assert known.no_before is None

    parent = load_checkpoint(run.parent.checkpoint)
    next(iter(parent["state_dict"].values())).zero_()
    save_checkpoint(run.parent.checkpoint, parent)
    changed = measure_mergers(run, origin)
    run.parent.checkpoint.write_bytes(b"damaged")
    damaged = measure_mergers(run, origin)
    run.parent.checkpoint.unlink()
    missing = measure_mergers(run, origin)
    for found, reason in (
        (changed, "the file of the starting weights has changed since the training started from it"),
        (damaged, "not a readable checkpoint"),
        (missing, f"the checkpoint of {run.parent.id} does not exist"),
    ):
        assert (found.before, found.after) == (None, known.after)
        assert reason in found.no_before
