"""The state that an exact resume needs, stored in the run's work folder.

Random numbers, the sampler's position and the learning rate are functions of the seed and the step, so that only
the number of steps is stored for them. The model, the optimiser and the gradient scaler are stored as tensors and
numbers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from hafabench.engines.state_checks import (
    history_problem,
    optimizer_problems,
    progress_problems,
    scale_problem,
    schedule_problems,
    unlike,
)
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint, state_problems
from hafabench.runs.lease import Lease
from hafabench.runs.paths import STATE_SUMMARY
from hafabench.runs.run import Run

STATE = "state.pth"
_SHOWN = 8


class Stateful(Protocol):
    """An object whose state consists of tensors, numbers and containers of them."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Load a state."""


@dataclass
class TrainingState:
    """The parts of a training that change from step to step.

    Attributes:
        model: The model that is trained.
        optimizer: Its optimiser.
        scaler: Further state of the optimiser: a gradient scaler, or learning rate schedules that have a state.
        average: A model with the moving average of the weights, if one is kept.
        step: Optimiser steps done.
        seconds: Time spent on these steps over all resumes, without steps that were lost.
        started: When the first of these steps began (ISO 8601).
        resumes: Number of times that the training was resumed.
    """

    model: nn.Module
    optimizer: Stateful
    scaler: Stateful
    average: nn.Module | None = None
    step: int = 0
    seconds: float = 0.0
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    resumes: int = 0

    def save(self, run: Run, seconds: float, lease: Lease) -> None:
        """Write the state and its summary, which name this attempt, to the run's work folder.

        Args:
            run: The run that is trained.
            seconds: Time spent on the steps, including that of this process.
            lease: The lease of the run.

        Raises:
            LeaseLost: If another process has taken over the run. The files are then unchanged.
        """
        save_checkpoint(
            run.work / STATE,
            {
                "fingerprint": run.fingerprint,
                "listing_digest": run.listing_digest,
                "step": self.step,
                "seconds": seconds,
                "started": self.started,
                "resumes": self.resumes,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "attempt": asdict(lease.holder),
                **({} if self.average is None else {"average": self.average.state_dict()}),
            },
            lease.check,
        )
        summary = {"fingerprint": run.fingerprint, "step": self.step, "attempt": lease.holder.attempt}
        write_text(run.work / STATE_SUMMARY, json.dumps(summary) + "\n")

    def resume(self, run: Run, total: int, verbose: bool) -> None:
        """Load the state in the run's work folder, if there is one of the current configuration.

        Nothing is loaded from a state that cannot be loaded completely.

        Args:
            run: The run that is trained.
            total: Number of optimiser steps of the whole training.
            verbose: Whether to print what was done.

        Raises:
            UserError: If the state cannot be read, contradicts itself, or does not fit. The file is kept.
        """
        path = run.work / STATE
        if not path.exists():
            return
        content = _read(path)
        if content.get("fingerprint") != run.fingerprint:
            if verbose:
                print(
                    f"{run.id}: the state in {run.work} belongs to another configuration (fingerprint "
                    f"{content.get('fingerprint')}, now {run.fingerprint}): training starts over",
                    file=sys.stderr,
                )
            return
        if content.get("listing_digest") not in (None, run.listing_digest):
            if verbose:
                message = f"the state in {run.work} belongs to other training data: training starts over"
                print(f"{run.id}: {message}", file=sys.stderr)
            return
        problems = list(self._problems(run, content, total, path))
        if problems:
            raise UserError([*problems, _advice(path)])
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        # A state that was saved without mixed precision has no scale; then the scale is the initial one.
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.step, self.seconds = content["step"], content["seconds"]
        self.started, self.resumes = content["started"], content["resumes"] + 1
        if verbose:
            saved = content.get("attempt")
            attempt = saved.get("attempt") if isinstance(saved, Mapping) else None
            by = f", which attempt {attempt} saved" if attempt is not None else ""
            print(f"{run.id}: resumed after step {self.step}{by}", file=sys.stderr)

    def _problems(self, run: Run, content: Mapping[str, Any], total: int, path: Path) -> Iterator[Problem | str]:
        """Yield why a state of the present configuration cannot be loaded."""
        yield from state_problems(self.model, content.get("model"), path)
        if self.average is not None:
            yield from state_problems(self.average, content.get("average"), path)
        wrong = list(progress_problems(content, total))
        if not wrong:
            wrong = list(self._state_problems(content))
            contradiction = history_problem(run.history, content["step"])
            if contradiction:
                yield Problem(str(run.history), "", contradiction)
        yield from (Problem(str(path), key, message) for key, message in wrong[:_SHOWN])
        if len(wrong) > _SHOWN:
            yield Problem(str(path), "", f"and {len(wrong) - _SHOWN} more such values")

    def _state_problems(self, content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the stored states of the optimiser, the gradient scaler and the schedules."""
        step, optimizer, scaler = content["step"], content.get("optimizer"), content.get("scaler")
        # mmengine's wrapper of an optimiser stores the scaler of mixed precision with it.
        own_optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        scale = optimizer.get("loss_scaler") if isinstance(optimizer, Mapping) else None
        if not isinstance(scaler, Mapping):
            yield "scaler", f"expected the state of a gradient scaler or of schedules, found {type(scaler).__name__}"
            return
        if "schedulers" not in scaler:
            scale = scaler or None
        yield from optimizer_problems(own_optimizer, optimizer, step, may_skip=scale is not None)
        if scale is not None:
            yield from scale_problem(scale, "scaler" if scale is scaler else "optimizer.loss_scaler")
        own = self.scaler.state_dict()
        if own and scaler:
            wrong = list(unlike(own, scaler, "scaler"))
            yield from wrong
            if not wrong and "schedulers" in own:
                yield from schedule_problems(own, scaler, step)


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_checkpoint(path)
    except UserError as error:
        raise UserError([*error.problems, _advice(path)]) from None


def _advice(path: Path) -> Problem:
    return Problem(str(path), "", "delete this file to start the training over")
