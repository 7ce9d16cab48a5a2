"""Experiment files: all problems are reported at once, each with file, line, key and expectation."""

from __future__ import annotations

import pytest

from hafabench.config.catalog import CATALOG, merger_problem
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from tests.support.experiments import EXAMPLE


def problems_of(path) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", ["digits", "paper"])
def test_tracked_experiments_load(name, repository):
    experiment = load_experiment(repository / "configs" / f"{name}.yaml")
    assert experiment.name == name
    assert [layout.id for layout in experiment.table_layouts] == [
        *(f"table{n}" for n in range(1, 7)),
        "section4_1",
        "section4_4",
    ]


def test_all_problems_at_once_with_lines(tmp_path, repository):
    text = EXAMPLE.read_text()
    text = text.replace("scale: embedded", "scale: tiny").replace("seeds: [0]", "seeds: [zero]\ncolour: red")
    path = tmp_path / "digits.yaml"
    path.write_text(text)
    lines = {key: n for n, line in enumerate(text.splitlines(), 1) for key in [line.split(":")[0]]}
    found = problems_of(path)
    assert f"{path}:{lines['scale']}: scale: input should be 'embedded', 'custom' or 'full', found 'tiny'" in found
    assert any(p.startswith(f"{path}:{lines['seeds']}: seeds[0]: input should be a valid integer") for p in found)
    assert f"{path}:{lines['colour']}: colour: unknown key" in found
    assert len(found) == 3


def test_unknown_key_inside_a_dataset(write_experiment):
    found = problems_of(write_experiment(lambda c: c["datasets"]["detection"].update(rot="x")))
    assert len(found) == 1
    assert "datasets.detection.rot: unknown key" in found[0]


def test_an_unknown_model_is_reported_with_the_most_similar_names(write_experiment):
    found = problems_of(write_experiment(lambda c: c["train"]["classification"].append("pvt_tiny_haffa")))
    assert len(found) == 1
    assert "train.classification[11]: unknown model 'pvt_tiny_haffa'; did you mean pvt_tiny_hafa" in found[0]


@pytest.mark.parametrize(
    ("mergers", "expected"),
    [
        (["grid", "laa", "laa", "lsa"], "unknown merger 'lsa' on stage 4; expected one of grid, laa, sia, conv"),
        (["laa", "laa", "laa", "sia"], "stage 1 is the patch embedding"),
        (["grid", "laa", "sia", "sia"], "PVT v1 takes 'sia' on stage 4 only"),
        (["grid", "laa", "sia"], "3 mergers given, expected 4"),
    ],
)
def test_wrong_mergers(write_experiment, mergers, expected):
    def change(content):
        content["models"] = {"mine": {"base": "pvt_tiny", "mergers": mergers}}

    found = problems_of(write_experiment(change))
    assert len(found) == 1
    assert "models.mine.mergers: " in found[0]
    assert expected in found[0]


def test_grid_after_clustering_is_refused():
    assert "cluster tokens have no grid" in merger_problem("pvt_v2", ("grid", "sia", "laa", "sia"))
    assert "takes no mergers" in merger_problem("resnet", ("grid", "laa", "laa", "sia"))


def test_every_catalogued_plugin_model_has_mergers_that_fit():
    for spec in CATALOG.values():
        if spec.has_mergers:
            assert merger_problem(spec.family, spec.mergers) is None, spec.name


@pytest.mark.parametrize("key", ["query_mode", "variant"])
def test_model_of_an_experiment(write_experiment, key):
    def change(content):
        content["models"] = {"mine": {"base": "pvt_tiny", "mergers": ["grid", "laa", "grid", "sia"], key: "qkv"}}
        content["train"]["classification"].append("mine")

    model = load_experiment(write_experiment(change)).models["mine"]
    assert model.mergers == ("grid", "laa", "grid", "sia")
    assert model.architecture == "pvt_tiny"
    assert model.query_mode == "qkv"
    # Records and fingerprints keep the name that the first ones had.
    assert model.as_record()["variant"] == "qkv"
    assert "query_mode" not in model.as_record()


