"""Dense trainings: whole runs, exact resume, evaluation, and the published sizes."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hafabench.config.catalog import CATALOG
from hafabench.engines import dense
from hafabench.engines.dense.model import build_dense_model, load_mm
from hafabench.engines.dense.training import DenseTrainer
from hafabench.engines.trained import collapse_of
from hafabench.engines.training import TrainingSession
from hafabench.errors import UserError
from hafabench.files import sha256_of
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.results.history import read_history
from hafabench.results.predictions import read_predictions
from hafabench.results.record import Collapse
from hafabench.runs.run import Run
from tools.checkout import REPOSITORY
from tools.tiny_runs.dense import CLASSES, IMAGES, tiny_run

TASKS = ["segmentation", "detection"]
STEPS = {"segmentation": 4, "detection": 3}
PUBLISHED = {
    (row["task"], row["model"]): int(row["params"])
    for row in csv.DictReader((REPOSITORY / "tests/golden/data/complexity.csv").open())
}


@pytest.fixture(scope="module", autouse=True)
def quick_garbage_collection():
    """Exclude imported modules from garbage collection, which mmengine runs for every data set that it opens."""
    load_mm()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoint)["state_dict"]


def assert_equal_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", ["resnet18", "pvt_tiny", "pvt_tiny_hafa"])
def test_parameters_are_the_published_ones(task, model):
    classes = {"segmentation": 150, "detection": 80}[task]
    with torch.device("meta"):
        built = build_dense_model(CATALOG[model], task, classes)
    assert sum(p.numel() for p in built.parameters()) == PUBLISHED[task, model]
    assert all(p.device.type == "meta" for p in built.parameters())


def test_detection_freezes_a_resnets_beginning_and_statistics():
    """The 31.2 M that Table 3 prints for ResNet-18 are the 31.170 M parameters that mmdet's recipe trains."""
    with torch.device("meta"):
        detector = build_dense_model(CATALOG["resnet18"], "detection", 80).train()
        segmentor = build_dense_model(CATALOG["resnet18"], "segmentation", 150).train()
    assert sum(p.numel() for p in detector.parameters() if p.requires_grad) == 31_170_032
    norms = [m for m in detector.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert all(p.requires_grad for p in segmentor.parameters())
    assert all(m.training for m in segmentor.modules())


@dataclass(frozen=True)
class Finished:
    """A completed run, its output, and files outside its folder."""

    run: Run
    spoken: str
    files_elsewhere: list[Path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Callable[[str], Finished]:
    """Returns the completed run of a task, which all tests share that do not change it."""

    @cache
    def finish(task: str) -> Finished:
        folder = tmp_path_factory.mktemp(task)
        run = tiny_run(folder, task, seed=5)
        (folder / "elsewhere").mkdir()
        spoken = io.StringIO()
        with redirect_stdout(spoken), redirect_stderr(spoken), chdir(folder / "elsewhere"):
            dense.train(run)
        return Finished(run, spoken.getvalue(), list((folder / "elsewhere").iterdir()))

    return finish


@pytest.mark.parametrize("task", TASKS)
def test_a_run_leaves_its_weights_and_history_and_nothing_else(finished, task):
    done = finished(task)
    run = done.run
    lines = done.spoken.splitlines()
    assert "missing in the checkpoint: nothing; not used: fc.bias, fc.weight" in lines[0]
    assert len(lines) == 1 + STEPS[task], "one line per step, and nothing of mmengine's"
    assert [entry["step"] for entry in read_history(run.history)] == list(range(1, STEPS[task] + 1))
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoint.pth",
        "config.json",
        "history.jsonl",
        "work",
    ]
    assert not done.files_elsewhere

    meta = load_checkpoint(run.checkpoint)["meta"]
    assert (meta["run"], meta["fingerprint"]) == (run.id, run.fingerprint)
    assert meta["initialised_from"]["sha256"] == sha256_of(run.parent.checkpoint)
    assert meta["initialised_from"]["unexpected"] == ["fc.bias", "fc.weight"]
    training = meta["training"]
    assert (training["steps"], training["processes"], training["resumes"]) == (STEPS[task], 1, 0)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("segmentation", {"miou", "pixel_acc", "mean_acc"}),
        # The tiny data set contains no medium or large object.
        ("detection", {f"{kind}_{name}" for kind in ("box", "mask") for name in ("ap", "ap50", "ap75", "ap_s")}),
    ],
)
def test_evaluation_gives_the_tasks_metrics(finished, tmp_path, task, names):
    run = finished(task).run
    metrics = dense.evaluate(run, run.checkpoint)
    assert {metric.name for metric in metrics} == names
    assert all(0 <= metric.value <= 100 and metric.unit == "%" for metric in metrics)
    assert {metric.repeats for metric in metrics} == {IMAGES["val"]}
    outputs = tmp_path / "outputs"
    assert dense.evaluate(run, run.checkpoint, keep=tmp_path / "predictions.npz", outputs=outputs) == metrics
    assert {path.suffix for path in outputs.iterdir()} == {{"segmentation": ".png", "detection": ".json"}[task]}
    kept = read_predictions(tmp_path / "predictions.npz")
    assert len(kept.images) == IMAGES["val"]
    for metric in metrics:
        assert kept.resampled(metric.name, np.ones((1, IMAGES["val"]))).item() == pytest.approx(metric.value)


