"""Image classification: training with exact resume, and evaluation (torch + timm; paper, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from hafabench import models
from hafabench.config.metrics import METRICS
from hafabench.data.loaders import classification_dataset
from hafabench.engines.classification.augmentation import criterion, eval_transform, mixing, train_transform
from hafabench.engines.classification.objective import Objective
from hafabench.engines.classification.optimization import build_optimizer, build_schedule
from hafabench.engines.classification.token_pruning import PruningObjective
from hafabench.engines.distributed import World, joined_world
from hafabench.engines.interrupt import StopRequest
from hafabench.engines.progress import announced
from hafabench.engines.sampling import SeededSamples, StepSampler, Stream, batches, seed_everything
from hafabench.engines.training import TrainingSession, deterministic, identity, is_trained, say_trained
from hafabench.engines.training_state import TrainingState
from hafabench.errors import Problem, UserError
from hafabench.models.checkpoints.storage import Fill, expect_meta, load_checkpoint, load_strict
from hafabench.results.predictions import Hits, write_predictions
from hafabench.results.record import Metric
from hafabench.runs.run import Run


def train(run: Run) -> None:
    """Train ``run`` and write its final checkpoint; take up an interrupted training where its last state stands.

    On CPU the weights are bit for bit those of a training that was never interrupted, given the same number of
    processes and threads. A run that is already trained is left alone.

    Under torchrun the processes share each batch. The first one writes ``run.history``, the state in ``run.work``
    every ``checkpoint_every`` steps, and at the end ``run.checkpoint``, after which the work folder is removed.

    Raises:
        UserError: for a recipe that cannot be carried out, unreadable data, a loss that is no longer finite.
        SystemExit: with code 75 after a request to stop, the state being saved.
    """
    if is_trained(run):
        say_trained(run)
        return
    with StopRequest() as stop, joined_world() as world, deterministic(world.device):
        _Training(run, world, stop).complete()


class _Training:
    """One process's part in the training of a run."""

    def __init__(self, run: Run, world: World, stop: StopRequest):
        self.run, self.world, self.recipe = run, world, run.recipe
        per_process = world.share_of(self.recipe.batch_size)
        self.mixup = mixing(self.recipe, run.dataset.num_classes, per_process)
        self.dataset = classification_dataset(run.dataset, "train", train_transform(self.recipe))
        self.steps_per_epoch = len(self.dataset) // self.recipe.batch_size
        if not self.steps_per_epoch:
            message = f"{self.recipe.batch_size} images a step, but only {len(self.dataset)} to train on"
            raise UserError(Problem(run.id, "batch_size", message))
        self.session = TrainingSession(run, world, stop, self.recipe.epochs * self.steps_per_epoch)
        seed_everything(run.seed, Stream.WEIGHTS)
        model = _create_model(run).to(world.device).train()
        self.objective = _objective(run, model, criterion(self.recipe, self.mixup))
        optimizer = build_optimizer(model, self.recipe, self.objective.backbone, self.objective.backbone_lr_share)
        self.schedule = build_schedule(optimizer, self.recipe, self.steps_per_epoch)
        self.amp = self.recipe.amp and world.device.type == "cuda"
        scaler = torch.amp.GradScaler(world.device.type, enabled=self.amp)
        self.state = TrainingState(model, optimizer, scaler, self.objective.average)
        self.session.begin(self.state)
        self.loss = world.wrap(self.objective)

    def complete(self) -> None:
        """Train from the state's step to the last one and write the final checkpoint."""
        # Closed, so that an error's traceback keeps no loading process alive.
        with closing(self._batches()) as loaded:
            for images, labels in loaded:
                loss = self._step(images, labels)
                lr = self.state.optimizer.param_groups[0]["lr"]
                self.session.step_done(loss, lr, epoch=(self.state.step + 1) / self.steps_per_epoch)
        self.session.finish(_identity(self.run), epochs=self.recipe.epochs)

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        sampler = StepSampler(
            len(self.dataset),
            self.recipe.batch_size,
            repeats=self.recipe.repeated_augmentation,
            seed=self.run.seed,
            start=self.state.step,
            stop=self.session.total,
            rank=self.world.rank,
            size=self.world.size,
        )
        samples = SeededSamples(self.dataset, self.run.seed)
        pin = self.world.device.type == "cuda"
        return batches(samples, sampler, workers=self.recipe.workers, pin=pin)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """One optimiser step on this process's images (B, 3, H, W) and labels (B,); returns their mean loss."""
        state, device = self.state, self.world.device
        # Mixing, drop-path and dropout draw from here: the step alone decides what they draw.
        seed_everything(self.run.seed, Stream.STEP, state.step, self.world.rank)
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if self.mixup:
            images, labels = self.mixup(images, labels)
        self.schedule.step_update(state.step)
        self.objective.begin_step(state.step // self.steps_per_epoch)
        with torch.autocast(device.type, enabled=self.amp):
            loss = self.loss(images, labels)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        self.objective.before_update()
        if self.recipe.clip_grad is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), self.recipe.clip_grad)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        self.objective.after_update()
        return loss.item()


