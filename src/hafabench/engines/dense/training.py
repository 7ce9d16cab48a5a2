"""The training of a dense model, driven by mmengine's runner."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from torch import nn

from hafabench.engines.dense.backbone import initialise_backbone
from hafabench.engines.dense.config import dense_recipe, optimizer_config, schedule_config
from hafabench.engines.dense.datasets import load_dataset
from hafabench.engines.dense.model import build_dense_model, load_mm
from hafabench.engines.dense.sampling import AspectSampler
from hafabench.engines.distributed import World
from hafabench.engines.interrupt import StopRequest
from hafabench.engines.sampling import StepSampler, Stream, seed_everything
from hafabench.engines.training import Trainer, run_training
from hafabench.engines.training_state import TrainingState
from hafabench.models import family_of
from hafabench.runs.lease import Lease
from hafabench.runs.run import Run


def train(run: Run) -> None:
    """Train a dense model; see `hafabench.engines.engine.Engine.train`."""
    run_training(run, DenseTrainer)


class DenseTrainer(Trainer):
    """One process's part in the training of a dense model, called by mmengine at every step; see `Trainer`."""

    def __init__(self, run: Run, world: World, stop: StopRequest, lease: Lease | None = None):
        self.recipe = dense_recipe(run)
        super().__init__(run, world, stop, load_dataset(run, "train"), lease)
        self.mm = load_mm()
        self.lr = math.nan
        self.scaler: Any = None

    def complete(self) -> None:
        """Train from the step of the last saved state to the last step, and write the final checkpoint."""
        run, recipe = self.run, self.recipe
        seed_everything(run.seed, Stream.WEIGHTS)
        on_gpu = self.world.device.type == "cuda"
        sync_norm = on_gpu and self.world.size > 1
        model: Any = build_dense_model(run.model, run.task, run.dataset.num_classes, recipe, sync_norm=sync_norm)
        initialised_from = initialise_backbone(model.backbone.body, run, verbose=self.world.is_first)
        timm_models = family_of(run.model).timm
        if sync_norm and run.task == "segmentation" and timm_models and timm_models.sync_batch_norm:
            model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)
        with self.mm.scope(run.task), tempfile.TemporaryDirectory(prefix="hafabench-") as folder:
            runner = self.mm.QuietRunner(
                run.task,
                self,
                self.world,
                folder,
                model=model,
                optim_wrapper=optimizer_config(recipe, on_gpu=on_gpu),
                param_scheduler=schedule_config(recipe, self.session.total, self.steps_per_epoch),
            )
            runner.train()
        self.session.finish(initialised_from=initialised_from)

    def __len__(self) -> int:
        """Return the number of optimiser steps of the whole training."""
        return self.session.total

    def batches(self, start: int) -> Generator[dict[str, Any]]:
        """Load this process's batches from step ``start`` to the last step."""
        batch_size = self.recipe.batch_size
        sampler: Callable[..., StepSampler] = partial(StepSampler, len(self.dataset), batch_size)
        if self.run.task == "detection":
            dataset: Any = self.dataset
            infos = (dataset.get_data_info(index) for index in range(len(dataset)))
            sampler = partial(AspectSampler, [info["width"] >= info["height"] for info in infos], batch_size)
        return self.load_batches(start, sampler, self.mm.pseudo_collate)

    def begin(self, runner: Any) -> int:
        """Resume; mmengine calls this before training. Returns the number of steps already done."""
        model = self.mm.unwrapped(runner.model)
        # Only mmengine's wrapper for mixed precision scales the loss.
        self.scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
        self.session.begin(TrainingState(model, runner.optim_wrapper, _Schedules(runner.param_schedulers)))
        return self.session.state.step

    def before_step(self, runner: Any) -> None:
        """Prepare a step; mmengine calls this before each one."""
        self.lr = runner.optim_wrapper.get_lr()["lr"][0]
        # Dropout, drop path and the sampling of regions draw from the random numbers of the step.
        self.seed_step()

    def after_step(self, losses: dict[str, Any]) -> None:
        """Count a step; mmengine calls this after each one and its schedules, with the values that the model logs."""
        epoch = (self.session.state.step + 1) / self.steps_per_epoch
        scale = self.scaler.get_scale() if self.scaler is not None else None
        self.session.step_done(losses["loss"].item(), self.lr, scale, epoch=epoch)


class _Schedules:
    """The states of several learning rate schedulers as a single state."""

    def __init__(self, schedulers: list[Any]):
        self._schedulers = schedulers

    def state_dict(self) -> dict[str, Any]:
        return {"schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for scheduler, saved in zip(self._schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
