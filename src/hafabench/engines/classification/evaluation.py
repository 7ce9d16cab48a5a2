"""The evaluation of a classifier: top-1 and top-5 accuracy."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from hafabench.config.metrics import METRICS
from hafabench.data.loaders import classification_dataset
from hafabench.engines.classification.augmentation import eval_transform
from hafabench.engines.classification.model import classification_recipe
from hafabench.engines.finite import finite_outputs
from hafabench.engines.progress import report_progress
from hafabench.engines.sampling import batches
from hafabench.engines.trained import fill_averaged, load_trained
from hafabench.errors import Problem, UserError
from hafabench.models.checkpoints.storage import Fill
from hafabench.results.predictions import Hits, write_predictions
from hafabench.results.record import Metric
from hafabench.runs.run import Run


@torch.inference_mode()
def evaluate(
    run: Run,
    checkpoint: Path,
    fill: Fill | None = None,
    keep: Path | None = None,
    outputs: Path | None = None,
) -> list[Metric]:
    """Measure top-1 and top-5 accuracy in percent on the validation images: one centre crop, single precision.

    If a moving average of the weights was kept, its ``top1_ema`` and ``top5_ema`` are measured too. With fewer than
    five classes, top-5 considers as many predictions as there are classes.

    Args:
        run: The run whose model is evaluated.
        checkpoint: The run's final checkpoint, or the file that ``fill`` reads.
        fill: Loads the weights into the model; `fill_trained` by default.
        keep: If given, the `Hits` of the single images are written to this file.
        outputs: Must be None, because a classifier has neither detections nor label maps.

    Raises:
        UserError: If the checkpoint belongs to another run, the data cannot be read, or ``outputs`` is given.
    """
    if outputs is not None:
        raise UserError(f"{run.id}: classification has no detections or label maps to keep")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_trained(run, checkpoint, fill).to(device)
    recipe = classification_recipe(run)
    dataset = classification_dataset(run.dataset, "val", eval_transform(recipe))
    sampler = BatchSampler(SequentialSampler(dataset), recipe.eval_batch_size, drop_last=False)
    guesses = min(5, run.dataset.num_classes)
    hits: dict[str, list[torch.Tensor]] = {"top1": [], "top5": []}
    loading = batches(dataset, sampler, workers=recipe.workers, pin=device.type == "cuda")
    reported = report_progress(loading, run.id, len(dataset), recipe.eval_batch_size)
    with closing(reported) as loaded, finite_outputs(model):
        for batch, (images, labels) in enumerate(loaded):
            try:
                logits = model(images.to(device))
            except UserError as error:
                first = dataset.samples[batch * recipe.eval_batch_size][0]
                place = str(first) if len(images) == 1 else f"{first} or one of the next {len(images) - 1} images"
                raise UserError([Problem(place, "", str(problem)) for problem in error.problems]) from None
            correct = logits.topk(guesses, dim=1).indices.cpu() == labels[:, None]
            hits["top1"].append(correct[:, 0])
            hits["top5"].append(correct.any(1))
    found = {name: torch.cat(parts).numpy() for name, parts in hits.items()}
    if keep is not None:
        names = [Path(path).relative_to(dataset.root).as_posix() for path, _ in dataset.samples]
        write_predictions(keep, Hits(np.array(names), **found))
    convention = f"centre crop {recipe.image_size} of {math.floor(recipe.image_size / recipe.eval_crop)}"
    metrics = [
        Metric(
            task="classification",
            model=run.model.name,
            seed=run.seed,
            name=name,
            value=100 * int(correct.sum()) / len(dataset),
            unit=METRICS[name].unit,
            repeats=len(dataset),
            convention=convention,
        )
        for name, correct in found.items()
    ]
    pruning = recipe.token_pruning
    if fill is None and pruning is not None and pruning.ema_decay is not None:
        note = f"moving average of the weights, decay {pruning.ema_decay:g}"
        metrics += [
            metric.model_copy(update={"name": f"{metric.name}_ema", "convention": f"{metric.convention}; {note}"})
            for metric in evaluate(run, checkpoint, fill_averaged)
        ]
    return metrics
