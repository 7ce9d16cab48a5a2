"""`hafabench check` warns where learning rate and batch size leave the ratio of the recipe."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.runs.learning_rates import learning_rate_warnings
from hafabench.runs.run import expand


def warnings(write_experiment, *overrides: tuple[str, dict[str, float]]) -> list[str]:
    """The warnings about the paper's experiment with some overrides."""
    entries = [{"runs": runs, "set": values, "why": "a test"} for runs, values in overrides]
    experiment = load_experiment(write_experiment(lambda content: content.update(overrides=entries), base="paper"))
    return [str(warning) for warning in learning_rate_warnings(experiment, expand(experiment).values())]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [("segmentation/pvt*", {"batch_size": 8, "lr": 0.5e-4})],
        [
            ("segmentation/pvt*", {"batch_size": 48, "lr": 3e-4}),
            ("segmentation/resnet50/*", {"batch_size": 4, "lr": 0.0025}),
        ],
        [("detection/resnet18/*", {"lr": 0.005}), ("detection/resnet18/*", {"batch_size": 4})],
        # The rates of classification are scaled from lr_batch_size to batch_size.
        [("classification/*", {"batch_size": 256})],
        [("classification/pvt_*", {"lr": 5e-4, "lr_batch_size": 512})],
        [("segmentation/*", {"eval_batch_size": 4, "workers": 0, "iterations": 80000})],
    ],
)
def test_rates_in_the_ratio_of_the_recipe_are_not_warned_about(write_experiment, overrides):
    assert warnings(write_experiment, *overrides) == []


@pytest.mark.parametrize(
    ("override", "facts"),
    [
        (
            ("detection/pvt_tiny*", {"batch_size": 8}),
            "detection: lr 0.0001 with batch_size 8 for pvt_tiny, pvt_tiny_hafa, pvt_tiny_hafa_qkv, but lr 0.0001 "
            "with batch_size 16 in the recipe; with batch_size 8 the same ratio is lr 5e-05",
        ),
        (
            ("segmentation/resnet50/*", {"lr": 0.02}),
            "segmentation: lr 0.02 with batch_size 16 for resnet50, but lr 0.01 with batch_size 16 in the recipe; "
            "with batch_size 16 the same ratio is lr 0.01",
        ),
        (
            ("detection/resnet50/*", {"batch_size": 2, "lr": 0.01}),
            "detection: lr 0.01 with batch_size 2 for resnet50, but lr 0.02 with batch_size 16 in the recipe; with "
            "batch_size 2 the same ratio is lr 0.0025",
        ),
        (
            ("classification/dynamic_swin*", {"lr_batch_size": 1024, "batch_size": 1024}),
            "classification: lr 0.004 with lr_batch_size 1024 for dynamic_swin_tiny_0.25, but lr 0.004 with "
            "lr_batch_size 4096 in the recipe; with lr_batch_size 1024 the same ratio is lr 0.001",
        ),
        (
            ("classification/swin_tiny/*", {"lr": 5e-4, "batch_size": 512}),
            "classification: lr 0.0005 with lr_batch_size 1024 for swin_tiny, but lr 0.001 with lr_batch_size 1024 "
            "in the recipe; with lr_batch_size 1024 the same ratio is lr 0.001",
        ),
    ],
)
def test_other_rates_are_warned_about(write_experiment, override, facts):
    (found,) = warnings(write_experiment, override)
    assert found.endswith(facts)


def test_models_with_different_values_get_different_warnings(write_experiment):
    found = warnings(write_experiment, ("segmentation/*", {"batch_size": 32}))
    assert len(found) == 2
    assert "for resnet18, resnet50, resnext101_64x4d, but lr 0.01" in found[0]
    assert "the same ratio is lr 0.0002" in found[1]


def test_check_prints_the_warnings_and_succeeds(write_experiment):
    override = {"runs": "segmentation/*", "set": {"batch_size": 2}, "why": "one GPU"}
    file = write_experiment(lambda content: content.update(overrides=[override]), base="paper")
    done = CliRunner().invoke(cli, ["check", "--no-data", "--experiment", str(file)])
    assert done.exit_code == 0
    assert f"warning: {file}: segmentation: lr 0.01 with batch_size 2" in done.output
    quiet = CliRunner().invoke(cli, ["check", "--no-data", "--experiment", "paper"])
    assert "warning" not in quiet.output
