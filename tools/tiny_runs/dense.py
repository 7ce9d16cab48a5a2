"""Detection and segmentation runs that are small enough to train in a test.

The module is also a program that trains a run, so that tests can kill it or start several processes:
``python -m tools.tiny_runs.dense FOLDER segmentation '{"iterations": 4}'``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.config.experiment import DatasetConfig
from hafabench.config.recipes import DetectionRecipe, SegmentationRecipe
from hafabench.models import create
from hafabench.models.checkpoints.storage import save_checkpoint
from hafabench.runs.fingerprints import fingerprint
from hafabench.runs.run import Run

TINY = ModelSpec("tiny_resnet", "resnet", "tiny", "test_resnet")
MODELS = {**CATALOG, TINY.name: TINY}
CLASSES = 3
IMAGES = {"train": 6, "val": 2}

_COMMON = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "batch_size": 2,
    "drop_path": 0.0,
    "workers": 0,
    "eval_batch_size": 1,
    "checkpoint_every": 2,
    "log_every": 1,
    "flip": 0.5,
    "warmup_iterations": 0,
    "warmup_factor": 0.1,
}
RECIPES = {
    "segmentation": SegmentationRecipe(
        **_COMMON,
        resize=(256, 64),
        iterations=4,
        poly_power=0.9,
        min_lr=0.0,
        ratio_range=(0.5, 2.0),
        crop_size=64,
        photometric_distortion=True,
    ),
    "detection": DetectionRecipe(
        **_COMMON,
        resize=(96, 64),
        epochs=1,
        milestones=(),
        lr_gamma=0.1,
        train_proposals=20,
        test_proposals=20,
        roi_samples=16,
        max_detections=10,
        anchor_scale=4,
    ),
}


def tiny_run(folder: Path, task: str, model: str = TINY.name, seed: int = 0, **changes: Any) -> Run:
    """Return a run on a few random images, with the classification checkpoint that it starts from.

    Args:
        folder: Folder of data and results; existing files are kept.
        task: ``segmentation`` or ``detection``.
        model: Name of a model in `MODELS`.
        seed: Seed of the training.
        changes: Values of the recipe that differ from `RECIPES`.
    """
    spec = MODELS[model]
    dataset = _dataset(folder / "data" / task, task)
    classes = DatasetConfig(name="tiny", data_format="imagenet", root=folder, num_classes=CLASSES, images=IMAGES)
    parent_folder = folder / "classification" / spec.name
    parent = Run("classification", spec, seed, classes, RECIPES[task], {}, None, "parent", parent_folder)
    if not parent.checkpoint.exists():
        torch.manual_seed(seed)
        identity = {"run": parent.id, "task": "classification", "model": spec.name, "fingerprint": "parent"}
        state = create(spec, num_classes=CLASSES).state_dict()
        save_checkpoint(parent.checkpoint, {"state_dict": state, "meta": identity})
    recipe = RECIPES[task].model_copy(update=changes)
    content = recipe.identity()
    mark = fingerprint({"task": task, "model": model, "seed": seed, **content})
    return Run(task, spec, seed, dataset, recipe, {}, parent, mark, folder / task / model)


def _dataset(root: Path, task: str) -> DatasetConfig:
    data_format = {"segmentation": "ade20k", "detection": "coco"}[task]
    dataset = DatasetConfig(name="tiny", data_format=data_format, root=root, num_classes=CLASSES, images=IMAGES)
    if not root.exists():
        (_write_ade20k if task == "segmentation" else _write_coco)(root)
    return dataset


def _scenes(split: str) -> list[tuple[np.ndarray, list[tuple[int, list[int]]]]]:
    """Return noisy images with two or three coloured rectangles each: (class, [x, y, width, height])."""
    random = np.random.default_rng(len(split))
    scenes = []
    for index in range(IMAGES[split]):
        # Every other image is portrait.
        height, width = (64, 80) if index % 2 else (80, 64)
        image = random.integers(0, 90, (height, width, 3))
        objects = []
        for _ in range(int(random.integers(2, 4))):
            label = int(random.integers(CLASSES))
            box = [int(random.integers(0, 30)), int(random.integers(0, 30)), int(random.integers(20, 34)), 24]
            x, y, w, h = box
            image[y : y + h, x : x + w, label] += 140
            objects.append((label, box))
        scenes.append((image.clip(0, 255).astype(np.uint8), objects))
    return scenes


def _write_ade20k(root: Path) -> None:
    for split, name in (("train", "training"), ("val", "validation")):
        images, masks = root / "images" / name, root / "annotations" / name
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index, (image, objects) in enumerate(_scenes(split)):
            mask = np.zeros(image.shape[:2], np.uint8)
            for label, (x, y, w, h) in objects:
                mask[y : y + h, x : x + w] = label + 1
            Image.fromarray(image).save(images / f"{index}.jpg")
            Image.fromarray(mask).save(masks / f"{index}.png")


def _write_coco(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split in IMAGES:
        folder = root / f"{split}2017"
        folder.mkdir()
        content: dict[str, list] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 10 + label, "name": f"shape_{label}"} for label in range(CLASSES)]
        for index, (image, objects) in enumerate(_scenes(split)):
            Image.fromarray(image).save(folder / f"{index}.jpg")
            height, width = image.shape[:2]
            content["images"].append({"id": index, "file_name": f"{index}.jpg", "width": width, "height": height})
            for label, (x, y, w, h) in objects:
                annotation = {
                    "id": len(content["annotations"]) + 1,
                    "image_id": index,
                    "category_id": 10 + label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
                content["annotations"].append(annotation)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


if __name__ == "__main__":
    from hafabench.engines import dense

    torch.set_num_threads(1)
    dense.train(tiny_run(Path(sys.argv[1]), sys.argv[2], **json.loads(sys.argv[3])))