def shifted(content: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """Return detections of all objects of an image, each shifted by a few pixels, as mmdet gives them to a metric."""
    found: dict[str, list] = {"bboxes": [], "scores": [], "labels": [], "masks": []}
    for entry in content["annotations"]:
        if entry["image_id"] == image["id"]:
            x, y, width, height = entry["bbox"]
            x, y = x + entry["id"] % 4, y + entry["id"] % 3
            mask = torch.zeros(image["height"], image["width"], dtype=torch.bool)
            mask[y : y + height, x : x + width] = True
            found["bboxes"].append([x, y, x + width, y + height])
            found["scores"].append(0.3 + 0.05 * entry["id"])
            found["labels"].append(entry["category_id"] - 10)
            found["masks"].append(mask)
    tensors = {name: torch.stack(own) if name == "masks" else torch.tensor(own) for name, own in found.items()}
    shape = (image["height"], image["width"])
    return {"pred_instances": tensors, "img_id": image["id"], "ori_shape": shape}


def test_kept_detections_have_the_measured_average_precision(tmp_path):
    """pycocotools alone, on the original annotations, with the files as they are submitted."""
    run = tiny_run(tmp_path, "detection")
    annotations = run.dataset.root / "annotations/instances_val2017.json"
    content = json.loads(annotations.read_text())
    metric = load_mm().metric("detection", annotations, tmp_path)
    metric.dataset_meta = {"classes": tuple(category["name"] for category in content["categories"])}
    metric.process({}, [shifted(content, image) for image in content["images"]])
    metrics = metric.evaluate(len(content["images"]))
    assert 0 < metrics["mask_ap"] < 100
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        file = tmp_path / f"detections.{kind}.json"
        entries = json.loads(file.read_text())
        keys = {"image_id", "category_id", "score", {"bbox": "bbox", "segm": "segmentation"}[kind]}
        assert {frozenset(entry) for entry in entries} == {frozenset(keys)}
        assert {entry["category_id"] for entry in entries} <= {10, 11, 12}
        assert {entry["image_id"] for entry in entries} == {image["id"] for image in content["images"]}
        with redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, truth.loadRes(str(file)), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert 100 * evaluation.stats[0] == pytest.approx(metrics[f"{name}_ap"], abs=1e-12)
        assert 100 * evaluation.stats[3] == pytest.approx(metrics[f"{name}_ap_s"], abs=1e-12)


def test_kept_label_maps_have_the_measured_mean_iou(finished, tmp_path):
    run = finished("segmentation").run
    # A folder of an earlier evaluation is replaced.
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "old.png").touch()
    metrics = {m.name: m.value for m in dense.evaluate(run, run.checkpoint, outputs=tmp_path / "outputs")}
    masks = sorted((run.dataset.root / "annotations/validation").iterdir())
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == [path.name for path in masks]
    confusion = np.zeros((CLASSES, CLASSES))
    for mask in masks:
        truth, found = np.asarray(Image.open(mask)), np.asarray(Image.open(tmp_path / "outputs" / mask.name))
        assert (found.shape, found.dtype) == (truth.shape, np.uint8)
        assert found.min() >= 1, "0 means unlabelled"
        labelled = truth > 0
        np.add.at(confusion, (truth[labelled] - 1, found[labelled] - 1), 1)
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    assert metrics["miou"] == pytest.approx(100 * np.mean(hits[union > 0] / union[union > 0]))


