"""Image classification: training with exact resume, and evaluation (torch + timm; paper, section 4.1)."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from hafabench import models
from hafabench.data.loaders import classification_dataset
from hafabench.engines.augmentation import criterion, eval_transform, mixing, train_transform
from hafabench.engines.checkpoint import expect_meta, load_checkpoint, load_strict, save_checkpoint
from hafabench.engines.distributed import World, joined_world
from hafabench.engines.interrupt import EXIT_CODE, StopRequest
from hafabench.engines.optimization import build_optimizer, build_schedule
from hafabench.engines.progress import Progress
from hafabench.engines.sampling import SeededSamples, StepSampler, Stream, batches, seed_everything
from hafabench.engines.training_state import TrainingState, discard_work
from hafabench.errors import Problem, UserError
from hafabench.matrix import Run
from hafabench.results.provenance import Stopwatch
from hafabench.results.record import Metric


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
    if _is_trained(run):
        print(f"{run.id}: already trained; delete {run.checkpoint} to train it again", file=sys.stderr)
        return
    with StopRequest() as stop, joined_world() as world, _deterministic(world.device):
        _Training(run, world).complete(stop)


class _Training:
    """One process's part in the training of a run."""

    def __init__(self, run: Run, world: World):
        self.run, self.world, self.recipe = run, world, run.recipe
        self.watch = Stopwatch()
        per_process = world.share_of(self.recipe.batch_size)
        self.mixup = mixing(self.recipe, run.dataset.num_classes, per_process)
        self.criterion = criterion(self.recipe, self.mixup)
        self.dataset = classification_dataset(run.dataset, "train", train_transform(self.recipe))
        self.steps_per_epoch = len(self.dataset) // self.recipe.batch_size
        if not self.steps_per_epoch:
            message = f"{self.recipe.batch_size} images a step, but only {len(self.dataset)} to train on"
            raise UserError(Problem(run.id, "batch_size", message))
        self.total = self.recipe.epochs * self.steps_per_epoch
        seed_everything(run.seed, Stream.WEIGHTS)
        model = _create_model(run).to(world.device).train()
        optimizer = build_optimizer(model, self.recipe)
        self.schedule = build_schedule(optimizer, self.recipe, self.steps_per_epoch)
        self.amp = self.recipe.amp and world.device.type == "cuda"
        scaler = torch.amp.GradScaler(world.device.type, enabled=self.amp)
        self.state = TrainingState(model, optimizer, scaler)
        self.state.resume(run, announce=world.is_first)
        # No process may write before every process has read.
        world.wait()
        self.model = world.wrap(model)

    def complete(self, stop: StopRequest) -> None:
        """Train from the state's step to the last one and write the final checkpoint."""
        progress = Progress(
            self.run.id,
            self.total,
            start=self.state.step,
            every=self.recipe.log_every,
            batch_size=self.recipe.batch_size,
            history=self.run.history if self.world.is_first else None,
        )
        # Closed, so that an error's traceback keeps no loading process alive.
        with closing(self._batches()) as loaded:
            for images, labels in loaded:
                self._take(images, labels, progress, stop)
        if self.world.is_first:
            save_checkpoint(self.run.checkpoint, self._final())
            discard_work(self.run)
        self.world.wait()

    def _take(self, images: torch.Tensor, labels: torch.Tensor, progress: Progress, stop: StopRequest) -> None:
        """One step with all that follows from it: the report, the state, the end."""
        loss, asked = self.world.mean(self._step(images, labels), float(stop.reason is not None))
        step, lr = self.state.step, self.state.optimizer.param_groups[0]["lr"]
        if not math.isfinite(loss):
            raise UserError(self._not_finite(f"the loss is {loss}"))
        stopping = asked and step < self.total
        if stopping:
            # Before anything is printed: whoever read it may be gone by the same signal.
            self._save()
        progress.step(step, loss=loss, lr=lr, epoch=step / self.steps_per_epoch)
        if stopping:
            self._leave(stop.reason or "the request of another process")
        # After the history: lines beyond a state are dropped on resume, missing ones would stay missing.
        if step == self.total or step % self.recipe.checkpoint_every == 0:
            self._save()

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        sampler = StepSampler(
            len(self.dataset),
            self.recipe.batch_size,
            repeats=self.recipe.repeated_augmentation,
            seed=self.run.seed,
            start=self.state.step,
            stop=self.total,
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
        with torch.autocast(device.type, enabled=self.amp):
            loss = self.criterion(self.model(images), labels)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        if self.recipe.clip_grad is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        return loss.item()

    def _save(self) -> None:
        if not self.world.is_first:
            return
        # A finite loss may still have had an infinite gradient: never replace a good state by a spoilt one.
        if not all(parameter.isfinite().all() for parameter in self.state.model.parameters()):
            raise UserError(self._not_finite("some weights are not finite"))
        self.state.save(self.run, self._seconds())

    def _seconds(self) -> float:
        """Spent on the steps so far, over all resumes."""
        return self.state.seconds + self.watch.seconds()

    def _not_finite(self, what: str) -> Problem:
        lr = self.state.optimizer.param_groups[0]["lr"]
        advice = "lower lr or clip the gradient (clip_grad); the state before is kept in"
        message = f"{what} at learning rate {lr:.3g}: {advice} {self.run.work}"
        return Problem(self.run.id, f"step {self.state.step}", message)

    def _leave(self, reason: str) -> None:
        if self.world.is_first:
            print(
                f"{self.run.id}: stopped after step {self.state.step} of {self.total} on {reason}; "
                f"the state is saved in {self.run.work}, the same command resumes it",
                file=sys.stderr,
            )
        raise SystemExit(EXIT_CODE)

    def _final(self) -> dict[str, Any]:
        device = self.world.device
        seconds = self._seconds()
        provenance = self.watch.provenance(device=_device_name(device), threads=torch.get_num_threads()).model_dump()
        for other in ("duration_s", "checkpoint_sha256", "dataset_digest"):
            provenance.pop(other)
        training = {
            **provenance,
            "started": self.state.started,
            "steps": self.total,
            "epochs": self.recipe.epochs,
            "seconds": round(seconds, 3),
            "images_per_s": round(self.total * self.recipe.batch_size / seconds, 2),
            "processes": self.world.size,
            "resumes": self.state.resumes,
        }
        if device.type == "cuda":
            training["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
        weights = {name: value.detach().cpu() for name, value in self.state.model.state_dict().items()}
        return {"state_dict": weights, "meta": {**_identity(self.run), "training": training}}


@torch.inference_mode()
def evaluate(run: Run, checkpoint: Path) -> list[Metric]:
    """Top-1 and top-5 accuracy in percent on the validation images: one centre crop, single precision.

    ``repeats`` of the metrics is the number of images. With fewer than five classes top-5 takes as many as there are.

    Raises:
        UserError: for a checkpoint of another run or unreadable data.
    """
    content = load_checkpoint(checkpoint)
    expect_meta(checkpoint, content, **_identity(run))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _create_model(run)
    load_strict(model, content["state_dict"], checkpoint)
    model = model.to(device).eval()
    recipe = run.recipe
    dataset = classification_dataset(run.dataset, "val", eval_transform(recipe))
    sampler = BatchSampler(SequentialSampler(dataset), recipe.eval_batch_size, drop_last=False)
    highest = min(5, run.dataset.num_classes)
    correct = {"top1": 0, "top5": 0}
    with closing(batches(dataset, sampler, workers=recipe.workers, pin=device.type == "cuda")) as loaded:
        for images, labels in loaded:
            hits = model(images.to(device)).topk(highest, dim=1).indices.cpu() == labels[:, None]
            correct["top1"] += int(hits[:, 0].sum())
            correct["top5"] += int(hits.sum())
    convention = f"centre crop {recipe.image_size} of {math.floor(recipe.image_size / recipe.eval_crop)}"
    return [
        Metric(
            task="classification",
            model=run.model.name,
            seed=run.seed,
            name=name,
            value=100 * count / len(dataset),
            unit="%",
            repeats=len(dataset),
            convention=convention,
        )
        for name, count in correct.items()
    ]


def _create_model(run: Run) -> nn.Module:
    # Models without stochastic depth do not know the argument, and their recipe says 0.
    depth = {"drop_path_rate": run.recipe.drop_path} if run.recipe.drop_path else {}
    return models.create(run.model, num_classes=run.dataset.num_classes, **depth)


def _identity(run: Run) -> dict[str, Any]:
    """Whose weights a final checkpoint holds; what does not agree in all of it is another run's."""
    return {
        "run": run.id,
        "task": run.task,
        "model": run.model.name,
        "architecture": run.model.architecture,
        "mergers": list(run.model.mergers),
        "variant": run.model.variant,
        "fidelity": run.model.fidelity,
        "num_classes": run.dataset.num_classes,
        "dataset": run.dataset.name,
        "image_size": run.recipe.image_size,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
    }


def _is_trained(run: Run) -> bool:
    if not run.checkpoint.exists():
        return False
    return load_checkpoint(run.checkpoint).get("meta", {}).get("fingerprint") == run.fingerprint


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Choose deterministic algorithms on CPU, where exact resume is promised; on GPU they cost too much."""
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No result depends on uninitialised memory; filling it would cost time in every step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled
