"""Training with exact resume: the parts that the engines of all tasks share.

A `Trainer` computes the optimiser steps of its task. A `TrainingSession` keeps the files of the run: it resumes,
checks, reports, saves, stops and finishes.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils import deterministic as deterministic_options
from torch.utils.data import default_collate

from hafabench.data.report import compared_digest
from hafabench.engines.distributed import World, joined_world
from hafabench.engines.finished import discard_state, restore_final, save_final
from hafabench.engines.interrupt import EXIT_CODE, StopRequest, seconds_in_job
from hafabench.engines.progress import Progress, say
from hafabench.engines.sampling import SeededSamples, SizedDataset, StepSampler, Stream, batches, seed_everything
from hafabench.engines.trained import collapse_of, identity, is_trained, read_final
from hafabench.engines.training_state import STATE, TrainingState
from hafabench.errors import Problem, UserError
from hafabench.files import remove_leftovers
from hafabench.formatting.names import join_names
from hafabench.models.checkpoints.storage import infinite_names
from hafabench.results.provenance import Stopwatch
from hafabench.results.record import Collapse
from hafabench.runs.lease import Lease, hold
from hafabench.runs.paths import STATE_SUMMARY
from hafabench.runs.run import Run
from hafabench.runs.state import store_configuration

# Mixed precision skips an update if gradients are not finite, and halves the scale of the loss, which starts at 2^16.
# The numbers of half precision span 40 powers of two, so that below this scale the scale is not the cause.
MIN_LOSS_SCALE = 2.0**-24


class TrainingCollapsed(Exception):
    """A training diverged. It ends as a result and not as a failure."""

    def __init__(self, collapse: Collapse):
        super().__init__(collapse.reason)
        self.collapse = collapse


class TrainingSession:
    """One process's part in keeping the files of a run: state, history and final checkpoint.

    Args:
        run: The run that is trained.
        world: The processes of the training; the first one writes files.
        stop: Determines whether the training should stop early.
        total: Number of optimiser steps of the whole training.
        lease: The lease of the run, which the process that writes files holds.
    """

    state: TrainingState

    def __init__(self, run: Run, world: World, stop: StopRequest, total: int, lease: Lease | None):
        self.run, self.world, self.total = run, world, total
        self._stop, self._lease = stop, lease
        self._watch = Stopwatch()

    def begin(self, state: TrainingState) -> None:
        """Load the state in the run's work folder into ``state``, whose ``step`` is then the number of steps done."""
        self.state = state
        state.resume(self.run, self.total, verbose=self.world.is_first)
        infinite = [] if state.step else infinite_names(state.model)
        if infinite:
            raise UserError(
                f"{self.run.id}: some initial weights or buffers of {self.run.model.name} are not finite (NaN or "
                f"infinity): {join_names(infinite)}; correct the model, or the file from which its weights are read"
            )
        # No process may write before every process has read.
        self.world.wait()
        self._check_lease()
        self._progress = Progress(
            self.run.id,
            self.total,
            start=state.step,
            every=self.run.recipe.log_every,
            batch_size=self.run.recipe.batch_size,
            history=self.run.history if self.world.is_first else None,
        )

    def step_done(self, loss: float, lr: float, loss_scale: float | None = None, **values: float) -> None:
        """Count one optimiser step of this process; report it, save the state or stop when that is due.

        Args:
            loss: The loss of this process; its mean over the processes is reported.
            lr: The learning rate of the step.
            loss_scale: The scale of the loss after the step; None without mixed precision.
            values: Further values for the progress line and the history.

        Raises:
            TrainingCollapsed: If the loss, the gradients at any loss scale, or the weights about to be saved are not
                finite.
            LeaseLost: If another process has taken over the run. Nothing more has been written.
            SystemExit: With code 75 after a request to stop. The state has been saved.
        """
        state = self.state
        state.step += 1
        loss, stop_share = self.world.mean(loss, float(self._stop.reason is not None))
        if not math.isfinite(loss):
            raise self._collapsed(f"the loss is {loss}", None, lr)
        # Gradients are averaged over the processes, so that all of them have the same scale.
        if loss_scale is not None and loss_scale < MIN_LOSS_SCALE:
            raise self._collapsed("the gradients are not finite at any loss scale", loss, lr)
        stopping = stop_share and state.step < self.total
        if stopping:
            # The state is saved before anything is printed: the signal may have ended the reader of the output too.
            self._save(loss, lr)
        if self._progress.is_due(state.step):
            self._check_lease()
        self._progress.step(state.step, loss=loss, lr=lr, **values)
        if stopping:
            self._leave()
        # The history is written before the state: a resume drops lines beyond the state, but could not add lines.
        if state.step < self.total and state.step % self.run.recipe.checkpoint_every == 0:
            self._save(loss, lr)
        elif state.step == self.total:
            self._check_weights(loss, lr)

    def finish(self, *, initialised_from: dict[str, Any] | None = None, **provenance: Any) -> None:
        """Write the final checkpoint, then remove the training state.

        Args:
            initialised_from: The origin of the starting weights, if they were not random.
            provenance: Entries that are added to the provenance of the training, ``meta["training"]``.
        """
        if self.world.is_first:
            models = {"state_dict": self.state.model, "average": self.state.average}
            weights = {key: _on_cpu(model) for key, model in models.items() if model is not None}
            meta = identity(self.run)
            if initialised_from is not None:
                meta["initialised_from"] = initialised_from
            meta["training"] = {**self._provenance(self.total), **provenance}
            save_final(self.run, {**weights, "meta": meta}, self._check_lease)
            discard_state(self.run)
        self.world.wait()

    def collapse(self, collapse: Collapse) -> None:
        """Write a final checkpoint without weights; the work folder keeps the last state that was saved."""
        if self.world.is_first:
            write_collapse(self.run, collapse, self._check_lease, self._provenance(collapse.step))
            kept = f"; the last finite state is kept in {self.run.work}" if (self.run.work / STATE).exists() else ""
            lr = "" if collapse.lr is None else f" at learning rate {collapse.lr:.3g}"
            advice = "a lower lr or a clipped gradient (clip_grad) may prevent it"
            print(f"{self.run.id}: {collapse.clause(self.run.id)}{lr}; {advice}{kept}", file=sys.stderr)
        self.world.wait()

    def has_finite_weights(self) -> bool:
        """Return whether all weights and buffers that a checkpoint contains are finite, and their moving average."""
        models = (self.state.model, self.state.average)
        return not any(infinite_names(model) for model in models if model is not None)

    def _save(self, loss: float, lr: float) -> None:
        self._check_weights(loss, lr)
        if self._lease is not None:
            self.state.save(self.run, self._seconds(), self._lease)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _check_weights(self, loss: float, lr: float) -> None:
        # The gradient may have been infinite although the loss was finite. Then a good state must not be overwritten.
        # All processes have to agree, and the batch statistics of each are its own.
        (wrong,) = self.world.mean(float(not self.has_finite_weights()))
        if wrong:
            raise self._collapsed("some weights are not finite", loss, lr)

    def _seconds(self) -> float:
        """Return the seconds spent on the steps so far, over all resumes."""
        return self.state.seconds + self._watch.seconds()

    def _collapsed(self, reason: str, loss: float | None, lr: float) -> TrainingCollapsed:
        return TrainingCollapsed(Collapse(run=self.run.id, step=self.state.step, loss=loss, lr=lr, reason=reason))

    def _leave(self) -> NoReturn:
        if self.world.is_first:
            reason = self._stop.reason or "the request of another process"
            say(
                f"{self.run.id}: stopped after step {self.state.step} of {self.total} on {reason}; "
                f"the state is saved in {self.run.work}, the same command resumes it"
            )
        raise SystemExit(EXIT_CODE)

    def _provenance(self, steps: int) -> dict[str, Any]:
        device, seconds = self.world.device, self._seconds()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        found = self._watch.provenance(device=name, threads=torch.get_num_threads()).model_dump()
        for unused in ("experiment_tracked", "duration_s", "checkpoint_sha256", "dataset_digest", "listing_digest"):
            found.pop(unused)
        found |= {
            "listing_digest": self.run.listing_digest,
            "started": self.state.started,
            "steps": steps,
            "seconds": round(seconds, 3),
            "images_per_s": round(steps * self.run.recipe.batch_size / seconds, 2),
            "processes": self.world.size,
            "resumes": self.state.resumes,
        }
        if device.type == "cuda":
            found["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
        return found


class Trainer(ABC):
    """One process's part in the training of a run; subclasses compute the steps.

    Args:
        run: The run that is trained.
        world: The processes of the training.
        stop: Determines whether the training should stop early.
        dataset: The training split.
        lease: The lease of the run, which the process that writes files holds.

    Raises:
        UserError: If the recipe does not fit the number of images or of processes.
    """

    def __init__(self, run: Run, world: World, stop: StopRequest, dataset: SizedDataset, lease: Lease | None = None):
        self.run, self.world, self.dataset = run, world, dataset
        images, batch_size = len(dataset), run.recipe.batch_size
        self.images_per_process = world.share_of(batch_size)
        problems = run.recipe.problems(images)
        if problems:
            raise UserError([Problem(run.id, key, message) for key, message in problems.items()])
        self.steps_per_epoch = images // batch_size
        self.session = TrainingSession(run, world, stop, run.recipe.steps(images), lease)

    @abstractmethod
    def complete(self) -> None:
        """Train from the step of the last saved state to the last step, and write the final checkpoint."""

    def seed_step(self) -> None:
        """Seed the random numbers of the next step from its number: dropout, drop path and others draw from them."""
        seed_everything(self.run.seed, Stream.STEP, self.session.state.step, self.world.rank)

    def load_batches(
        self, start: int, sampler: Callable[..., StepSampler], collate: Callable[[list[Any]], Any] = default_collate
    ) -> Generator[Any]:
        """Load this process's batches from step ``start`` to the last step.

        Args:
            start: First step, counted from 0.
            sampler: A `StepSampler` class, or a function that makes one, which receives the steps and the process.
            collate: Makes a batch from a list of samples.
        """
        steps = sampler(
            seed=self.run.seed,
            start=start,
            stop=self.session.total,
            rank=self.world.rank,
            size=self.world.size,
        )
        return batches(
            SeededSamples(self.dataset, self.run.seed),
            steps,
            workers=self.run.recipe.workers,
            pin=self.world.device.type == "cuda",
            collate=collate,
        )


def run_training(run: Run, trainer: Callable[[Run, World, StopRequest, Lease | None], Trainer]) -> None:
    """Train a run, unless it is already trained, in the processes that torchrun started or in this one alone.

    The first process holds the lease of the run meanwhile. If the training collapses, or that of the starting weights
    did, the final checkpoint contains this outcome instead of weights. This is no error.
    """
    with (
        hold(run, "train") as lease,
        StopRequest(spent=max(lease.waited if lease is not None else 0.0, seconds_in_job())) as stop,
        joined_world() as world,
        deterministic(world.device),
    ):
        if lease is not None:
            for path in (run.checkpoint, run.kept_checkpoint, run.work / STATE, run.work / STATE_SUMMARY):
                # A job that was killed on another node can write no more, because this process has the lease.
                remove_leftovers(path, of_all_machines=True)
        if world.share("trained" if lease is not None and _is_trained(run, lease) else ""):
            return
        inherited = _collapse_of_parent(run)
        if inherited is None:
            run = _with_compared_data(run, world)
        if lease is not None:
            lease.check()
            if run.checkpoint.exists():
                what = "another configuration or other training data"
                print(f"{run.id}: {run.checkpoint} is of {what}: training starts over", file=sys.stderr)
            # Otherwise weights of another configuration would be taken for those of an interrupted training.
            run.checkpoint.unlink(missing_ok=True)
            # From here on, what is in the folder is of this configuration.
            store_configuration(run)
            if inherited is not None:
                write_collapse(run, inherited, lease.check)
                print(f"{run.id}: {inherited.clause(run.id)}", file=sys.stderr)
        if inherited is None:
            _train(trainer(run, world, stop, lease))


def _is_trained(run: Run, lease: Lease) -> bool:
    """Whether the run has its final checkpoint, which is restored if it was deleted after the training finished."""
    if run.checkpoint.exists() and is_trained(run):
        store_configuration(run)
        both = f" and {run.kept_checkpoint}" if run.kept_checkpoint.exists() else ""
        print(f"{run.id}: already trained; delete {run.checkpoint}{both} to train it again", file=sys.stderr)
        return True
    if restore_final(run, lease.check):
        store_configuration(run)
        restored = f"restored {run.checkpoint} from {run.kept_checkpoint}"
        print(f"{run.id}: already trained: {restored}; delete both to train it again", file=sys.stderr)
        return True
    return False


def _train(trainer: Trainer) -> None:
    session = trainer.session
    try:
        trainer.complete()
    except TrainingCollapsed as error:
        session.collapse(error.collapse)
    except UserError:
        raise
    except Exception as error:
        if not hasattr(session, "state"):
            raise
        # Weights that are not finite make some models fail instead of giving a loss that is not finite. With several
        # processes the others may have gone on.
        is_consequence = isinstance(error, FloatingPointError) or not session.has_finite_weights()
        if session.world.size > 1 or not is_consequence:
            raise
        reason = f"the forward pass failed: {type(error).__name__}: {error}".splitlines()[0]
        session.collapse(Collapse(run=trainer.run.id, step=session.state.step + 1, reason=reason))


def write_collapse(
    run: Run, collapse: Collapse, check: Callable[[], None], training: dict[str, Any] | None = None
) -> None:
    """Write the final checkpoint of a run whose training collapsed or could not begin; it contains no weights.

    Args:
        run: The run.
        collapse: The outcome.
        check: Raises an error if this process must no longer write.
        training: The provenance of the training, if it began.
    """
    meta = {**identity(run), "collapse": collapse.model_dump()}
    if training is not None:
        meta["training"] = training
    save_final(run, {"meta": meta}, check)


def _collapse_of_parent(run: Run) -> Collapse | None:
    """Return the outcome of the run whose weights a run would start from, if its training collapsed."""
    if run.parent is None or not is_trained(run.parent):
        return None
    return collapse_of(read_final(run.parent, run.parent.checkpoint))


def _with_compared_data(run: Run, world: World) -> Run:
    """Compare the training split with the verified one, on every machine, and return the run with its digest.

    Raises:
        UserError: If the split has changed since it was verified.
    """
    own = compared_digest(run.dataset, "train", run.dataset_report) if world.local_rank == 0 else ""
    return replace(run, listing_digest=world.share(own))


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    # Tensors are stored row-major, independent of their memory format, because safetensors requires it.
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Use deterministic algorithms on CPU, where exact resume is promised; on GPU they are too slow."""
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # torch sets this attribute through a module class, so that its stubs do not know it.
    options: Any = deterministic_options
    fill_memory = options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No result depends on uninitialised memory, and filling it costs time in every step.
    options.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        options.fill_uninitialized_memory = fill_memory