@pytest.mark.parametrize("task", TASKS)
def test_training_changes_backbone_neck_and_heads(finished, task):
    run = finished(task).run
    after = weights(run)
    start = load_checkpoint(run.parent.checkpoint)["state_dict"]
    moved = [
        name
        for name, tensor in start.items()
        if not name.startswith("fc.") and not torch.equal(tensor, after[f"backbone.body.body.{name}"])
    ]
    frozen = [name for name in moved if name.startswith(("conv1", "bn1", "layer1")) or "running" in name]
    assert moved
    assert bool(frozen) == (task == "segmentation"), "detection freezes stem, layer1 and statistics of a ResNet"
    # Biases begin at 0.
    parts = {"segmentation": ["neck", "decode_head"], "detection": ["neck", "rpn_head", "roi_head.bbox_head"]}[task]
    for part in parts:
        biases = [tensor for name, tensor in after.items() if name.startswith(part) and name.endswith("bias")]
        assert biases and all(bias.any() for bias in biases)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_killed_training_ends_with_the_same_weights(finished, tmp_path, monkeypatch, capfd, task):
    whole = finished(task).run
    run = tiny_run(tmp_path, task, seed=5)
    step_done = TrainingSession.step_done

    def killed_in_step_3(self, *arguments, **options):
        if self.state.step == 2:
            raise KeyboardInterrupt
        step_done(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSession, "step_done", killed_in_step_3)
        with pytest.raises(KeyboardInterrupt):
            dense.train(run)
    assert not run.checkpoint.exists()
    capfd.readouterr()

    dense.train(run)

    assert f"{run.id}: resumed after step 2" in capfd.readouterr().err
    assert_equal_weights(weights(run), weights(whole))
    assert [entry["step"] for entry in read_history(run.history)] == list(range(1, STEPS[task] + 1))
    assert load_checkpoint(run.checkpoint)["meta"]["training"]["resumes"] == 1
    losses = [[(entry["loss"], entry["lr"]) for entry in read_history(each.history)] for each in (run, whole)]
    assert losses[0] == losses[1]


def test_another_seed_ends_with_other_weights(tmp_path):
    runs = [tiny_run(tmp_path / str(seed), "segmentation", seed=seed, iterations=1) for seed in (0, 1)]
    # Both start from the same weights; data order, augmentation and the head differ.
    runs[1].parent.checkpoint.write_bytes(runs[0].parent.checkpoint.read_bytes())
    for run in runs:
        dense.train(run)
    first, second = (weights(run)["backbone.body.body.conv1.0.weight"] for run in runs)
    assert not torch.equal(first, second)


def test_loading_processes_change_nothing(finished, tmp_path):
    alone = finished("segmentation").run
    run = tiny_run(tmp_path, "segmentation", seed=5, workers=2)
    dense.train(run)
    assert run.fingerprint == alone.fingerprint
    assert_equal_weights(weights(run), weights(alone))


def test_sigterm_saves_and_leaves_with_75(tmp_path, monkeypatch, capfd):
    run = tiny_run(tmp_path, "segmentation", checkpoint_every=100)
    before_step = DenseTrainer.before_step

    def signalled_in_step_2(self, runner):
        if self.session.state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        before_step(self, runner)

    with monkeypatch.context() as patch:
        patch.setattr(DenseTrainer, "before_step", signalled_in_step_2)
        with pytest.raises(SystemExit) as left:
            dense.train(run)
    assert left.value.code == 75
    assert "stopped after step 2 of 4 on SIGTERM" in capfd.readouterr().err
    dense.train(run)
    assert "resumed after step 2" in capfd.readouterr().err


