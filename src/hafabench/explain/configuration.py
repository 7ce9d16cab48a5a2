"""A run's resolved configuration compared with its recipe file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import RECIPE_TYPES
from hafabench.runs.run import Run


@dataclass(frozen=True)
class Setting:
    """One value of a recipe.

    Attributes:
        key: The name of the setting; ``section.name`` for a value of a section.
        value: Its value in the run.
        recipe: Its value in the recipe file, for the run's model.
        source: The source of the recipe's value.
        why: The reason for an override; None if the run uses the recipe's value.
        operational: Whether it changes only how the run is carried out, not its numbers.
    """

    key: str
    value: Any
    recipe: Any
    source: str
    why: str | None
    operational: bool

    @property
    def differs(self) -> bool:
        """Whether the run's value differs from the recipe's."""
        return self.value != self.recipe


def settings(experiment: Experiment, run: Run) -> list[Setting]:
    """All settings of a run, next to those of the recipe file."""
    layers = experiment.recipes[run.task].layers(run.model)
    kind = RECIPE_TYPES[run.task]
    published = _flat(experiment.recipes[run.task].resolved(run.model).model_dump(mode="json"), kind.sections)
    found = []
    for key, value in _flat(run.recipe.model_dump(mode="json"), kind.sections).items():
        recipe = published.get(key)
        differs = value != recipe
        found.append(
            Setting(
                key=key,
                value=value,
                recipe=recipe,
                source=layers[key].source if key in layers else "this project's default",
                why=run.sources.get(key) if differs else None,
                operational=key in run.recipe.operational,
            )
        )
    return found


def _flat(values: dict[str, Any], sections: Collection[str]) -> dict[str, Any]:
    """Write the values of sections under keys with a dot, as recipe files do; the inverse of `nested`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in sections and value is not None:
            found |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            found[key] = value
    return found
