"""Semantic segmentation (Semantic FPN, mmseg) and instance segmentation (Mask R-CNN, mmdet): train and evaluate.

mmengine's runner drives the training (paper, sections 4.2 and 4.3). Configurations are built from the run, backbones
come from `hafabench.models` and start from the run's classification checkpoint. As in classification, data and
randomness are functions of (seed, step), so that resuming needs a step, weights, optimiser and schedules.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, Dataset, SequentialSampler

from hafabench.config.catalog import ModelSpec
from hafabench.config.metrics import METRICS
from hafabench.config.recipes import DenseRecipe
from hafabench.data import paths
from hafabench.data.classes import coco_classes, segmentation_classes
from hafabench.engines import sampling
from hafabench.engines.dense import config as configuration
from hafabench.engines.dense import operators
from hafabench.engines.dense.backbone import initialise_backbone
from hafabench.engines.dense.sampling import AspectSampler
from hafabench.engines.distributed import World, joined_world
from hafabench.engines.interrupt import StopRequest
from hafabench.engines.progress import announced
from hafabench.engines.sampling import SeededSamples, StepSampler, Stream, seed_everything
from hafabench.engines.training import TrainingSession, deterministic, identity, is_trained, say_trained
from hafabench.engines.training_state import TrainingState
from hafabench.errors import Problem, UserError
from hafabench.models import create
from hafabench.models.checkpoints.storage import Fill, expect_meta, load_checkpoint, load_strict
from hafabench.results.predictions import write_predictions
from hafabench.results.record import Metric
from hafabench.runs.run import Run


def load_mm() -> ModuleType:
    """`hafabench.engines.dense.mm`, with mmcv's operators seen to; the first call takes seconds."""
    operators.install()
    from hafabench.engines.dense import mm

    return mm


def build_dense_model(
    spec: ModelSpec, task: str, num_classes: int, recipe: DenseRecipe | None = None, *, sync_norm: bool = False
) -> nn.Module:
    """Semantic FPN or Mask R-CNN on any backbone of the catalogue, randomly initialised.

    Under ``torch.device("meta")`` nothing is allocated.

    Args:
        spec: the backbone's model.
        task: ``segmentation`` or ``detection``.
        num_classes: classes of the head.
        recipe: of a run; None takes the libraries' stock heads and no drop path.
        sync_norm: batch statistics over all processes where mmseg's configurations have them.

    Raises:
        UserError: for a model without a feature pyramid.
    """
    mm = load_mm()
    with torch.device("meta"):
        channels = list(create(spec, dense=True).channels)
    stock = mm.stock_model(task)
    return mm.build_model(
        task,
        configuration.fill_model(stock, spec, task, num_classes, channels, recipe, sync_norm=sync_norm),
    )


def train(run: Run) -> None:
    """Train ``run`` and write its final checkpoint; take up an interrupted training where its last state stands.

    On CPU the weights are bit for bit those of a training that was never interrupted, given the same number of
    processes and threads. A run that is already trained is left alone. Files and torchrun: as in classification.

    Raises:
        UserError: for a recipe that cannot be carried out, a checkpoint to start from that does not fit, unreadable
            data, a loss that is no longer finite.
        SystemExit: with code 75 after a request to stop, the state being saved.
    """
    if is_trained(run):
        say_trained(run)
        return
    mm = load_mm()
    with StopRequest() as stop, joined_world() as world, deterministic(world.device), mm.scope(run.task):
        _Training(mm, run, world, stop).complete()