def test_state_of_another_configuration_is_not_resumed(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HAFABENCH_STOP_AFTER_SECONDS", "1e-9")
    with pytest.raises(SystemExit):
        dense.train(tiny_run(tmp_path, "segmentation"))
    monkeypatch.delenv("HAFABENCH_STOP_AFTER_SECONDS")
    changed = tiny_run(tmp_path, "segmentation", lr=2e-3)
    dense.train(changed)
    assert "belongs to another configuration" in capfd.readouterr().err
    assert load_checkpoint(changed.checkpoint)["meta"]["training"]["resumes"] == 0


def test_a_trained_run_is_not_trained_again(finished, capfd):
    run = finished("segmentation").run
    written = run.checkpoint.stat().st_mtime_ns
    dense.train(run)
    assert run.checkpoint.stat().st_mtime_ns == written
    assert "already trained" in capfd.readouterr().err


# The last layers of every part whose outputs predictions are made of, as their names end.
LAYERS = {"segmentation": ("conv_seg.weight",), "detection": ("rpn_cls.weight", "fc_cls.weight", "fpn_convs.0.")}


@pytest.mark.parametrize(("task", "layer"), [(task, layer) for task in LAYERS for layer in LAYERS[task]])
def test_outputs_that_are_not_finite_are_refused(finished, tmp_path, task, layer):
    run = finished(task).run
    content = load_checkpoint(run.checkpoint)
    for name, value in content["state_dict"].items():
        if layer in name and name.endswith("weight"):
            value.fill_(3e38)
    save_checkpoint(tmp_path / "checkpoint.pth", content)
    with pytest.raises(UserError, match=r"\.jpg: the outputs of .* are not finite"):
        dense.evaluate(run, tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_a_loss_that_is_not_finite_is_a_collapse(tmp_path, task):
    run = tiny_run(tmp_path, task, optimizer="sgd", lr=1e30, checkpoint_every=100)
    dense.train(run)
    content = load_checkpoint(run.checkpoint)
    found = collapse_of(content)
    assert "state_dict" not in content
    assert (found.run, found.step) == (run.id, 2)
    assert "the loss is" in found.reason or "the forward pass failed" in found.reason


def test_a_dense_run_that_starts_from_a_collapsed_one_is_not_run(tmp_path):
    run = tiny_run(tmp_path, "segmentation")
    reason = "the loss is nan"
    identity = load_checkpoint(run.parent.checkpoint)["meta"]
    collapse = Collapse(run=run.parent.id, step=7, reason=reason)
    save_checkpoint(run.parent.checkpoint, {"meta": {**identity, "collapse": collapse.model_dump()}})
    dense.train(run)
    assert collapse_of(load_checkpoint(run.checkpoint)) == collapse
    with pytest.raises(UserError, match=r"contains no weights: not run: its starting weights, .*collapsed at step 7"):
        dense.evaluate(run, run.checkpoint)


def test_work_state_holds_plain_data_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HAFABENCH_STOP_AFTER_SECONDS", "1e-9")
    run = tiny_run(tmp_path, "detection")
    with pytest.raises(SystemExit):
        dense.train(run)
    # Raises for anything except tensors and standard containers.
    state = torch.load(run.work / "state.pth", weights_only=True)
    assert state["step"] == 1
    assert state["fingerprint"] == run.fingerprint


def test_evaluation_refuses_another_tasks_checkpoint(finished, tmp_path):
    detection = tiny_run(tmp_path, "detection")
    with pytest.raises(UserError, match=r"meta.task: .*expected 'detection', found 'segmentation'"):
        dense.evaluate(detection, finished("segmentation").run.checkpoint)


def test_hafa_trains_with_cluster_tokens_and_any_size(tmp_path):
    """Images of 64x80 are scaled by 0.5 to 2 and cropped in training; evaluation uses 64x80 and 80x64."""
    run = tiny_run(tmp_path, "segmentation", model="pvt_tiny_hafa", iterations=1)
    dense.train(run)
    after, start = weights(run), load_checkpoint(run.parent.checkpoint)["state_dict"]
    still = [
        name
        for name in start
        if not name.startswith("head.") and torch.equal(after[f"backbone.body.{name}"], start[name])
    ]
    # One step of AdamW changes every parameter.
    assert not [name for name in still if "num_batches" not in name]
    assert {metric.name for metric in dense.evaluate(run, run.checkpoint)} >= {"miou"}


def start_tiny(folder: Path, task: str, processes: int = 1, **changes: object) -> subprocess.Popen:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, "-m", "tools.tiny_runs.dense", str(folder), task, json.dumps(changes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_sigkill_and_repetition_end_with_the_same_weights(tmp_path, task):
    length = {"iterations": 6} if task == "segmentation" else {"epochs": 2}
    whole = tiny_run(tmp_path / "whole", task, **length)
    dense.train(whole)
    run = tiny_run(tmp_path / "killed", task, **length)
    process = start_tiny(tmp_path / "killed", task, **length)
    for line in process.stderr:
        if " 3/6 " in line:
            process.kill()
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not run.checkpoint.exists()
    again = start_tiny(tmp_path / "killed", task, **length)
    _, spoken = again.communicate(timeout=300)
    assert again.returncode == 0, spoken
    assert "resumed after step" in spoken
    assert_equal_weights(weights(run), weights(whole))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_train_one_model(tmp_path, task):
    run = tiny_run(tmp_path, task)
    process = start_tiny(tmp_path, task, processes=2)
    _, spoken = process.communicate(timeout=300)
    assert process.returncode == 0, spoken
    training = load_checkpoint(run.checkpoint)["meta"]["training"]
    assert (training["processes"], training["steps"]) == (2, STEPS[task])
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoint.pth",
        "config.json",
        "history.jsonl",
        "work",
    ]
    # The first batch is the same for any number of processes, and so is its mean loss if the heads draw no
    # random numbers.
    if task == "segmentation":
        alone = tiny_run(tmp_path / "alone", task)
        dense.train(alone)
        losses = [read_history(each.history)[0]["loss"] for each in (run, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=0.3)
