"""Runs of an experiment: deterministic, ordered, with fingerprints of their meaning."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.config.recipes import TASKS
from hafabench.errors import UserError
from hafabench.runs.fingerprints import complexity_models, fingerprint
from hafabench.runs.run import expand


def fingerprints(path) -> dict[str, str]:
    return {name: run.fingerprint for name, run in expand(load_experiment(path)).items()}


def override(runs: str, **values):
    return lambda content: content.setdefault("overrides", []).append({"runs": runs, "why": "a test", "set": values})


def test_digits_trains_what_the_tables_need(repository):
    runs = expand(load_experiment(repository / "configs/digits.yaml"))
    assert len(runs) == 11 + 4 + 4
    run = runs["detection/pvt_tiny_hafa/seed0"]
    assert run.parent is runs["classification/pvt_tiny_hafa/seed0"]
    assert str(run.checkpoint) == "results/digits/detection/pvt_tiny_hafa/seed0/checkpoint.pth"
    assert list(runs).index(run.parent.id) < list(runs).index(run.id)


def test_paper_trains_every_row(repository):
    experiment = load_experiment(repository / "configs/paper.yaml")
    runs = expand(experiment)
    tasks = {"top1": "classification", "miou": "segmentation", "box_ap": "detection"}
    for table_layout in experiment.table_layouts:
        for column in table_layout.columns:
            if column.key in tasks:
                for row in table_layout.rows:
                    assert f"{tasks[column.key]}/{row.model}/seed0" in runs, (table_layout.id, row.label)


def test_a_changed_learning_rate_changes_that_run_and_its_dependants_only(write_experiment):
    before = fingerprints(write_experiment())
    after = fingerprints(write_experiment(override("classification/pvt_tiny/*", lr=0.123)))
    assert {name for name in before if before[name] != after[name]} == {
        "classification/pvt_tiny/seed0",
        "segmentation/pvt_tiny/seed0",
        "detection/pvt_tiny/seed0",
    }


def test_single_models_can_have_fewer_seeds(write_experiment):
    def with_seeds(**fewer):
        return write_experiment(lambda content: content.update(seeds=[0, 1], fewer_seeds=fewer))

    everything, some = fingerprints(with_seeds()), fingerprints(with_seeds(pvt_tiny=[1], resnet18=[0]))
    left_out = {f"{task}/{name}" for task in TASKS for name in ("pvt_tiny/seed0", "resnet18/seed1")}
    assert some == {name: mark for name, mark in everything.items() if name not in left_out}


@pytest.mark.parametrize(
    ("fewer", "message"),
    [
        ({"pvt_tiny": [2]}, "fewer_seeds.pvt_tiny: expected some of the seeds [0, 1], found [2]"),
        ({"pvt_tiny": []}, "fewer_seeds.pvt_tiny: expected some of the seeds [0, 1], found []"),
        ({"pvt_tiny": [1, 1]}, "fewer_seeds.pvt_tiny: expected some of the seeds [0, 1], found [1, 1]"),
        ({"pvt_huge": [0]}, "fewer_seeds.pvt_huge: no model under train has this name"),
    ],
)
def test_fewer_seeds_that_do_not_fit_are_refused(write_experiment, fewer, message):
    with pytest.raises(UserError) as error:
        load_experiment(write_experiment(lambda content: content.update(seeds=[0, 1], fewer_seeds=fewer)))
    assert message in str(error.value)


def test_how_a_run_is_operated_does_not_change_it(write_experiment):
    before = fingerprints(write_experiment())
    after = fingerprints(
        write_experiment(override("classification/*", workers=7, log_every=3, checkpoint_every=5, eval_batch_size=2))
    )
    assert before == after

    def elsewhere(content):
        content["datasets"]["classification"]["root"] = "/elsewhere"

    assert fingerprints(write_experiment(elsewhere)) == before


def test_later_additions_do_not_change_earlier_runs(repository):
    """A run that uses no key or field added since the first records has the fingerprint that it had before."""
    run = expand(load_experiment(repository / "configs/paper.yaml"))["classification/pvt_tiny_hafa/seed0"]
    model = {"family": "pvt", "size": "tiny", "architecture": "pvt_tiny", "mergers": ["grid", "laa", "laa", "sia"]}
    recipe = run.recipe.model_dump(mode="json", exclude={*run.recipe.operational, "token_pruning"})
    content = {"task": "classification", "model": {**model, "variant": "q", "fidelity": "published_code"}}
    content |= {"dataset": run.dataset.identity(), "recipe": recipe, "seed": 0, "parent": None}
    assert run.fingerprint == fingerprint(content)


def test_data_and_seed_change_a_run(write_experiment):
    before = fingerprints(write_experiment())

    def other_data(content):
        content["datasets"]["segmentation"]["generator"]["seed"] = 1

    changed = fingerprints(write_experiment(other_data))
    assert {n.split("/")[0] for n in before if before[n] != changed[n]} == {"segmentation"}
    seeds = fingerprints(write_experiment(lambda content: content.update(seeds=[0, 1])))
    assert len(seeds) == 2 * len(before)
    assert len(set(seeds.values())) == len(seeds)


def test_equal_variants_of_different_names_are_the_same_work(write_experiment):
    def change(content):
        content["models"] = {"mine": {"base": "pvt_tiny", "mergers": ["grid", "laa", "laa", "sia"]}}
        content["train"]["classification"].append("mine")

    found = fingerprints(write_experiment(change))
    assert found["classification/mine/seed0"] == found["classification/pvt_tiny_hafa/seed0"]


def test_override_that_matches_nothing_is_refused(write_experiment):
    experiment = load_experiment(write_experiment(override("classification/pvt_huge/*", lr=0.1)))
    with pytest.raises(UserError, match=r"overrides\[5\].runs: pattern 'classification/pvt_huge/\*' matches no run"):
        expand(experiment)


def test_dense_run_without_its_classification_run_is_refused(write_experiment):
    experiment = load_experiment(write_experiment(lambda c: c["train"]["classification"].remove("pvt_tiny")))
    with pytest.raises(UserError, match="starts from the classification run of 'pvt_tiny'"):
        expand(experiment)


def test_a_model_that_drops_tokens_starts_from_its_teachers_run(repository, write_experiment):
    runs = expand(load_experiment(repository / "configs/paper.yaml"))
    for student, teacher in (("dynamicvit_lvs_0.5", "lvvit_small"), ("dynamic_swin_tiny_0.25", "swin_tiny")):
        run = runs[f"classification/{student}/seed0"]
        assert run.parent is runs[f"classification/{teacher}/seed0"]
        assert list(runs).index(run.parent.id) < list(runs).index(run.id)

    def teacher_is_not_trained(content):
        content["train"]["classification"].remove("swin_tiny")

    with pytest.raises(UserError, match="starts from the classification run of 'swin_tiny', which train"):
        expand(load_experiment(write_experiment(teacher_is_not_trained, base="paper")))


def test_token_pruning_is_for_models_that_drop_tokens(write_experiment):
    def with_override(runs, **values):
        return expand(load_experiment(write_experiment(override(runs, **values), base="paper")))

    with pytest.raises(UserError, match=r"dynamicvit_lvs_0.5/seed0: token_pruning.frozen_epochs: 30 epochs frozen"):
        with_override("classification/dynamicvit*", **{"token_pruning.frozen_epochs": 30})
    with pytest.raises(UserError, match=r"pvt_tiny/seed0: token_pruning\.ratio_weight: required key is missing"):
        with_override("classification/pvt_tiny/*", **{"token_pruning.teacher": "resnet18"})
    assert (
        "token_pruning"
        not in expand(load_experiment(write_experiment()))["classification/pvt_tiny/seed0"].recipe.identity()
    )


def test_every_recipe_value_has_a_source(repository):
    for run in expand(load_experiment(repository / "configs/paper.yaml")).values():
        given = set(run.recipe.model_fields_set)
        for part in given & set(run.recipe.sections):
            given = given - {part} | {f"{part}.{key}" for key in getattr(run.recipe, part).model_fields_set}
        assert given == set(run.sources), run.id
        assert all(run.sources.values())


def test_complexity_covers_rows_that_do_not_train(repository):
    experiment = load_experiment(repository / "configs/digits.yaml")
    names = [model.name for model in complexity_models(experiment, "classification")]
    assert {"resnext101_64x4d", "pvt_large_hafa", "swin_tiny_hafa", "dynamicvit_lvs_0.5"} <= set(names)


@pytest.mark.parametrize(
    "module", ["hafabench", "hafabench.runs.run", "hafabench.config.experiment", "hafabench.cli"]
)
def test_light_modules_load_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("runs", "values", "expected"),
    [
        (
            "detection/pvt_tiny/*",
            {"batch_size": 500},
            "batch_size: 500 images per step, but there are only 96 training images",
        ),
        ("segmentation/pvt_tiny/*", {"warmup_iterations": 99999}, "99999 steps of warm-up, but the"),
        ("classification/pvt_tiny/*", {"epochs": 2, "warmup_epochs": 2}, "warmup_epochs: "),
    ],
)
def test_a_schedule_that_does_not_fit_its_data_is_refused(write_experiment, runs, values, expected):
    experiment = load_experiment(write_experiment(override(runs, **values)))
    with pytest.raises(UserError) as caught:
        expand(experiment)
    assert expected in str(caught.value)
    assert runs.rstrip("/*") in str(caught.value)
