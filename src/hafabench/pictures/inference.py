"""Forward passes of trained models that keep the values that the pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.data.loaders import classification_dataset
from hafabench.data.preview import spread
from hafabench.data.report import compared_digest
from hafabench.engines.classification.augmentation import eval_transform
from hafabench.engines.dense.datasets import load_dataset
from hafabench.engines.dense.model import load_mm
from hafabench.engines.finite import DENSE_PARTS, finite_outputs
from hafabench.engines.trained import load_trained
from hafabench.models.hafa import LocalAdaptiveAggregation
from hafabench.pictures.samples import ClassifiedImage, SamplingPoints, SegmentedImage
from hafabench.runs.run import Run


@torch.inference_mode()
def segment_images(runs: Sequence[Run], count: int) -> list[SegmentedImage]:
    """Segment ``count`` images, evenly spread over the validation split, with the final weights of some runs.

    Args:
        runs: Segmentation runs on one data set. The model of the last one merges with SIA into stage 4.
        count: The number of images.

    Raises:
        UserError: If a checkpoint is missing or belongs to another run, or if the data cannot be read
            or is not the verified data.
    """
    compared_digest(runs[-1].dataset, "val", runs[-1].dataset_report)
    mm = load_mm()
    # The models and data sets of mmseg have no type annotations.
    models: list[Any] = [load_trained(run, run.checkpoint) for run in runs]
    segmented = []
    with mm.scope("segmentation"):
        data: Any = load_dataset(runs[-1], "val")
        for index in spread(range(len(data)), count):
            sample = data[index]
            batch = mm.pseudo_collate([sample])
            results = []
            for model in models:
                with finite_outputs(model, *DENSE_PARTS):
                    results.append(model.test_step(batch)[0])
            inputs = models[-1].data_preprocessor(batch, training=False)["inputs"]
            tokens = models[-1].backbone.body.forward_tokens(inputs)[-1]
            segmented.append(
                SegmentedImage(
                    name=Path(sample["data_samples"].img_path).name,
                    image=sample["inputs"].flip(0).permute(1, 2, 0).numpy(),
                    truth=sample["data_samples"].gt_sem_seg.data[0].numpy(),
                    predicted=tuple(result.pred_sem_seg.data[0].numpy() for result in results),
                    clusters=tokens.assignment[0].view(tokens.initial_grid).numpy(),
                )
            )
    return segmented


@torch.inference_mode()
def classify_images(run: Run, count: int) -> list[ClassifiedImage]:
    """Classify ``count`` images, evenly spread over the validation split, and keep where the LAAs sample them.

    Raises:
        UserError: If the checkpoint is missing or belongs to another run, or if the data cannot be read
            or is not the verified data.
    """
    compared_digest(run.dataset, "val", run.dataset_report)
    model = load_trained(run, run.checkpoint)
    assert isinstance(run.recipe, ClassificationRecipe)
    transform: Any = eval_transform(run.recipe)  # a `Compose` of torchvision, the last step of which normalises
    normalize = transform.transforms[-1]
    mean, std = (torch.as_tensor(values).view(3, 1, 1) for values in (normalize.mean, normalize.std))
    data = classification_dataset(run.dataset, "val", transform)
    classified = []
    for index in spread(range(len(data)), count):
        pixels, label = data[index]
        logits, sampling = _forward_with_sampling_points(model, pixels.unsqueeze(0), run.model.mergers)
        image = ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        classified.append(
            ClassifiedImage(
                name=Path(data.samples[index][0]).name,
                image=image,
                label=data.classes[label],
                predicted=data.classes[int(logits.argmax())],
                sampling=sampling,
            )
        )
    return classified


def _forward_with_sampling_points(
    model: nn.Module, images: torch.Tensor, mergers: Sequence[str]
) -> tuple[torch.Tensor, tuple[SamplingPoints, ...]]:
    """Return the logits of one image (1, 3, H, W) and the sampling points of every LAA in the model."""
    offsets: list[tuple[LocalAdaptiveAggregation, torch.Tensor]] = []
    modules = [module for module in model.modules() if isinstance(module, LocalAdaptiveAggregation)]
    hooks = [
        module.offset.register_forward_hook(lambda _, __, output, module=module: offsets.append((module, output)))
        for module in modules
    ]
    try:
        with finite_outputs(model):
            logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    stages = [stage for stage, merger in enumerate(mergers, start=1) if merger == "laa"]
    # The map that feeds stage s has stride 2^s: 4 after the patch embedding, doubled by every merger.
    return logits, tuple(
        sampling_points(offset[0], stage, 2.0**stage, module.conv.kernel, module.conv.stride, module.conv.padding)
        for stage, (module, offset) in zip(stages, offsets, strict=True)
    )


def sampling_points(
    offset: torch.Tensor, stage: int, map_stride: float, kernel: int, stride: int, padding: int
) -> SamplingPoints:
    """Convert the offsets of an LAA to points on the image.

    Args:
        offset: (2 * kernel * kernel, rows, columns) offsets (y, x) per kernel point, in positions of the sampled map.
        stage: The stage that follows the LAA.
        map_stride: The stride of the sampled map, in pixels of the image.
        kernel: The side of the window, in positions.
        stride: The distance between windows, in positions.
        padding: The padding of the map, in positions.
    """
    rows, columns = offset.shape[-2:]
    moves = offset.view(kernel, kernel, 2, rows, columns).permute(3, 4, 0, 1, 2).double().numpy()
    row, column, y, x = np.meshgrid(
        np.arange(rows), np.arange(columns), np.arange(kernel), np.arange(kernel), indexing="ij"
    )
    positions = np.stack((row * stride - padding + y, column * stride - padding + x), axis=-1)
    shape = (rows, columns, kernel * kernel, 2)
    fixed = ((positions + 0.5) * map_stride).reshape(shape)
    return SamplingPoints(stage, fixed, fixed + (moves * map_stride).reshape(shape), map_stride)