def test_keep_rates_of_an_experiments_model(write_experiment):
    def change(keep, base="dynamic_swin_tiny_0.25", **more):
        return lambda content: content.update(models={"mine": {"base": base, "keep": keep, **more}})

    found = load_experiment(write_experiment(change({"schedule": "powers", "rate": 0.5}))).models["mine"]
    assert found.keep == (0.5, 0.25, 0.125)
    assert load_experiment(write_experiment(change([0.75, 0.5, 0.25]))).models["mine"].keep == (0.75, 0.5, 0.25)
    for wrong, expected in (
        (change({"schedule": "steps", "rate": 0.25}), "models.mine.keep: rate 3 is -0.15, but a keep rate"),
        (change([0.5, 0.5, 1.5]), "models.mine.keep: rate 3 is 1.5, but a keep rate is between 0 and 1"),
        (change([0.5, 0.5, 0.5], base="pvt_tiny"), "models.mine.keep: 'pvt_tiny' drops no tokens"),
        (change([0.5, 0.5, 0.5], query_mode="qkv"), "can differ in its keep rates only"),
    ):
        assert expected in problems_of(write_experiment(wrong))[0]


def test_override_keys_and_values_are_checked(write_experiment):
    def change(content):
        content["overrides"] += [
            {"runs": "classification/*", "why": "test", "set": {"learning_rate": 1.0}},
            {"runs": "segmentation/*", "why": "test", "set": {"iterations": "many"}},
            {"runs": "everything", "why": "test", "set": {"lr": 1.0}},
            {"runs": "classification/*", "why": "test", "set": {"token_pruning.teachr": "x", "lr.peak": 1}},
            {"runs": "classification/*", "why": "test", "set": {"token_pruning.ema_decay": 2.0}},
        ]

    found = problems_of(write_experiment(change))
    assert len(found) == 6
    assert "overrides[8].set.token_pruning.teachr: unknown key of the classification recipe" in found[3]
    assert "overrides[8].set.lr.peak: unknown key of the classification recipe" in found[4]
    assert "overrides[9].set.token_pruning.ema_decay: input should be less than 1, found 2.0" in found[5]
    assert "overrides[5].set.learning_rate: unknown key of the classification recipe" in found[0]
    assert "overrides[6].set.iterations: input should be a valid integer" in found[1]
    assert "overrides[7].runs: expected a pattern that starts with a task" in found[2]


def test_missing_file_bad_yaml_and_repeated_key(tmp_path):
    assert "no such file" in problems_of(tmp_path / "none.yaml")[0]
    broken = tmp_path / "broken.yaml"
    broken.write_text("experiment: [digits\nseeds: 1\n")
    assert "not valid YAML" in problems_of(broken)[0]
    twice = tmp_path / "twice.yaml"
    twice.write_text("experiment: a\ntitle: b\nexperiment: c\n")
    assert problems_of(twice) == [f"{twice}:3: experiment: key given twice"]


def test_the_data_format_has_one_of_two_spellings(write_experiment):
    def respell(content):
        content["datasets"]["detection"]["layout"] = content["datasets"]["detection"].pop("format")

    old, new = (load_experiment(write_experiment(change)).config for change in (respell, lambda content: None))
    assert old.datasets["detection"] == new.datasets["detection"]
    assert new.datasets["detection"].identity()["layout"] == "coco"

    (both,) = problems_of(write_experiment(lambda c: c["datasets"]["detection"].update(layout="coco")))
    assert "datasets.detection: 'format' and 'layout' are the same key" in both


@pytest.mark.parametrize("key", ["format", "layout"])
def test_a_wrong_data_format_is_reported_under_the_key_that_the_file_uses(write_experiment, key):
    def change(value):
        return lambda c: (c["datasets"]["detection"].pop("format"), c["datasets"]["detection"].update({key: value}))

    (unknown,) = problems_of(write_experiment(change("voc")))
    assert f"datasets.detection.{key}: input should be 'imagenet', 'coco' or 'ade20k'" in unknown
    (unfit,) = problems_of(write_experiment(change("imagenet")))
    assert f"datasets.detection.{key}: expected 'coco', found 'imagenet'" in unfit
