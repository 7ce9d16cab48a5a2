"""What trained models do with single images: forward passes that keep what a picture needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hafabench.data.loaders import classification_dataset
from hafabench.data.preview import spread
from hafabench.engines.classification import engine as classification
from hafabench.engines.classification.augmentation import eval_transform
from hafabench.engines.dense import engine as dense
from hafabench.models.hafa import LocalAdaptiveAggregation
from hafabench.pictures.samples import Sampling, Segmentation, Windows
from hafabench.runs.run import Run


@torch.inference_mode()
def segmentations(runs: Sequence[Run], count: int) -> list[Segmentation]:
    """Segment ``count`` images, evenly spread over the validation split, with the runs' final weights.

    Args:
        runs: of segmentation, on one data set; the last one's model clusters into stage 4.

    Raises:
        UserError: for a missing or foreign checkpoint, or unreadable data.
    """
    mm = dense.load_mm()
    models = [dense.load_trained(run, run.checkpoint) for run in runs]
    found = []
    with mm.scope("segmentation"):
        data = dense.validation_data(runs[-1])
        for index in spread(range(len(data)), count):
            sample = data[index]
            batch = mm.pseudo_collate([sample])
            results = [model.test_step(batch)[0] for model in models]
            inputs = models[-1].data_preprocessor(batch, training=False)["inputs"]
            tokens = models[-1].backbone.body.forward_tokens(inputs)[-1]
            found.append(
                Segmentation(
                    name=Path(sample["data_samples"].img_path).name,
                    image=sample["inputs"].flip(0).permute(1, 2, 0).numpy(),
                    truth=sample["data_samples"].gt_sem_seg.data[0].numpy(),
                    predicted=tuple(result.pred_sem_seg.data[0].numpy() for result in results),
                    clusters=tokens.cells[0].view(tokens.cell_grid).numpy(),
                )
            )
    return found


@torch.inference_mode()
def samplings(run: Run, count: int) -> list[Sampling]:
    """Where the LAAs of a classifier sample ``count`` images, evenly spread over its validation split.

    Raises:
        UserError: for a missing or foreign checkpoint, or unreadable data.
    """
    model = classification.load_trained(run, run.checkpoint)
    transform = eval_transform(run.recipe)
    normalize = transform.transforms[-1]
    mean, std = (torch.as_tensor(values).view(3, 1, 1) for values in (normalize.mean, normalize.std))
    data = classification_dataset(run.dataset, "val", transform)
    found = []
    for index in spread(range(len(data)), count):
        pixels, label = data[index]
        logits, windows = _windows(model, pixels.unsqueeze(0), run.model.mergers)
        image = ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        found.append(
            Sampling(
                name=Path(data.samples[index][0]).name,
                image=image,
                label=data.classes[label],
                predicted=data.classes[int(logits.argmax())],
                windows=windows,
            )
        )
    return found


def _windows(
    model: nn.Module, images: torch.Tensor, mergers: Sequence[str]
) -> tuple[torch.Tensor, tuple[Windows, ...]]:
    """Logits of one image (1, 3, H, W), and the sampling points of every LAA on the way."""
    seen: list[tuple[LocalAdaptiveAggregation, torch.Tensor]] = []
    modules = [module for module in model.modules() if isinstance(module, LocalAdaptiveAggregation)]
    hooks = [
        module.offset.register_forward_hook(lambda _, __, output, module=module: seen.append((module, output)))
        for module in modules
    ]
    try:
        logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    stages = [stage for stage, kind in enumerate(mergers, start=1) if kind == "laa"]
    # The map that feeds stage s has stride 2^s: 4 after the patch embedding, halved by every merger.
    return logits, tuple(
        sampling_points(offset[0], stage, 2.0**stage, module.conv.kernel, module.conv.stride, module.conv.padding)
        for stage, (module, offset) in zip(stages, seen, strict=True)
    )


def sampling_points(offset: torch.Tensor, stage: int, cell: float, kernel: int, stride: int, padding: int) -> Windows:
    """Offsets (2 k k, rows, columns) of an LAA as points on the image.

    Args:
        offset: (y, x) per kernel point, in cells of the map that the LAA samples.
        stage: that it feeds.
        cell: side of such a cell in pixels of the image.
        kernel, stride, padding: of the window, in cells.
    """
    rows, columns = offset.shape[-2:]
    moves = offset.view(kernel, kernel, 2, rows, columns).permute(3, 4, 0, 1, 2).double().numpy()
    row, column, y, x = np.meshgrid(
        np.arange(rows), np.arange(columns), np.arange(kernel), np.arange(kernel), indexing="ij"
    )
    places = np.stack((row * stride - padding + y, column * stride - padding + x), axis=-1)
    shape = (rows, columns, kernel * kernel, 2)
    fixed = ((places + 0.5) * cell).reshape(shape)
    return Windows(stage, fixed, fixed + (moves * cell).reshape(shape), cell)
