"""The sources of configured values cite the paper only for what the paper prints."""

from __future__ import annotations

import pytest

from hafabench.config.recipes import TASKS, load_recipe
from hafabench.config.throughput import Rates
from hafabench.config.yaml_file import YamlFile
from tools.checkout import REPOSITORY

PRINTED = {
    "classification": {"optimizer", "momentum", "weight_decay", "lr", "epochs", "image_size"},
    "segmentation": {"optimizer", "lr", "batch_size", "iterations", "poly_power", "resize", "crop_size"},
    "detection": {"optimizer", "lr", "weight_decay", "batch_size", "epochs"},
}
"""The values that sections 4.1 to 4.3 print. Only the shorter side of `resize` is among them."""


@pytest.mark.parametrize("task", TASKS)
def test_recipes_cite_the_paper_for_what_it_prints(task):
    recipe = load_recipe(REPOSITORY / f"configs/recipes/{task}.yaml", task)
    section = {"classification": "4.1", "segmentation": "4.2", "detection": "4.3"}[task]
    cited = {key: item.source for key, item in recipe.defaults.items() if item.source.startswith("paper")}
    assert set(cited) == PRINTED[task]
    assert all(source.startswith(f"paper section {section}") for source in cited.values())
    for layer in (*recipe.by_family.values(), *recipe.by_size.values()):
        assert not [key for key, item in layer.items() if item.source.startswith("paper")]


def test_the_longer_side_of_segmentation_is_not_of_the_paper():
    source = load_recipe(REPOSITORY / "configs/recipes/segmentation.yaml", "segmentation").defaults["resize"].source
    assert "paper section 4.2 (shorter side 512)" in source
    assert "PVT's configuration (longer side 2048)" in source


def test_no_gpu_is_cited_for_the_latencies_of_section_4_1():
    rates = YamlFile(REPOSITORY / "configs/throughput.yaml").validate(Rates)
    sources = [rates.gpu.source, *(rate.source for rate in rates.slowdown.values())]
    assert sum("section 4.1" in source for source in sources) == 3
    assert not [source for source in sources if "section 4.1" in source and "RTX" in source]
    # 5.6, 9.5 and 23.5 ms are differences of printed values.
    assert not [source for source in sources if any(derived in source for derived in ("5.6", "9.5", "23.5"))]


def test_recipes_of_every_value_have_a_kind_of_source():
    kinds = ("paper section", "published code", "project's choice", "mmdet", "mmseg", "PVT's configuration", "COCO's")
    for task in TASKS:
        recipe = load_recipe(REPOSITORY / f"configs/recipes/{task}.yaml", task)
        for layer in (recipe.defaults, *recipe.by_family.values(), *recipe.by_size.values()):
            assert not [key for key, item in layer.items() if not any(kind in item.source for kind in kinds)]
