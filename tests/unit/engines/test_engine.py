"""The choice of an engine by task, and the recipe that each engine expects."""

from __future__ import annotations

import pytest

from hafabench.engines import classification, dense
from hafabench.engines.classification.model import classification_recipe
from hafabench.engines.dense.config import dense_recipe
from hafabench.engines.engine import engine_for
from hafabench.engines.trained import identity
from tools.tiny_runs.classification import tiny_run as classification_run
from tools.tiny_runs.dense import tiny_run as dense_run


def test_the_task_chooses_the_engine():
    assert engine_for("classification") is classification
    assert engine_for("segmentation") is engine_for("detection") is dense


def test_an_engine_refuses_the_recipe_of_another_task(tmp_path):
    classifier, segmentor = classification_run(tmp_path, images=tmp_path), dense_run(tmp_path, "segmentation")
    assert classification_recipe(classifier) is classifier.recipe
    assert dense_recipe(segmentor) is segmentor.recipe
    with pytest.raises(TypeError, match=r"classification/tiny_convnext/seed0.*ClassificationRecipe"):
        dense_recipe(classifier)
    with pytest.raises(TypeError, match=r"segmentation/tiny_resnet/seed0.*SegmentationRecipe"):
        classification_recipe(segmentor)


def test_only_classifiers_are_identified_by_their_image_size(tmp_path):
    assert identity(classification_run(tmp_path, images=tmp_path))["image_size"] == 32
    assert "image_size" not in identity(dense_run(tmp_path, "detection"))