class _Training:
    """One process's part in the training of a dense run; mmengine calls it at every step."""

    def __init__(self, mm: ModuleType, run: Run, world: World, stop: StopRequest):
        self.mm, self.run, self.world = mm, run, world
        self.per_process = world.share_of(run.recipe.batch_size)
        self.dataset = _dataset(mm, run, "train")
        total = configuration.total_steps(run, len(self.dataset))
        self.session = TrainingSession(run, world, stop, total)
        self.steps_per_epoch = len(self.dataset) // run.recipe.batch_size
        self.lr = math.nan

    def complete(self) -> None:
        """Train to the last step and write the final checkpoint."""
        run, recipe = self.run, self.run.recipe
        seed_everything(run.seed, Stream.WEIGHTS)
        on_gpu = self.world.device.type == "cuda"
        sync_norm = on_gpu and self.world.size > 1
        model = build_dense_model(run.model, run.task, run.dataset.num_classes, recipe, sync_norm=sync_norm)
        start = initialise_backbone(model.backbone.body, run, announce=self.world.is_first)
        if sync_norm and run.task == "segmentation" and run.model.family == "resnet":
            # mmseg's ResNets share batch statistics too.
            model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)
        with tempfile.TemporaryDirectory(prefix="hafabench-") as folder:
            runner = self.mm.QuietRunner(
                run.task,
                self,
                self.world,
                folder,
                model=model,
                optim_wrapper=configuration.optimizer_config(recipe, on_gpu=on_gpu),
                param_scheduler=configuration.schedule_config(recipe, self.session.total, self.steps_per_epoch),
            )
            runner.train()
        self.session.finish({**identity(run), "initialised_from": start})

    def __len__(self) -> int:
        """Optimiser steps of the whole training."""
        return self.session.total

    def batches(self, start: int) -> Iterator[dict[str, Any]]:
        """This process's batches from step ``start`` on."""
        run, world = self.run, self.world
        order = {
            "seed": run.seed,
            "start": start,
            "stop": self.session.total,
            "rank": world.rank,
            "size": world.size,
        }
        if run.task == "detection":
            infos = (self.dataset.get_data_info(index) for index in range(len(self.dataset)))
            landscape = [info["width"] >= info["height"] for info in infos]
            sampler = AspectSampler(landscape, run.recipe.batch_size, **order)
        else:
            sampler = StepSampler(len(self.dataset), run.recipe.batch_size, **order)
        return sampling.batches(
            SeededSamples(self.dataset, run.seed),
            sampler,
            workers=run.recipe.workers,
            pin=world.device.type == "cuda",
            collate=self.mm.pseudo_collate,
        )

    def begin(self, runner: Any) -> int:
        """Called by mmengine before training: resume; returns the number of steps already done."""
        model = self.mm.unwrapped(runner.model)
        self.session.begin(TrainingState(model, runner.optim_wrapper, self.mm.Schedules(runner.param_schedulers)))
        return self.session.state.step

    def before_step(self, runner: Any) -> None:
        """Called by mmengine before each step."""
        self.lr = runner.optim_wrapper.get_lr()["lr"][0]
        # Dropout, drop-path and the sampling of regions draw from here: the step alone decides what they draw.
        seed_everything(self.run.seed, Stream.STEP, self.session.state.step, self.world.rank)

    def after_step(self, losses: dict[str, Any]) -> None:
        """Called by mmengine after each step and its schedules, with what the model logs."""
        epoch = (self.session.state.step + 1) / self.steps_per_epoch
        self.session.step_done(losses["loss"].item(), self.lr, epoch=epoch)


