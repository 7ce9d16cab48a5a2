"""The training of a classifier."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import torch
from torch import nn

from hafabench.data.loaders import classification_dataset
from hafabench.engines.classification.augmentation import build_criterion, build_mixup, train_transform
from hafabench.engines.classification.model import classification_recipe, create_model
from hafabench.engines.classification.objective import Objective
from hafabench.engines.classification.optimization import build_optimizer, build_schedule
from hafabench.engines.classification.pruning_objective import PruningObjective
from hafabench.engines.distributed import World
from hafabench.engines.interrupt import StopRequest
from hafabench.engines.sampling import StepSampler, Stream, seed_everything
from hafabench.engines.trained import load_trained
from hafabench.engines.training import Trainer, run_training
from hafabench.engines.training_state import TrainingState
from hafabench.runs.lease import Lease
from hafabench.runs.run import Run


def train(run: Run) -> None:
    """Train a classifier; see `hafabench.engines.engine.Engine.train`."""
    run_training(run, ClassificationTrainer)


class ClassificationTrainer(Trainer):
    """One process's part in the training of a classifier; see `Trainer`."""

    def __init__(self, run: Run, world: World, stop: StopRequest, lease: Lease | None = None):
        self.recipe = recipe = classification_recipe(run)
        dataset = classification_dataset(run.dataset, "train", train_transform(recipe))
        super().__init__(run, world, stop, dataset, lease)
        self.mixup = build_mixup(recipe, run.dataset.num_classes, self.images_per_process)
        seed_everything(run.seed, Stream.WEIGHTS)
        model = create_model(run).to(world.device).train()
        self.objective = _objective(run, model, build_criterion(recipe, self.mixup))
        self.optimizer = build_optimizer(
            model, recipe, self.objective.backbone, slow_share=self.objective.backbone_lr_share
        )
        self.schedule = build_schedule(self.optimizer, recipe, self.steps_per_epoch)
        self.amp = recipe.amp and world.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.amp)
        self.session.begin(TrainingState(model, self.optimizer, self.scaler, self.objective.average))
        self.loss = world.wrap(self.objective)

    def complete(self) -> None:
        """Train from the step of the last saved state to the last step, and write the final checkpoint."""
        state = self.session.state
        sampler = partial(
            StepSampler,
            len(self.dataset),
            self.recipe.batch_size,
            repeats=self.recipe.repeated_augmentation,
        )
        # The generator is closed, because an error's traceback would keep its loading processes alive.
        with closing(self.load_batches(state.step, sampler)) as loaded:
            for images, labels in loaded:
                loss = self._step(images, labels)
                lr = self.optimizer.param_groups[0]["lr"]
                scale = self.scaler.get_scale() if self.amp else None
                self.session.step_done(loss, lr, scale, epoch=(state.step + 1) / self.steps_per_epoch)
        self.session.finish(epochs=self.recipe.epochs)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Do one optimiser step on this process's images (B, 3, H, W) and labels (B,); return their mean loss."""
        state, device = self.session.state, self.world.device
        # Mixup, drop path and dropout draw from the random numbers of the step.
        self.seed_step()
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if self.mixup:
            images, labels = self.mixup(images, labels)
        self.schedule.step_update(state.step)
        self.objective.begin_step(state.step // self.steps_per_epoch)
        with torch.autocast(device.type, enabled=self.amp):
            loss = self.loss(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.objective.before_update()
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.objective.after_update()
        return loss.item()


def _objective(run: Run, model: nn.Module, criterion: nn.Module) -> Objective:
    if run.parent is None:
        return Objective(model, criterion)
    device = next(model.parameters()).device
    return PruningObjective(run, model, criterion, load_trained(run.parent, run.parent.checkpoint).to(device))
