"""A classification run that is small enough to train in a test.

The module is also a program that trains a run, so that tests can kill it or start several processes:
``python -m tools.tiny_runs.classification FOLDER '{"epochs": 2}'``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.config.experiment import DatasetConfig
from hafabench.config.recipes import ClassificationRecipe
from hafabench.runs.fingerprints import fingerprint
from hafabench.runs.run import Run
from tools.checkout import REPOSITORY

# ConvNeXt has drop-path and no BatchNorm; ResNet has BatchNorm.
MODELS = {
    "tiny_convnext": ModelSpec("tiny_convnext", "resnet", "tiny", "test_convnext"),
    "tiny_resnet": ModelSpec("tiny_resnet", "resnet", "tiny", "test_resnet"),
}
ALL_MODELS = {**CATALOG, **MODELS}
CLASSES, IMAGES = 3, 8
PLAIN = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "batch_size": 8,
    "drop_path": 0.0,
    "workers": 0,
    "eval_batch_size": 5,
    "checkpoint_every": 2,
    "log_every": 1,
    "image_size": 32,
    "eval_crop": 0.875,
    "epochs": 3,
    "warmup_epochs": 1,
    "lr_batch_size": 8,
    "warmup_lr": 1e-5,
    "min_lr": 1e-5,
    "interpolation": "bilinear",
    "crop_scale": (1.0, 1.0),
    "horizontal_flip": 0.0,
    "color_jitter": 0.0,
    "auto_augment": None,
    "mixup": 0.0,
    "cutmix": 0.0,
    "mixup_switch_prob": 0.5,
    "label_smoothing": 0.1,
    "random_erasing": 0.0,
    "repeated_augmentation": 1,
}
# Every source of randomness in the paper's recipe.
RANDOM = {
    "drop_path": 0.3,
    "interpolation": "random",
    "crop_scale": (0.3, 1.0),
    "horizontal_flip": 0.5,
    "color_jitter": 0.4,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "mixup": 0.8,
    "cutmix": 1.0,
    "random_erasing": 0.5,
    "repeated_augmentation": 2,
    "clip_grad": 1.0,
}


def make_images(root: Path) -> None:
    """Write two splits of random images in ImageNet's format: `CLASSES` classes of `IMAGES` images each."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(CLASSES):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(IMAGES):
                pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                pixels[..., label] //= 4
                Image.fromarray(pixels).save(folder / f"{index}.png")


def tiny_run(
    folder: Path,
    *,
    images: Path,
    model: str = "tiny_convnext",
    seed: int = 0,
    num_classes: int = CLASSES,
    **changes: Any,
) -> Run:
    """Return a run on a few images.

    Args:
        folder: Folder of the run.
        images: Folder of the images, made by `make_images`.
        model: Name of a model in `ALL_MODELS`.
        seed: Seed of the training.
        num_classes: Number of classes.
        changes: Values of the recipe that differ from `PLAIN`."""
    recipe = ClassificationRecipe.model_validate({**PLAIN, **changes})
    counts = {"train": CLASSES * IMAGES, "val": CLASSES * IMAGES}
    dataset = DatasetConfig(name="tiny", data_format="imagenet", root=images, num_classes=num_classes, images=counts)
    content = recipe.identity()
    return Run(
        task="classification",
        model=ALL_MODELS[model],
        seed=seed,
        dataset=dataset,
        recipe=recipe,
        sources={},
        parent=None,
        fingerprint=fingerprint({"model": model, "seed": seed, "recipe": content}),
        folder=folder,
    )


def start(folder: Path, images: Path, *, processes: int = 1, env: dict[str, str] | None = None, **changes: Any):
    """Start the training of a run in another process, or in several with torchrun, and return the `Popen`.

    Args:
        folder: Folder of the run.
        images: Folder of the images.
        processes: Number of processes.
        env: Additional environment variables.
        changes: Values of the recipe that differ from `PLAIN`."""
    program = ["-m", "tools.tiny_runs.classification", str(folder), str(images), json.dumps(changes)]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        program = [*launcher, *program]
    return subprocess.Popen(
        [sys.executable, *program],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        stderr=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    import torch

    from hafabench.engines import classification

    torch.set_num_threads(1)
    folder, images, changes = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    classification.train(tiny_run(folder, images=images, **changes))


if __name__ == "__main__":
    main()
