"""The classifier of a run."""

from __future__ import annotations

from typing import Any

from torch import nn

from hafabench import models
from hafabench.config.recipes import ClassificationRecipe
from hafabench.runs.run import Run


def create_model(run: Run) -> nn.Module:
    """Build the run's classifier with random weights, on the current device."""
    recipe = classification_recipe(run)
    # The rate is passed even if it is zero, because timm's Swin has another default.
    options: dict[str, Any] = {"drop_path_rate": recipe.drop_path}
    if models.family_of(run.model).img_size_from_recipe:
        options["img_size"] = recipe.image_size
    return models.create(run.model, num_classes=run.dataset.num_classes, **options)


def classification_recipe(run: Run) -> ClassificationRecipe:
    """Return the recipe of a classification run."""
    if not isinstance(run.recipe, ClassificationRecipe):
        raise TypeError(f"{run.id}: expected a classification recipe, found a {type(run.recipe).__name__}")
    return run.recipe