def evaluate(run: Run, checkpoint: Path, fill: Fill | None = None, keep: Path | None = None) -> list[Metric]:
    """Mean IoU and accuracies (segmentation), or COCO's box and mask APs (detection), in percent.

    One scale, no flip; segmentation on whole images, the truth at its own size. Values that are not defined (no
    object of a size range in the data) are left out. ``repeats`` is the number of images. ``fill`` is for weights
    from elsewhere, as in `load_trained`; ``keep`` is a file for `Areas` or `Detections`.

    Raises:
        UserError: for a checkpoint of another run or unreadable data.
    """
    mm = load_mm()
    recipe = run.recipe
    with mm.scope(run.task):
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_trained(run, checkpoint, fill).to(device)
        dataset = validation_data(run)
        loading = sampling.batches(
            dataset,
            BatchSampler(SequentialSampler(dataset), recipe.eval_batch_size, drop_last=False),
            workers=recipe.workers,
            pin=device.type == "cuda",
            collate=mm.same_size_collate if run.task == "segmentation" else mm.pseudo_collate,
        )
        metric = mm.metric(run.task, paths.coco_annotations(run.dataset, "val"))
        values = mm.evaluate(model, dataset, announced(loading, run.id, len(dataset), recipe.eval_batch_size), metric)
    if keep is not None:
        names = [Path(dataset.get_data_info(index)["img_path"]).name for index in range(len(dataset))]
        write_predictions(keep, metric.predictions(names))
    short, long = min(recipe.resize), max(recipe.resize)
    return [
        Metric(
            task=run.task,
            model=run.model.name,
            seed=run.seed,
            name=name,
            value=value,
            unit=METRICS[name].unit,
            repeats=len(dataset),
            convention=f"whole image, shorter side {short}, longer at most {long}; one scale",
        )
        for name, value in values.items()
    ]


def load_trained(run: Run, checkpoint: Path, fill: Fill | None = None) -> nn.Module:
    """The run's model with its final weights, in evaluation mode, on the CPU.

    Args:
        run: whose model.
        checkpoint: its final checkpoint, or what ``fill`` reads.
        fill: gives the model its weights, `fill_trained` by default.

    Raises:
        UserError: for a checkpoint of another run, or one that does not fit the model.
    """
    fill = fill or fill_trained
    model = build_dense_model(run.model, run.task, run.dataset.num_classes, run.recipe)
    fill(model, run, checkpoint)
    return model.eval()


def fill_trained(model: nn.Module, run: Run, checkpoint: Path) -> None:
    """Give ``model`` the weights of the run's own final checkpoint.

    Raises:
        UserError: for a checkpoint of another run, or one that does not fit the model.
    """
    content = load_checkpoint(checkpoint)
    expect_meta(checkpoint, content, **identity(run))
    load_strict(model, content["state_dict"], checkpoint)


def validation_data(run: Run) -> Dataset:
    """The run's validation split as its evaluation reads it; raises `UserError` where it cannot be read."""
    mm = load_mm()
    with mm.scope(run.task):
        return _dataset(mm, run, "val")


def _dataset(mm: ModuleType, run: Run, split: str) -> Dataset:
    """The run's data of one split, with its annotations read.

    Raises:
        UserError: for missing, unreadable or empty data, or classes that are not the configured ones.
    """
    advice = f"`hafabench data verify {run.task}` says all that is wrong with the data"
    problems = [
        Problem(str(p), "", f"not there; {advice}") for p in paths.required_paths(run.dataset) if not p.exists()
    ]
    if problems:
        raise UserError(problems)
    classes = _classes(run)
    try:
        dataset = mm.build_dataset(run.task, configuration.dataset_config(run, split, classes))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            Problem(str(run.dataset.root), split, f"annotations not readable: {error!r}; {advice}")
        ) from None
    if not len(dataset):
        raise UserError(Problem(str(run.dataset.root), split, f"no image that can be used; {advice}"))
    if run.task == "detection" and len(dataset.cat_ids) != len(classes):
        message = f"expected the categories {', '.join(classes)}, found {len(dataset.cat_ids)} of them; {advice}"
        raise UserError(Problem(str(run.dataset.root), split, message))
    return dataset


def _classes(run: Run) -> list[str]:
    """Names of the classes in the order of their indices."""
    expected = run.dataset.num_classes
    if run.task == "detection":
        names = coco_classes(run.dataset)
    else:
        names = segmentation_classes(run.dataset) or [f"class_{index}" for index in range(expected)]
    if len(names) != expected:
        message = f"expected {expected} classes, found {len(names)}: {', '.join(names[:20])}"
        raise UserError(Problem(str(run.dataset.root), "num_classes", message))
    return names
