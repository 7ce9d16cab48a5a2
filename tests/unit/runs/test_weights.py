"""Published weights as the start of dense runs: what identifies them, and the jobs that they make unnecessary."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import load_experiment
from hafabench.engines.dense.backbone import initialise_backbone
from hafabench.engines.evaluation import record_evaluation
from hafabench.errors import UserError
from hafabench.files import sha256_of, write_text
from hafabench.models import create
from hafabench.models.checkpoints.storage import save_checkpoint
from hafabench.results.record import Metric, read_record
from hafabench.runs.jobs import JobList
from hafabench.runs.run import Run, expand, find_run
from hafabench.runs.state import run_state
from hafabench.runs.weights import StartingWeights, missing_weights, starting_weights
from tests.support.experiments import evaluated
from tests.support.messages import missing_facts
from tools.tiny_runs.dense import TINY, tiny_run

RUN = "segmentation/pvt_tiny/seed0"


@pytest.fixture
def write(write_experiment, monkeypatch, tmp_path):
    """Write an experiment in an empty folder whose dense runs of one model start from published weights."""
    monkeypatch.chdir(tmp_path)

    def write(weights, model: str = "pvt_tiny", train: tuple[str, ...] = (), **models) -> Path:
        def change(content):
            content["train"] = {"classification": list(train), "segmentation": [model], "detection": [model]}
            content["models"] = {model: {"weights": weights}, **models}
            used = ("segmentation/*", "detection/*", *(["classification/*"] if train else []))
            content["overrides"] = [one for one in content["overrides"] if one["runs"] in used]

        return write_experiment(change)

    return write


def runs_of(path: Path) -> dict[str, Run]:
    return expand(load_experiment(path))


def file(name: str, content: bytes = b"weights") -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)
    return Path(name)


# The experiment file.


def test_the_pretraining_is_no_job_of_runs_that_start_from_published_weights(write):
    path = write(str(file("pvt.pth")))
    jobs = JobList(load_experiment(path))
    assert [job.subject for job in jobs.values() if job.rule == "train_run"] == [RUN, "detection/pvt_tiny/seed0"]
    run = jobs.runs[RUN]
    assert (run.parent, run.weights) == (None, StartingWeights(Path("pvt.pth"), sha256_of(Path("pvt.pth"))))
    assert run.resolved()["weights"]["sha256"] == run.weights.sha256

    listed = JobList(load_experiment(write("pvt.pth", train=("pvt_tiny",))))
    assert "train_run classification/pvt_tiny/seed0" in listed
    assert listed.runs[RUN] == run
    assert listed[f"train_run {RUN}"].needs == ("prepare_dataset segmentation",)


def test_an_experiment_needs_no_classification_data_then(write_experiment, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file("pvt.pth")

    def change(content):
        del content["datasets"]["classification"], content["datasets"]["detection"]
        content |= {"train": {"segmentation": ["pvt_tiny"]}, "overrides": []}
        content["models"] = {"pvt_tiny": {"weights": "pvt.pth"}}

    path = write_experiment(change)
    assert [job.subject for job in JobList(load_experiment(path)).values() if job.rule == "prepare_dataset"] == [
        "segmentation"
    ]
    shown = CliRunner().invoke(cli, ["status", "-e", str(path)])
    assert (shown.exit_code, "classification/" in shown.output) == (0, False), shown.output


def test_the_content_of_the_file_identifies_the_weights_and_not_its_path(write):
    run = runs_of(write(str(file("pvt.pth"))))[RUN]
    without = runs_of(write(None, train=("pvt_tiny",)))[RUN]
    assert without.fingerprint != run.fingerprint
    assert "weights" not in without.resolved()

    file("else where/ü.pth")
    moved = runs_of(write("else where/ü.pth"))[RUN]
    assert moved.fingerprint == run.fingerprint
    others = [
        runs_of(write(str(file("other.pth", b"other"))))[RUN],
        runs_of(write({"file": "pvt.pth", "part": "model_ema"}))[RUN],
        runs_of(write({"file": "pvt.pth", "rename": {"a": "b"}}))[RUN],
        runs_of(write("missing.pth"))[RUN],
    ]
    assert len({run.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_home_and_variables_in_paths_are_replaced(write, monkeypatch, tmp_path):
    file("home/pvt.pth")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STORE", str(tmp_path))
    for written in ("~/pvt.pth", "$STORE/home/pvt.pth", "${STORE}/home/pvt.pth"):
        assert runs_of(write(written))[RUN].weights.file == tmp_path / "home/pvt.pth"


def test_a_model_of_the_experiment_has_weights_too(write):
    mine = {"base": "pvt_tiny", "mergers": ["grid", "laa", "grid", "sia"], "weights": str(file("mine.pth"))}
    runs = runs_of(write(None, model="mine", mine=mine))
    assert {run.weights.file for run in runs.values()} == {Path("mine.pth")}


@pytest.mark.parametrize(
    ("models", "facts"),
    [
        ({"pvt_tiny": {"weights": 5}}, ["models.pvt_tiny.weights", "5"]),
        ({"pvt_tiny": {"weights": {"part": "model"}}}, ["models.pvt_tiny.weights.file"]),
        (
            {"pvt_tiny": {"weights": {"file": "a", "parts": "model"}}},
            ["models.pvt_tiny.weights.parts", "unknown key"],
        ),
        ({"pvt_tiny": {"mergers": ["grid"] * 4, "weights": "a"}}, ["models.pvt_tiny", "only its weights"]),
        ({"pvt_tiny": {"base": "pvt_small"}}, ["models.pvt_tiny", "another name"]),
        ({"pvt_tiny": {}}, ["models.pvt_tiny"]),
        ({"pvt_tinny": {"weights": "a"}}, ["models.pvt_tinny", "base", "pvt_tiny"]),
        ({"pvt_small": {"weights": "a"}}, ["models.pvt_small.weights", "train.segmentation"]),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(write, models, facts):
    path = write(None, train=("pvt_tiny",), **models)
    with pytest.raises(UserError) as refused:
        load_experiment(path)
    assert missing_facts(refused.value, str(path), *facts) == []


def test_a_dense_run_without_a_start_is_told_both_ways_to_have_one(write):
    with pytest.raises(UserError) as refused:
        runs_of(write(None, model="mine", mine={"base": "pvt_tiny"}))
    assert missing_facts(refused.value, "train.classification", "models.mine.weights") == []


# The state.


def test_status_tells_that_the_weights_have_changed(write):
    path = write(str(file("pvt.pth")))
    run = runs_of(path)[RUN]
    evaluated(run)
    assert run_state(run).state == "done"
    file("pvt.pth", b"exchanged")
    changed = runs_of(path)[RUN]
    state = run_state(changed)
    known, now = run.weights.sha256[:12], changed.weights.sha256[:12]
    assert state.state == "stale"
    assert state.changes == (f"its starting weights pvt.pth have changed: sha256 {known} -> {now}",)
    shown = CliRunner().invoke(cli, ["explain", "table2/pvt_tiny/miou", "-e", str(path)])
    assert missing_facts(" ".join(shown.output.split()), "stale", known, now) == []

    without = runs_of(write(None, train=("pvt_tiny",)))[RUN]
    (change,) = run_state(without).changes
    assert change == f"its starting weights: {run.weights.text} -> classification/pvt_tiny/seed0"
    evaluated(without)
    (change,) = run_state(changed).changes
    assert change == f"its starting weights: classification/pvt_tiny/seed0 -> {changed.weights.text}"


def test_results_can_be_read_where_the_weights_are_not(write):
    path = write(str(file("pvt.pth")))
    run = runs_of(path)[RUN]
    evaluated(run)
    Path("pvt.pth").unlink()
    assert runs_of(path)[RUN] == run
    assert run_state(runs_of(path)[RUN]).state == "done"
    shutil.rmtree(run.folder)
    assert runs_of(path)[RUN].weights.sha256 is None
    assert run_state(runs_of(path)[RUN]).state == "missing"


# The check.


@pytest.fixture
def tiny(write, monkeypatch):
    """Write an experiment whose dense runs of a tiny model start from a file."""
    monkeypatch.setitem(CATALOG, TINY.name, TINY)
    return lambda weights: write(weights, model=TINY.name)


def check(path: Path) -> str:
    done = CliRunner().invoke(cli, ["check", "-e", str(path)])
    assert done.exit_code == (1 if done.exception else 0)
    assert done.exception is None or isinstance(done.exception, UserError), done.exception
    return "" if done.exception is None else str(done.exception)


def test_check_accepts_weights_that_fit(tiny):
    torch.save({"state_dict": create(TINY, num_classes=5).state_dict()}, "tiny.pth")
    assert check(tiny("tiny.pth")) == ""


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("missing.pth", None, "no such file"),
        (".", None, "folder"),
        ("torn.pth", lambda whole: whole[: len(whole) // 2], "truncated"),
        ("empty.pth", lambda _: b"", "empty"),
    ],
)
def test_check_refuses_files_that_cannot_be_read(tiny, name, content, fact):
    if content is not None:
        torch.save(create(TINY, num_classes=5).state_dict(), "whole.pth")
        file(name, content(Path("whole.pth").read_bytes()))
    assert missing_facts(check(tiny(name)), name, "tiny_resnet", fact) == []


def test_check_refuses_weights_of_another_model(tiny):
    torch.save({"state_dict": {"stem.weight": torch.zeros(3)}}, "other.pth")
    found = check(tiny("other.pth"))
    assert missing_facts(found, "other.pth", "state_dict", "tiny_resnet", "stem.weight", "conv1.0.weight") == []


# Training and evaluation.


@pytest.fixture
def started(tmp_path, monkeypatch) -> Run:
    """A tiny dense run that starts from published weights, without a classification run."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    torch.save({"state_dict": create(TINY, num_classes=9).state_dict()}, "tiny.pth")
    run = tiny_run(tmp_path, "segmentation")
    weights = StartingWeights(Path("tiny.pth"), sha256_of(Path("tiny.pth")))
    return replace(run, parent=None, weights=weights)


