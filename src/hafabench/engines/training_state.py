"""What an exact resume needs, in the run's work folder.

Randomness, the sampler's position and the learning rate are functions of (seed, step): the step stands for all of
them. The rest is the model, the optimiser and the gradient scaler, tensors and numbers only.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from hafabench.errors import Problem, UserError
from hafabench.models.checkpoints.storage import load_checkpoint, load_strict, save_checkpoint
from hafabench.runs.run import Run

STATE = "state.pth"


class Stateful(Protocol):
    """Anything whose state is tensors, numbers and containers of them."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""


@dataclass
class TrainingState:
    """The parts that change as a training goes on.

    Attributes:
        scaler: what the optimiser needs besides: a gradient scaler, or learning rate schedules with a state.
        average: a model with the moving average of the weights, where one is kept.
        step: optimiser steps done.
        seconds: spent on these steps, over all resumes; work lost by a kill is not in it.
        started: when the first of these steps began (ISO 8601).
        resumes: times that the training was taken up again.
    """

    model: nn.Module
    optimizer: Stateful
    scaler: Stateful
    average: nn.Module | None = None
    step: int = 0
    seconds: float = 0.0
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    resumes: int = 0

    def save(self, run: Run, seconds: float) -> None:
        """Write the state to the run's work folder; ``seconds`` includes this process's part."""
        save_checkpoint(
            run.work / STATE,
            {
                "fingerprint": run.fingerprint,
                "step": self.step,
                "seconds": seconds,
                "started": self.started,
                "resumes": self.resumes,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                **({} if self.average is None else {"average": self.average.state_dict()}),
            },
        )

    def resume(self, run: Run, announce: bool) -> None:
        """Take up the run's work state, if there is one of this configuration.

        Raises:
            UserError: for a state that cannot be read or does not fit; it is not thrown away unasked.
        """
        path = run.work / STATE
        if not path.exists():
            return
        content = _read(path)
        if content.get("fingerprint") != run.fingerprint:
            if announce:
                print(
                    f"{run.id}: the state in {run.work} belongs to another configuration (fingerprint "
                    f"{content.get('fingerprint')}, now {run.fingerprint}): training starts over",
                    file=sys.stderr,
                )
            return
        load_strict(self.model, content["model"], path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            load_strict(self.average, content["average"], path)
        self.step, self.seconds = content["step"], content["seconds"]
        self.started, self.resumes = content["started"], content["resumes"] + 1
        if announce:
            print(f"{run.id}: resumed after step {self.step}", file=sys.stderr)


def discard_work(run: Run) -> None:
    """Remove the run's work folder: its final checkpoint is written, and a state is three times as big."""
    shutil.rmtree(run.work, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_checkpoint(path)
    except UserError as error:
        advice = Problem(str(path), "", "delete this file to start the training over")
        raise UserError([*error.problems, advice]) from None
