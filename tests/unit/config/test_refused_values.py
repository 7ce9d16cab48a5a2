"""Values of an experiment file that no training could use are refused when the file is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.runs.jobs import JobList

Content = dict[str, Any]


def recipe(runs: str = "classification/*", **values: Any):
    return lambda content: content["overrides"].append({"runs": runs, "why": "test", "set": values})


def data(**values: Any):
    return lambda content: content["datasets"]["classification"].update(values)


def model(name: str):
    return lambda content: content.update(models={name: {"base": "pvt_tiny"}})


def same_root(content: Content) -> None:
    content["datasets"]["segmentation"]["root"] = content["datasets"]["detection"]["root"] + "/inside"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            data(images={"train": -5, "val": 2}),
            "datasets.classification.images.train: input should be greater than 0",
        ),
        (data(images={"train": 64}), "datasets.classification.images: the number of images of val is missing"),
        (recipe(batch_size=33, mixup=0.8), "batch_size: mixup and CutMix need an even number of images per step"),
        (recipe(batch_size=1, cutmix=1.0), "batch_size: mixup and CutMix need an even number of images per step"),
        (recipe(crop_scale=[1.0, 0.1]), "crop_scale: expected two shares from 0 to 1, the smaller one first"),
        (recipe("detection/*", milestones=[-1]), "set.milestones[0]: input should be greater than 0, found -1"),
        (recipe(epochs=True), "set.epochs: expected a number, found true"),
        (recipe(lr="nan"), "set.lr: expected a finite number, found 'nan'"),
        (recipe(lr="1e400"), "set.lr: expected a finite number, found '1e400'"),
        (recipe(image_size=31), "set.image_size: input should be greater than or equal to 32, found 31"),
        (recipe(auto_augment="rnd-m9"), "auto_augment: expected a policy of timm such as 'rand-m9-mstd0.5-inc1'"),
        (recipe(auto_augment="rand-m9\n"), "auto_augment: expected a policy of timm such as"),
        (recipe(amp="perhaps"), "set.amp: input should be a valid boolean"),
        (lambda c: c["latency"].append(c["latency"][0]), "latency: expected different names of measurements"),
        (
            lambda c: c["latency"].append({**c["latency"][0], "name": c["latency"][0]["name"].upper()}),
            "which differ in case only",
        ),
        (recipe("classification/$(id)", epochs=1), "overrides[5].runs: expected a shell pattern of run ids"),
        (
            recipe("classification/" + "*" * 300, epochs=1),
            "overrides[5].runs: expected a pattern of at most 300 characters",
        ),
        (lambda c: c.update(experiment="Baseline"), "experiment: results/baseline is the folder of the regression"),
        (model("PVT_tiny"), "models.PVT_tiny: expected a name that differs from pvt_tiny not only in case"),
        (lambda c: c.update(experiment="baseline"), "experiment: results/baseline is the folder of the regression"),
        (lambda c: c["complexity"]["num_classes"].update(detection=0), "complexity.num_classes.detection: input"),
        (same_root, "datasets.segmentation.root: data/digits/coco/inside is in the folder of the generated data"),
    ],
)
def test_one_sentence_with_file_and_key(change, expected, write_experiment):
    path = write_experiment(change)
    with pytest.raises(UserError) as caught:
        JobList(load_experiment(path))
    found = [str(problem) for problem in caught.value.problems]
    assert any(expected in problem for problem in found), found
    assert all(problem.startswith(f"{path}:") for problem in found)


def test_an_odd_batch_without_mixup_is_fine(write_experiment):
    JobList(load_experiment(write_experiment(recipe(batch_size=33, mixup=0.0, cutmix=0.0))))


def test_sizes_that_are_left_out_are_the_papers(write_experiment):
    complete = load_experiment(write_experiment()).config.complexity
    path = write_experiment(
        lambda c: [c["complexity"][key].pop("detection") for key in ("image_size", "num_classes")]
    )
    experiment = load_experiment(path)
    assert experiment.config.complexity == complete
    assert "count_complexity detection" in JobList(experiment)


def test_the_example_of_the_documentation_is_valid(repository, tmp_path):
    page = (repository / "docs/configuration.md").read_text()
    path = Path(tmp_path / "mine.yaml")
    path.write_text(re.search(r"```yaml\n(experiment: .*?)```", page, re.DOTALL)[1])
    assert len(JobList(load_experiment(path)).runs) == 2
