"""What both engines do around their optimiser steps: resume, check, report, save, stop, finish.

An engine computes the steps; a `TrainingSession` keeps the run's files.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn

from hafabench.engines.distributed import World
from hafabench.engines.interrupt import EXIT_CODE, StopRequest
from hafabench.engines.progress import Progress
from hafabench.engines.training_state import TrainingState, discard_work
from hafabench.errors import Problem, UserError
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.results.provenance import Stopwatch
from hafabench.runs.run import Run


class TrainingSession:
    """One process's part in keeping a run: its state, history, final checkpoint, and the decision to stop.

    Args:
        run: what is trained.
        world: its processes; the first one writes.
        stop: whether to leave early.
        total: optimiser steps of the whole training.
    """

    state: TrainingState

    def __init__(self, run: Run, world: World, stop: StopRequest, total: int):
        self.run, self.world, self.total = run, world, total
        self._stop = stop
        self._watch = Stopwatch()

    def begin(self, state: TrainingState) -> None:
        """Take up the run's work state into ``state``, which then says how many steps are done."""
        self.state = state
        state.resume(self.run, announce=self.world.is_first)
        # No process may write before every process has read.
        self.world.wait()
        self._progress = Progress(
            self.run.id,
            self.total,
            start=state.step,
            every=self.run.recipe.log_every,
            batch_size=self.run.recipe.batch_size,
            history=self.run.history if self.world.is_first else None,
        )

    def step_done(self, loss: float, lr: float, **shown: float) -> None:
        """Account for one optimiser step of this process.

        Args:
            loss: this process's; reported as the mean over the processes.
            lr: learning rate of the step.
            shown: further values for progress and history.

        Raises:
            UserError: for a loss, or for weights about to be saved, that are no longer finite.
            SystemExit: with code 75 after a request to stop, the state being saved.
        """
        state = self.state
        state.step += 1
        loss, asked = self.world.mean(loss, float(self._stop.reason is not None))
        if not math.isfinite(loss):
            raise UserError(self._not_finite(f"the loss is {loss}", lr))
        stopping = asked and state.step < self.total
        if stopping:
            # Before anything is printed: whoever read it may be gone by the same signal.
            self._save(lr)
        self._progress.step(state.step, loss=loss, lr=lr, **shown)
        if stopping:
            self._leave()
        # After the history: lines beyond a state are dropped on resume, missing ones would stay missing.
        if state.step < self.total and state.step % self.run.recipe.checkpoint_every == 0:
            self._save(lr)
        elif state.step == self.total:
            self._check_weights(lr)

    def finish(self, identity: dict[str, Any], **facts: Any) -> None:
        """Write the final checkpoint, then remove the work folder.

        Args:
            identity: whose weights these are, for the checkpoint's ``meta``.
            facts: added to the provenance of the training, ``meta["training"]``.
        """
        if self.world.is_first:
            models = {"state_dict": self.state.model, "average": self.state.average}
            weights = {key: _on_cpu(model) for key, model in models.items() if model is not None}
            meta = {**identity, "training": {**self._provenance(), **facts}}
            save_checkpoint(self.run.checkpoint, {**weights, "meta": meta})
            discard_work(self.run)
        self.world.wait()

    def _save(self, lr: float) -> None:
        if self.world.is_first:
            self._check_weights(lr)
            self.state.save(self.run, self._seconds())

    def _check_weights(self, lr: float) -> None:
        # A finite loss may still have had an infinite gradient: never replace a good state by a spoilt one.
        if not all(parameter.isfinite().all() for parameter in self.state.model.parameters()):
            raise UserError(self._not_finite("some weights are not finite", lr))

    def _seconds(self) -> float:
        """Spent on the steps so far, over all resumes."""
        return self.state.seconds + self._watch.seconds()

    def _not_finite(self, what: str, lr: float) -> Problem:
        advice = "lower lr or clip the gradient (clip_grad); the state before is kept in"
        message = f"{what} at learning rate {lr:.3g}: {advice} {self.run.work}"
        return Problem(self.run.id, f"step {self.state.step}", message)

    def _leave(self) -> NoReturn:
        if self.world.is_first:
            reason = self._stop.reason or "the request of another process"
            print(
                f"{self.run.id}: stopped after step {self.state.step} of {self.total} on {reason}; "
                f"the state is saved in {self.run.work}, the same command resumes it",
                file=sys.stderr,
            )
        raise SystemExit(EXIT_CODE)

    def _provenance(self) -> dict[str, Any]:
        device, seconds = self.world.device, self._seconds()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        found = self._watch.provenance(device=name, threads=torch.get_num_threads()).model_dump()
        for other in ("duration_s", "checkpoint_sha256", "dataset_digest"):
            found.pop(other)
        found |= {
            "started": self.state.started,
            "steps": self.total,
            "seconds": round(seconds, 3),
            "images_per_s": round(self.total * self.run.recipe.batch_size / seconds, 2),
            "processes": self.world.size,
            "resumes": self.state.resumes,
        }
        if device.type == "cuda":
            found["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
        return found


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    # Row-major, whatever their order in this process: what others read (safetensors for one) may know no other.
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def is_trained(run: Run) -> bool:
    """Whether the run's final checkpoint is there and of this configuration."""
    if not run.checkpoint.exists():
        return False
    return load_checkpoint(run.checkpoint).get("meta", {}).get("fingerprint") == run.fingerprint


def say_trained(run: Run) -> None:
    """Tell people why nothing happens."""
    print(f"{run.id}: already trained; delete {run.checkpoint} to train it again", file=sys.stderr)


def identity(run: Run) -> dict[str, Any]:
    """Whose weights a final checkpoint holds; what does not agree in all of it is another run's."""
    return {
        "run": run.id,
        "task": run.task,
        "model": run.model.name,
        "architecture": run.model.architecture,
        "mergers": list(run.model.mergers),
        "variant": run.model.query_mode,
        "fidelity": run.model.fidelity,
        "num_classes": run.dataset.num_classes,
        "dataset": run.dataset.name,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
    }


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
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