@torch.inference_mode()
def evaluate(run: Run, checkpoint: Path, fill: Fill | None = None, keep: Path | None = None) -> list[Metric]:
    """Top-1 and top-5 accuracy in percent on the validation images: one centre crop, single precision.

    Where a moving average of the weights was kept, also its ``top1_ema`` and ``top5_ema``.
    ``repeats`` of the metrics is the number of images. With fewer than five classes top-5 takes as many as there are.
    ``fill`` is for weights from elsewhere, as in `load_trained`; ``keep`` is a file for `Hits`.

    Raises:
        UserError: for a checkpoint of another run or unreadable data.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_trained(run, checkpoint, fill).to(device)
    recipe = run.recipe
    dataset = classification_dataset(run.dataset, "val", eval_transform(recipe))
    sampler = BatchSampler(SequentialSampler(dataset), recipe.eval_batch_size, drop_last=False)
    highest = min(5, run.dataset.num_classes)
    hits: dict[str, list[torch.Tensor]] = {"top1": [], "top5": []}
    loading = batches(dataset, sampler, workers=recipe.workers, pin=device.type == "cuda")
    with closing(announced(loading, run.id, len(dataset), recipe.eval_batch_size)) as loaded:
        for images, labels in loaded:
            right = model(images.to(device)).topk(highest, dim=1).indices.cpu() == labels[:, None]
            hits["top1"].append(right[:, 0])
            hits["top5"].append(right.any(1))
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
            value=100 * int(right.sum()) / len(dataset),
            unit=METRICS[name].unit,
            repeats=len(dataset),
            convention=convention,
        )
        for name, right in found.items()
    ]
    pruning = recipe.token_pruning
    if fill is None and pruning is not None and pruning.ema_decay is not None:
        note = f"moving average of the weights, decay {pruning.ema_decay:g}"
        metrics += [
            metric.model_copy(update={"name": f"{metric.name}_ema", "convention": f"{metric.convention}; {note}"})
            for metric in evaluate(run, checkpoint, fill_averaged)
        ]
    return metrics


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
    model = _create_model(run)
    fill(model, run, checkpoint)
    return model.eval()


def fill_trained(model: nn.Module, run: Run, checkpoint: Path) -> None:
    """Give ``model`` the weights of the run's own final checkpoint.

    Raises:
        UserError: for a checkpoint of another run, or one that does not fit the model.
    """
    _fill(model, run, checkpoint, "state_dict")


def fill_averaged(model: nn.Module, run: Run, checkpoint: Path) -> None:
    """Give ``model`` the moving average of the weights in the run's own final checkpoint; errors as above."""
    _fill(model, run, checkpoint, "average")


def _fill(model: nn.Module, run: Run, checkpoint: Path, key: str) -> None:
    content = load_checkpoint(checkpoint)
    expect_meta(checkpoint, content, **_identity(run))
    load_strict(model, content[key], checkpoint)


def _objective(run: Run, model: nn.Module, loss: nn.Module) -> Objective:
    if run.recipe.token_pruning is None:
        return Objective(model, loss)
    device = next(model.parameters()).device
    return PruningObjective(run, model, loss, load_trained(run.parent, run.parent.checkpoint).to(device))


def _create_model(run: Run) -> nn.Module:
    # Said also where it is zero: timm's Swin has a default of its own.
    options: dict[str, Any] = {"drop_path_rate": run.recipe.drop_path}
    if run.model.family in ("swin", "dynamic_swin"):
        # Its windows are made for one size: those of 224 pixels would be mostly padding on small images.
        options["img_size"] = run.recipe.image_size
    return models.create(run.model, num_classes=run.dataset.num_classes, **options)


def _identity(run: Run) -> dict[str, Any]:
    return {**identity(run), "image_size": run.recipe.image_size}
