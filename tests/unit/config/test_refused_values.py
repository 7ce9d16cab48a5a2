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


@pytest.mark.parametrize("inner", ["segmentation", "classification"])
@pytest.mark.parametrize("path", ["", "inside", "link", "link/inside"])
@pytest.mark.parametrize("generated", ["both", "classification", "segmentation"])
def test_folders_of_data_sets_do_not_contain_each_other(write_experiment, tmp_path, inner, path, generated):
    (outer,) = {"segmentation", "classification"} - {inner}
    (tmp_path / "outer").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outer")
    root = tmp_path / path if path.startswith("link") else tmp_path / "outer" / path

    def change(content):
        content["datasets"][outer]["root"] = str(tmp_path / "outer")
        content["datasets"][inner]["root"] = str(root)
        for task in {outer, inner} - {generated} if generated != "both" else ():
            content["datasets"][task]["generator"] = None

    with pytest.raises(UserError) as caught:
        load_experiment(write_experiment(change))
    assert f"datasets.{inner}.root: {root}" in str(caught.value)
    assert f"datasets.{outer}.root: {tmp_path / 'outer'}" in str(caught.value)


def test_data_that_is_not_generated_may_share_a_folder(write_experiment, tmp_path):
    def change(content):
        for task in ("segmentation", "classification"):
            content["datasets"][task].update(root=str(tmp_path), generator=None)

    load_experiment(write_experiment(change))


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
        (lambda c: c.update(seeds=[True]), "seeds[0]: expected a number, found true"),
        (lambda c: c.update(seeds=[-1]), "seeds[0]: input should be greater than or equal to 0, found -1"),
        (lambda c: c.update(seeds=["0"]), "seeds[0]: expected a number, found the text '0'; write it without quotes"),
        (lambda c: c.update(seeds=[0.5]), "seeds[0]: input should be a valid integer"),
        (lambda c: c.update(seeds=list(range(1001))), "seeds: list should have at most 1000 items"),
        (recipe(lr=True), "set.lr: expected a number, found true"),
        (recipe(lr=1e39), "set.lr: input should be less than or equal to 1"),
        (recipe(lr=1e37, lr_batch_size=1), "lr: 1e+37 scaled to 32 images per step is above 1e+38"),
        (recipe(amp=1), "set.amp: input should be a valid boolean, found 1"),
        (recipe(amp="true"), "set.amp: input should be a valid boolean, found 'true'"),
        (recipe(eval_crop=1e-9), "set.eval_crop: input should be greater than or equal to 0.1, found 1e-09"),
        (recipe(image_size=2048, eval_crop=0.1), "eval_crop: images are resized to 20480 pixels"),
        (recipe(crop_scale=[1e-9, 1.0]), "set.crop_scale[0]: input should be greater than or equal to 0.001"),
        (recipe(min_lr=0.5), "min_lr: expected at most lr (0.001), from which the schedule falls, found 0.5"),
        (recipe("segmentation/*", min_lr=0.5), "min_lr: expected at most lr (0.0001), from which"),
        (recipe(warmup_lr=0.5), "warmup_lr: expected at most lr (0.001), to which the warm-up rises, found 0.5"),
        (recipe(workers=100000), "set.workers: input should be less than or equal to 256, found 100000"),
        (recipe(workers=0.5), "set.workers: input should be a valid integer"),
        (recipe(eval_batch_size=60000, image_size=4096), "eval_batch_size: 60000 images of 4096 x 4096 pixels take"),
        (recipe("segmentation/*", crop_size=31), "set.crop_size: input should be greater than or equal to 32"),
        (
            recipe("segmentation/*", resize=[128, 512]),
            "set.resize: expected the larger number first, found [128, 512]",
        ),
        (recipe("detection/*", resize=[-512, -512]), "set.resize[0]: input should be greater than or equal to 32"),
        (recipe("segmentation/*", ratio_range=[2.0, 0.5]), "set.ratio_range: expected the smaller number first"),
        (recipe("segmentation/*", ratio_range=[-2.0, 0.5]), "set.ratio_range[0]: input should be greater than"),
        (recipe("segmentation/*", iterations=10**12), "set.iterations: input should be less than or equal to"),
        (recipe("detection/*", epochs=3, milestones=[2, 1]), "set.milestones: expected different numbers in rising"),
        (recipe("detection/*", epochs=3, milestones=[1, 1]), "set.milestones: expected different numbers in rising"),
        (recipe("detection/*", epochs=3, milestones=[3]), "milestones: expected milestones before the end of the"),
        (recipe(mixup=1e-300), "set.mixup: expected 0 or at least 0.001, found 1e-300"),
        (recipe(auto_augment="rand-m9-n99999"), "'n' takes a whole number from 1 to 10, found 99999"),
        (recipe(auto_augment="rand-m9.5"), "'m' takes a whole number from 0 to 30, found 9.5"),
        (recipe(auto_augment="rand-m9-q3"), "no option 'q3' of 'rand'"),
        (recipe(auto_augment="rand-m9-m8"), "option 'm' twice"),
        (recipe(auto_augment="rand-m9-inc"), "no option 'inc' of 'rand'"),
        (recipe("classification/resnet18/*", image_size=10**9), "set.image_size: input should be less than or equal"),
        (data(num_classes=10**12), "datasets.classification.num_classes: input should be less than or equal"),
        (data(num_classes=7), "datasets.classification.num_classes: digits have 10, found 7"),
        (data(images={"train": 896, "val": 9}), "datasets.classification.images.val: expected 10 or more, found 9"),
        (data(images={"train": 896, "val": 10**8}), "images.val: expected at most 1,000,000 scenes"),
        (
            lambda c: c["datasets"]["segmentation"].update(num_classes=300, generator=None),
            "datasets.segmentation.num_classes: expected at most 254 classes in 8-bit masks, found 300",
        ),
        (lambda c: c["latency"][0].update(batch_size=10**9), "latency[0].batch_size: input should be less than"),
        (lambda c: c["latency"][0].update(throughput_batch=10**9), "latency[0].throughput_batch: expected at most"),
        (lambda c: c["latency"][0].update(image_size=8192, batch_size=2000), "latency[0].batch_size: 2000 images of"),
        (lambda c: c["latency"][0].update(models=["pvt_v2_b1"]), "latency[0].models[0]: model 'pvt_v2_b1' is the"),
        (lambda c: c["latency"][0].update(models=["pvt_tiny"] * 2), "latency[0].models[1]: model 'pvt_tiny' is"),
        (lambda c: c["latency"][0].update(threads=10**9), "latency[0].threads: input should be less than or equal"),
        (lambda c: c["latency"][0].update(repeats=10**12), "latency[0].repeats: input should be less than or equal"),
        (
            lambda c: c["latency"][0].update(models=["deit_tiny"], image_size=225),
            "latency[0].image_size: expected a multiple of 16 pixels for deit_tiny, found 225",
        ),
        (
            lambda c: c["complexity"]["image_size"].update(detection=[10**12, 64]),
            "complexity.image_size.detection[0]",
        ),
        (
            lambda c: c["complexity"].update(image_size=[224, 224]),
            "complexity.image_size: input should be a valid dict",
        ),
        (
            lambda c: c["train"]["segmentation"].append("deit_tiny"),
            "train.segmentation[4]: model 'deit_tiny' has no feature pyramid, which segmentation needs",
        ),
        (lambda c: c.pop("train"), "train: required key is missing"),
        (
            lambda c: c.update(models={"m": {"base": "dynamicvit_lvs_0.5", "keep": [0.2, 0.5, 0.9]}}),
            "models.m.keep: rate 2 is 0.5, but",
        ),
        (
            lambda c: c.update(
                models={"m": {"base": "dynamicvit_lvs_0.5", "keep": {"schedule": "powers", "rate": 1e308}}}
            ),
            "models.m.keep.rate: input should be less than or equal to 1",
        ),
        (data(root="x" * 300), "datasets.classification.root: expected a path of at most 4095 bytes with names of"),
        (lambda c: c.update(title=["a"]), "title: input should be a valid string"),
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


def test_a_learning_rate_at_which_trainings_diverge_is_no_mistake(write_experiment):
    JobList(load_experiment(write_experiment(recipe(lr=1e37, weight_decay=1e4))))


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
