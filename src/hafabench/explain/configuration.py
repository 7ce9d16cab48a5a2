"""A run's resolved configuration against the recipe of the paper: what differs, from what, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import RECIPE_TYPES
from hafabench.runs.run import Run


@dataclass(frozen=True)
class Setting:
    """One value of a recipe.

    Attributes:
        key: its name.
        value: in this run.
        recipe: in the recipe file, for this model.
        source: where the recipe's value is written down.
        why: of the override; None where the run keeps the recipe's value.
        operational: whether it only says how a run is operated.
    """

    key: str
    value: Any
    recipe: Any
    source: str
    why: str | None
    operational: bool

    @property
    def differs(self) -> bool:
        """Whether the run departs from the recipe."""
        return self.value != self.recipe


def settings(experiment: Experiment, run: Run) -> list[Setting]:
    """Every value of the run's recipe, beside the recipe file's."""
    layers = experiment.recipes[run.task].layers(run.model)
    kind = RECIPE_TYPES[run.task]
    published = kind.model_validate({key: item.value for key, item in layers.items()}).model_dump(mode="json")
    found = []
    for key, value in run.recipe.model_dump(mode="json").items():
        differs = value != published[key]
        found.append(
            Setting(
                key=key,
                value=value,
                recipe=published[key],
                source=layers[key].source if key in layers else "this project's default",
                why=run.sources.get(key) if differs else None,
                operational=key in run.recipe.operational,
            )
        )
    return found