def test_a_backbone_starts_from_published_weights(started, capsys):
    backbone = create(TINY, dense=True)
    origin = initialise_backbone(backbone, started, verbose=True)
    state = torch.load("tiny.pth")["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in backbone.body.state_dict().items())
    assert origin["sha256"] == started.weights.sha256
    assert missing_facts(capsys.readouterr().err, started.id, "tiny.pth", "its state_dict") == []


def test_weights_that_change_while_a_training_waits_are_refused(started):
    changed = torch.load("tiny.pth")
    changed["epoch"] = 3
    torch.save(changed, "tiny.pth")
    with pytest.raises(UserError) as refused:
        initialise_backbone(create(TINY, dense=True), started, verbose=False)
    assert missing_facts(refused.value, "tiny.pth", started.weights.sha256, sha256_of(Path("tiny.pth"))) == []


def test_the_record_of_an_evaluation_names_the_weights(started, write_experiment, monkeypatch):
    backbone = create(TINY, dense=True)
    origin = initialise_backbone(backbone, started, verbose=False)
    meta = {"run": started.id, "fingerprint": started.fingerprint, "initialised_from": origin, "training": {}}
    save_checkpoint(started.checkpoint, {"state_dict": {}, "meta": meta})
    metric = Metric(task="segmentation", model=TINY.name, seed=0, name="miou", value=1.0, unit="%")

    class Engine:
        @staticmethod
        def evaluate(run, checkpoint, keep, outputs):
            keep.write_bytes(b"")
            return [metric]

    monkeypatch.setattr("hafabench.engines.evaluation.engine_for", lambda task: Engine)
    record_evaluation(load_experiment(write_experiment()), started)
    record = read_record(started.record)
    assert record.starting_weights.sha256 == started.weights.sha256
    assert json.loads(started.record.read_text())["starting_weights"]["file"] == "tiny.pth"


def test_large_files_are_read_again_only_after_a_change(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("hafabench.files._LARGE", 0)
    monkeypatch.setattr("hafabench.files._RECENT_S", -1e9)
    from hafabench.config.custom_models import WeightsConfig

    config = WeightsConfig(file=file(str(tmp_path / "a.pth"), b"one"))
    first = starting_weights(config, tmp_path).sha256
    assert first == sha256_of(config.file)
    assert len(list((tmp_path / "cache/hafabench/sha256").iterdir())) == 1
    monkeypatch.setattr("hafabench.files.sha256_of", lambda path: pytest.fail("the file was read again"))
    assert starting_weights(config, tmp_path).sha256 == first
    monkeypatch.undo()
    config.file.write_bytes(b"three")
    assert starting_weights(config, tmp_path).sha256 == sha256_of(config.file) != first


def test_missing_weights_are_named_until_a_run_is_trained(write):
    path = write("missing.pth")
    runs = runs_of(path)
    (sentence,) = missing_weights(runs.values())
    assert missing_facts(sentence, "pvt_tiny", "missing.pth") == []
    for run in runs.values():
        write_text(run.checkpoint, "trained")
    assert missing_weights(runs.values()) == []


def test_a_model_that_is_not_trained_can_be_evaluated_with_weights_from_elsewhere(write):
    experiment = load_experiment(write(str(file("pvt.pth"))))
    run = find_run(experiment, "classification/pvt_tiny/seed0", is_trained=False)
    assert (run.parent, run.weights, run.recipe.image_size) == (None, None, 224)
    assert find_run(experiment, RUN) == runs_of(experiment.file)[RUN]
    for identifier, is_trained in (
        ("classification/pvt_tiny/seed0", True),
        ("classification/pvt_tinny/seed0", False),
        ("counting/pvt_tiny/seed0", False),
        ("classification/pvt_tiny", False),
    ):
        with pytest.raises(UserError, match=identifier):
            find_run(experiment, identifier, is_trained=is_trained)
