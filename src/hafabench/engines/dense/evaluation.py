"""The evaluation of a dense model: mean IoU and accuracies, or COCO's average precisions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch.utils.data import BatchSampler, SequentialSampler

from hafabench.config.metrics import METRICS
from hafabench.config.recipes import DenseRecipe, SegmentationRecipe
from hafabench.data import paths
from hafabench.engines.dense.config import dense_recipe
from hafabench.engines.dense.datasets import load_dataset
from hafabench.engines.dense.model import load_mm
from hafabench.engines.progress import report_progress
from hafabench.engines.sampling import batches
from hafabench.engines.trained import load_trained
from hafabench.files import atomic_folder
from hafabench.models.checkpoints.storage import Fill
from hafabench.results.predictions import made_outputs, write_predictions
from hafabench.results.record import Metric, is_output
from hafabench.runs.run import Run


def evaluate(
    run: Run,
    checkpoint: Path,
    fill: Fill | None = None,
    keep: Path | None = None,
    outputs: Path | None = None,
) -> list[Metric]:
    """Measure mean IoU and accuracies (segmentation), or COCO's box and mask APs (detection), in percent.

    Images are evaluated at one scale without flip. Segmentation uses whole images; the truth keeps its own size.
    Values that are not defined, such as the AP of a size range without objects, are left out.

    Args:
        run: The run whose model is evaluated.
        checkpoint: The run's final checkpoint, or the file that ``fill`` reads.
        fill: Loads the weights into the model; `fill_trained` by default.
        keep: If given, the `Areas` or `Detections` of the single images are written to this file.
        outputs: If given, this folder is replaced by one with the detections in COCO's result format
            (``detections.bbox.json``, ``detections.segm.json``), or with a label map per image (PNG, size of the
            image, values as in ADE20K's masks).

    Raises:
        UserError: If the checkpoint belongs to another run, or the data cannot be read.
    """
    mm = load_mm()
    recipe = dense_recipe(run)
    is_made = made_outputs(keep) if keep is not None else is_output
    with mm.scope(run.task), atomic_folder(outputs, is_made) if outputs is not None else nullcontext() as folder:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_trained(run, checkpoint, fill).to(device)
        dataset = load_dataset(run, "val")
        loading = batches(
            dataset,
            BatchSampler(SequentialSampler(dataset), recipe.eval_batch_size, drop_last=False),
            workers=recipe.workers,
            pin=device.type == "cuda",
            collate=mm.same_size_collate if run.task == "segmentation" else mm.pseudo_collate,
        )
        metric = mm.metric(run.task, paths.coco_annotations(run.dataset, "val"), folder)
        loaded = report_progress(loading, run.id, len(dataset), recipe.eval_batch_size)
        values = mm.evaluate(model, dataset, loaded, metric)
    if keep is not None:
        names = [Path(dataset.get_data_info(index)["img_path"]).name for index in range(len(dataset))]
        write_predictions(keep, metric.predictions(names))
    convention = _convention(recipe)
    return [
        Metric(
            task=run.task,
            model=run.model.name,
            seed=run.seed,
            name=name,
            value=value,
            unit=METRICS[name].unit,
            repeats=len(dataset),
            convention=convention,
        )
        for name, value in values.items()
    ]


def _convention(recipe: DenseRecipe) -> str:
    """Return the sentence that describes how the images of an evaluation are resized."""
    short, long = min(recipe.resize), max(recipe.resize)
    sentence = f"whole image, shorter side {short}, longer at most {long}; one scale"
    if isinstance(recipe, SegmentationRecipe) and recipe.size_divisor is not None:
        sentence += f"; both sides enlarged to multiples of {recipe.size_divisor}"
    return sentence
