"""Whatever a recipe of classification contains, a tiny model is trained with it, or the recipe is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import nn

from hafabench.config.bounds import MAX_SINGLE
from hafabench.config.recipes import ClassificationRecipe, DetectionRecipe, Recipe, SegmentationRecipe
from hafabench.engines.classification.augmentation import (
    build_criterion,
    build_mixup,
    eval_transform,
    train_transform,
)
from hafabench.engines.classification.optimization import build_optimizer, build_schedule
from hafabench.engines.dense.config import eval_pipeline, optimizer_config, schedule_config, train_pipeline
from tests.support.hostile_values import ANYTHING, in_time, search
from tools.tiny_runs import classification, dense

IMAGES, CLASSES = 16, 3
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
POLICIES = st.builds(
    lambda name, options: "-".join([name, *options]),
    st.sampled_from(["rand", "augmix", "original", "v0", "v0r", "3a", "originalr", "none"]),
    st.lists(
        st.builds(
            "{}{}".format,
            st.sampled_from(["m", "n", "p", "w", "d", "a", "b", "mstd", "mmax", "inc", "t", "x"]),
            st.sampled_from([0, 1, 3, 9, 10, 11, 30, 31, 99999, 0.5, 0.0, "", "weights", "3a", "-1", "0001"]),
        ),
        max_size=3,
    ),
)
RECIPES = {"segmentation": SegmentationRecipe, "detection": DetectionRecipe}


@st.composite
def recipes(draw: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe, one to three of them different."""
    changes = draw(st.dictionaries(st.sampled_from(sorted(plain)), ANYTHING, min_size=1, max_size=3))
    if "auto_augment" in changes:
        changes["auto_augment"] = draw(POLICIES)
    return plain | changes


def accepted(kind: type[Recipe], values: dict[str, Any]) -> Any:
    """The recipe, as far as an experiment would accept it."""
    try:
        recipe = kind.model_validate(values)
    except ValidationError:
        return None
    return None if recipe.problems(IMAGES) else recipe


@given(values=recipes(classification.PLAIN))
@search(150)
def test_classification(values):
    recipe = accepted(ClassificationRecipe, values)
    if recipe is None:
        return
    with in_time():
        small = recipe.model_copy(update={"image_size": min(recipe.image_size, 64)})
        torch.manual_seed(0)
        train, evaluate = train_transform(small), eval_transform(small)
        images = torch.stack([train(PHOTO) for _ in range(2)])
        assert evaluate(PHOTO).shape == images.shape[1:]
        labels: torch.Tensor = torch.tensor([0, 1])
        mixup = build_mixup(small, CLASSES, recipe.batch_size)
        criterion = build_criterion(small, mixup)
        model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, CLASSES))
        optimizer = build_optimizer(model, small)
        schedule = build_schedule(optimizer, small, IMAGES // recipe.batch_size)
        if mixup:
            images, labels = mixup(images, labels)
        for step in (0, recipe.steps(IMAGES) - 1):
            schedule.step_update(step)
            rate = optimizer.param_groups[0]["lr"]
            assert 0 <= rate <= MAX_SINGLE
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        assert math.isfinite(loss.item())


@pytest.mark.parametrize("task", RECIPES)
@given(data=st.data())
@search(80)
def test_dense(data, task):
    recipe = accepted(RECIPES[task], data.draw(recipes(dense.RECIPES[task].model_dump())))
    if recipe is None:
        return
    steps_per_epoch = IMAGES // recipe.batch_size
    for scheduler in schedule_config(recipe, recipe.steps(IMAGES), steps_per_epoch):
        assert scheduler.get("begin", 0) < scheduler.get("end", math.inf)
        assert scheduler.get("eta_min", 0) <= recipe.lr
        assert all(step < recipe.steps(IMAGES) for step in scheduler.get("milestones", ()))
    options = optimizer_config(recipe, on_gpu=False)["optimizer"]
    options.pop("type")
    parameter = nn.Parameter(torch.ones(2))
    optimizer = (torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.SGD)([parameter], **options)
    parameter.square().sum().backward()
    optimizer.step()
    assert parameter.isfinite().all() or recipe.lr > 1
    assert train_pipeline(recipe, CLASSES)
    assert eval_pipeline(recipe, CLASSES)
