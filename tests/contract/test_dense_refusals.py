"""Starting weights and data that the dense engine refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hafabench.data.listing import list_split
from hafabench.engines import dense
from hafabench.engines.dense.datasets import load_dataset
from hafabench.engines.dense.model import load_mm
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.runs.run import Run
from tests.support.messages import missing_facts
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
    assert str(refused.value).endswith("mask value 4; expected 0 (unlabelled), 1 to 3, or 255 (ignored)")
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mask_of_another_size_is_refused_with_both_files_and_sizes(tmp_path, workers):
    run = tiny_run(tmp_path, "segmentation", workers=workers)
    mask = run.dataset.root / "annotations/training/0.png"
    for path in mask.parent.iterdir():
        Image.fromarray(np.ones((40, 30), np.uint8)).save(path)
    with pytest.raises(UserError) as refused:
        dense.train(run)
    image = run.dataset.root / "images/training/0.jpg"
    facts = ("mask of 30 x 40 pixels", f"its image {image.parent}", "80")
    assert missing_facts(str(refused.value), str(mask.parent), *facts) == []


def test_an_image_that_a_resize_would_leave_without_pixels_is_named(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    image, mask = run.dataset.root / "images/validation/0.jpg", run.dataset.root / "annotations/validation/0.png"
    Image.new("RGB", (600, 1)).save(image)
    Image.fromarray(np.ones((1, 600), np.uint8)).save(mask)
    with pytest.raises(UserError) as refused:
        load_dataset(run, "val")[0]
    assert missing_facts(str(refused.value), f"{image}: ", "600 x 1 pixels", "resized") == []
    # Training also scales at random, here by a half: the row is left out only then.
    train = run.dataset.root / "images/training/0.jpg"
    Image.new("RGB", (400, 1)).save(train)
    Image.fromarray(np.ones((1, 400), np.uint8)).save(run.dataset.root / "annotations/training/0.png")
    halved = replace(run, recipe=run.recipe.model_copy(update={"ratio_range": (0.5, 0.5)}))
    with pytest.raises(UserError) as refused:
        load_dataset(halved, "train")[0]
    assert missing_facts(str(refused.value), f"{train}: ", "400 x 1 pixels", "cannot be resized") == []
    # At a scale that leaves pixels, one row is read as one row.
    wide = load_dataset(replace(run, recipe=run.recipe.model_copy(update={"resize": (2048, 512)})), "val")[0]
    assert wide["data_samples"].gt_sem_seg.data.shape == (1, 1, 600)


def test_an_image_that_the_model_cannot_process_is_named():
    class Model(nn.Module):
        def test_step(self, _batch: object) -> None:
            raise UserError("input of 4 x 512 pixels is too small")

    batch = {"data_samples": [SimpleNamespace(img_path="val/a.jpg"), SimpleNamespace(img_path="val/b.jpg")]}
    dataset = SimpleNamespace(metainfo={})
    with pytest.raises(UserError, match=r"^val/a\.jpg, val/b\.jpg: input of 4 x 512 pixels is too small$"):
        load_mm().evaluate(Model(), dataset, (one for one in [batch]), load_mm().MeanIoU())


def test_a_split_without_images_is_refused(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    folder = run.dataset.root / "images/training"
    for path in list(folder.iterdir()):
        path.unlink()
    with pytest.raises(UserError, match=f"{folder}: no images in it"):
        load_dataset(run, "train")


def test_segmentation_reads_the_files_that_are_verified(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    images, masks = run.dataset.root / "images/validation", run.dataset.root / "annotations/validation"
    for name in ("a.JPG", "b.jpeg", "c.png", "._d.jpg", "more/e.jpg", "f.webp"):
        (images / name).parent.mkdir(exist_ok=True)
        (masks / name).parent.mkdir(exist_ok=True)
        shutil.copy(images / "0.jpg", images / name)
        shutil.copy(masks / "0.png", (masks / name).with_suffix(".png"))
    (masks / "f.png").unlink()
    dataset = load_dataset(run, "val")
    listed = list_split(run.dataset, "val")
    assert [info["img_path"] for info in map(dataset.get_data_info, range(len(dataset)))] == list(
        map(str, listed.images)
    )
    assert [path.name for path in listed.images] == ["0.jpg", "1.jpg", "a.JPG", "b.jpeg", "c.png"]
    label = dataset[0]["data_samples"].gt_sem_seg.data.numpy()
    stored = np.asarray(Image.open(masks / "0.png"))
    assert np.array_equal(label[0], np.where(stored == 0, 255, stored - 1))


def test_masks_without_a_labelled_pixel_leave_nothing_to_measure():
    metric = load_mm().metric("segmentation")
    nothing, some = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    with pytest.raises(UserError, match="nothing to measure"):
        metric.compute_metrics([(nothing, some, some, nothing)])


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
    with pytest.raises(UserError, match=f"{gone}: no such file or folder"):
        dense.train(run)


def test_annotations_that_are_no_json_are_refused(tmp_path):
    run = tiny_run(tmp_path, "detection")
    (run.dataset.root / "annotations/instances_train2017.json").write_text('{"images": [')
    with pytest.raises(UserError, match=r"instances_train2017\.json:1: not valid JSON"):
        dense.train(run)


def change_annotations(run: Run, split: str, change: Callable[[dict[str, Any]], object]) -> None:
    file = run.dataset.root / f"annotations/instances_{split}2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_annotations_that_pycocotools_misreads_are_refused(tmp_path):
    run = tiny_run(tmp_path, "detection")
    endless = {"counts": [0, 2**31], "size": [80, 64]}
    change_annotations(run, "train", lambda content: content["annotations"][0].update(segmentation=endless))
    with pytest.raises(UserError, match="run lengths of 2147483648 pixels in total"):
        dense.train(run)
    change_annotations(run, "val", lambda content: content["annotations"][0].update(id=0))
    with pytest.raises(UserError, match="expected ids from 1, found 0"):
        load_dataset(run, "val")


def test_training_categories_in_another_order_are_refused(tmp_path):
    run = tiny_run(tmp_path, "detection")
    change_annotations(run, "train", lambda content: content["categories"].reverse())
    with pytest.raises(UserError, match="expected the categories of the validation split, shape_0, shape_1, shape_2"):
        dense.train(run)


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path):
    run = tiny_run(tmp_path, "detection")
    for file in (run.dataset.root / "train2017").iterdir():
        Image.open(file).crop((0, 0, 60, 60)).save(file)
    with pytest.raises(UserError, match=r"jpg: expected \d+ x \d+ pixels as annotated, found 60 x 60"):
        dense.train(run)


def test_other_class_count_is_refused(tmp_path):
    run = tiny_run(tmp_path, "detection")
    object.__setattr__(run, "dataset", run.dataset.model_copy(update={"num_classes": 5}))
    with pytest.raises(UserError, match="expected 5 categories, found 3"):
        dense.train(run)
