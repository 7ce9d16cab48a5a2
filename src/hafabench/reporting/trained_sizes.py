"""The sizes of the trained models in an experiment whose models are smaller than the paper's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hafabench.config.experiment import ModelScale
from hafabench.config.recipes import TASKS
from hafabench.formatting.numbers import format_fixed

HEADER = ("Task", "Model", "Trained (M)", "Full size (M)")
ALIGN = "llrr"
SIZES_NOTE = "Parameters in millions, with the head of the task."


@dataclass(frozen=True)
class TrainedSize:
    """The parameters of one model with the head of one task.

    Attributes:
        task: The task.
        model: The name of the model.
        trained: The parameters of the model that was trained; None if its records do not tell it.
        full: The parameters of the model in full size; None if it has not been counted.
    """

    task: str
    model: str
    trained: int | None
    full: int | None

    @property
    def fields(self) -> tuple[str, ...]:
        """The texts of its row under `HEADER`."""
        return self.task, self.model, _millions(self.trained), _millions(self.full)


def trained_sizes(frame: pd.DataFrame, models: Iterable[str]) -> list[TrainedSize]:
    """Return the sizes of all models that were evaluated here, by task and in the order of ``models``.

    Args:
        frame: The metrics of the experiment.
        models: The names of the experiment's models.
    """
    order = {name: number for number, name in enumerate(models)}
    evaluated = frame[(frame["verb"] == "evaluate") & frame["trained_params"].notna()]
    trained = {(row.task, row.model): int(row.trained_params) for row in _rows(evaluated)}
    counted = frame[(frame["verb"] == "complexity") & (frame["name"] == "params")]
    full = {(row.task, row.model): int(row.value) for row in _rows(counted)}
    places = sorted(trained, key=lambda place: (TASKS.index(place[0]), order.get(place[1], len(order)), place[1]))
    return [TrainedSize(*place, trained[place], full.get(place)) for place in places]


def scale_sentence(scale: ModelScale) -> str:
    """Return a sentence on the size of the trained models; empty if it is the paper's."""
    if not scale.is_reduced:
        return ""
    return (
        f"Accuracies are those of models with {scale.width:g} of the paper's width and {scale.depth:g} of its depth. "
        "Parameters, operations and latency are those of the full-size models."
    )


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    return frame.itertuples(index=False)


def _millions(number: int | None) -> str:
    return "" if number is None else format_fixed(number / 1e6, 2)
