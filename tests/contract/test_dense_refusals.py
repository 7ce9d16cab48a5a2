"""Starting weights and data that the dense engine refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hafabench.engines import dense
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.runs.run import Run
from tools.tiny_runs.dense import tiny_run

TASKS = ["segmentation", "detection"]


def spoil_parent(run: Run, **meta: str) -> None:
    content = load_checkpoint(run.parent.checkpoint)
    save_checkpoint(run.parent.checkpoint, {**content, "meta": {**content["meta"], **meta}})


def test_a_start_from_another_model_is_refused(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    spoil_parent(run, model="resnet50")
    with pytest.raises(UserError, match="expected 'tiny_resnet', found 'resnet50'"):
        dense.train(run)


def test_a_start_from_an_older_configuration_is_refused(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    spoil_parent(run, fingerprint="older")
    with pytest.raises(UserError, match=r"meta\.fingerprint"):
        dense.train(run)


def test_a_start_without_a_common_tensor_is_refused(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    content = load_checkpoint(run.parent.checkpoint)
    save_checkpoint(run.parent.checkpoint, {**content, "state_dict": {"other.weight": torch.zeros(1)}})
    with pytest.raises(UserError, match="no name in common"):
        dense.train(run)


def test_a_missing_start_is_refused(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    run.parent.checkpoint.unlink()
    with pytest.raises(UserError, match="no such checkpoint"):
        dense.train(run)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mask_value_out_of_range_is_refused(tmp_path, workers):
    run = tiny_run(tmp_path, "segmentation", workers=workers)
    for mask in (run.dataset.root / "annotations/training").iterdir():
        Image.fromarray(np.full((64, 80), 4, np.uint8)).save(mask)
    with pytest.raises(UserError) as refused:
        dense.train(run)
    assert str(refused.value).endswith("mask value 4 out of range: expected 0 to 3 or 255")
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_is_refused(tmp_path, workers):
    run = tiny_run(tmp_path, "detection", workers=workers)
    for image in (run.dataset.root / "train2017").iterdir():
        image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(UserError) as refused:
        dense.train(run)
    assert "cannot be decoded" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("task", TASKS)
def test_missing_data_is_refused(tmp_path, task):
    run = tiny_run(tmp_path, task)
    gone = {"segmentation": "images/training", "detection": "annotations/instances_train2017.json"}[task]
    (run.dataset.root / gone).rename(tmp_path / "gone")
    with pytest.raises(UserError, match=f"{gone}: not found; `hafabench data verify {task}`"):
        dense.train(run)


def test_annotations_that_are_no_json_are_refused(tmp_path):
    run = tiny_run(tmp_path, "detection")
    (run.dataset.root / "annotations/instances_train2017.json").write_text('{"images": [')
    with pytest.raises(UserError, match="annotations not readable"):
        dense.train(run)


def test_other_class_count_is_refused(tmp_path):
    run = tiny_run(tmp_path, "detection")
    object.__setattr__(run, "dataset", run.dataset.model_copy(update={"num_classes": 5}))
    with pytest.raises(UserError, match="expected 5 classes, found 3: shape_0, shape_1, shape_2"):
        dense.train(run)
