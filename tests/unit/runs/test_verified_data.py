"""Records that come from different data are told apart, and from the data that is verified now."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.cluster.status import experiment_status, render
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.explain.explain import explain
from hafabench.files import write_text
from hafabench.reporting.frame import collect
from hafabench.reporting.markdown import tables_page
from hafabench.reporting.report import Report
from hafabench.runs.run import expand
from hafabench.runs.state import run_state, store_configuration
from hafabench.runs.verified_data import DataRead, different_data, verified_digests
from tests.support.experiments import evaluated
from tests.support.slurm_commands import RecordedCommands
from tools import synthetic_records

OLD, NEW = "a" * 64, "b" * 64


def hafabench(*words: str) -> None:
    """Run a command in this process; its errors are raised."""
    CliRunner().invoke(cli, words, catch_exceptions=False)


@pytest.fixture
def experiment(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment())


@pytest.fixture
def run(experiment):
    return expand(experiment)["classification/pvt_tiny/seed0"]


def verify(run, train: str, val: str) -> None:
    report = {"identity": run.dataset.identity(), "listings": {"train": train, "val": val}}
    write_text(run.dataset_report, json.dumps(report))


def evaluate(run, train: str | None, val: str | None) -> None:
    """Pretend that a run was trained and evaluated on these data."""
    provenance = synthetic_records.provenance().model_copy(update={"listing_digest": val})
    evaluated(run, provenance=provenance, training={"listing_digest": train})


@pytest.mark.parametrize(
    ("train", "val", "state", "changes"),
    [
        (OLD, OLD, "done", ()),
        (None, None, "done", ()),
        (NEW, OLD, "stale", (f"its training data: {NEW[:12]} -> {OLD[:12]}",)),
        (OLD, NEW, "stale", (f"its validation data: {NEW[:12]} -> {OLD[:12]}",)),
    ],
)
def test_a_record_of_other_data_than_the_verified_is_stale(run, train, val, state, changes):
    verify(run, OLD, OLD)
    evaluate(run, train, val)
    found = run_state(run)
    assert (found.state, found.changes) == (state, changes)


def test_a_training_of_other_data_is_stale_before_it_is_evaluated(run):
    verify(run, OLD, OLD)
    run.work.mkdir(parents=True)
    write_text(run.folder / "config.json", json.dumps(run.resolved() | {"listing_digest": OLD}))
    assert run_state(run).state == "interrupted"
    run.checkpoint.touch()
    assert run_state(run).state == "trained"
    verify(run, NEW, OLD)
    assert run_state(run).changes == (f"its training data: {OLD[:12]} -> {NEW[:12]}",)
    # The command that begins a training keeps the digest until the training has compared its data.
    store_configuration(run)
    assert run_state(run).state == "stale"


def test_data_verified_under_another_configuration_or_by_an_earlier_version_says_nothing(run):
    assert verified_digests(run) == {}
    write_text(run.dataset_report, json.dumps({"identity": run.dataset.identity()}))
    assert verified_digests(run) == {}
    write_text(run.dataset_report, json.dumps({"identity": {}, "listings": {"train": OLD}}))
    assert verified_digests(run) == {}
    write_text(run.dataset_report, "[")
    assert verified_digests(run) == {}


def test_records_of_different_data_are_named_with_their_split():
    read = [DataRead(f"detection/a/seed{seed}", "detection", {"train": OLD, "val": OLD}) for seed in range(5)]
    read += [DataRead("detection/b/seed0", "detection", {"train": OLD, "val": NEW})]
    read += [DataRead("segmentation/b/seed0", "segmentation", {"train": NEW})]
    (sentence,) = different_data([*read, *read])
    assert sentence == (
        f"detection: the records come from different validation data: detection/a/seed0, detection/a/seed1, "
        f"detection/a/seed2 and 2 more from {OLD[:12]}, detection/b/seed0 from {NEW[:12]}; "
        "their numbers cannot be compared"
    )


def test_status_explanation_and_report_name_records_of_different_data(experiment):
    runs = expand(experiment)
    names = ("classification/pvt_tiny/seed0", "classification/pvt_tiny_hafa/seed0")
    for name, digest in zip(names, (OLD, NEW), strict=True):
        evaluate(runs[name], OLD, digest)
    sentence = "classification: the records come from different validation data: "
    status = experiment_status(experiment, runner=RecordedCommands({}))
    assert [note for note in status.notes if note.startswith(sentence)]
    assert sentence in render(status)
    report = Report(experiment, collect([runs[name].record for name in names]), None)
    assert [one for one in report.different_data if one.startswith(sentence)]
    assert sentence in tables_page(report).replace("\\", "")
    notes = explain(experiment, "table1/pvt_tiny_hafa/top1").notes
    assert [one for one in notes if one.startswith(sentence)]


def test_commands_refuse_a_changed_split_and_accept_a_moved_one(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "here"

    def small(content):
        dataset = content["datasets"]["classification"]
        dataset |= {"root": str(root), "images": {"train": 40, "val": 10}}
        dataset["generator"] |= {"image_size": 32}

    file = write_experiment(small)
    prepare = ["data", "prepare", "classification", "-e", str(file)]
    hafabench(*prepare)
    # From here on, the data are as if they had been downloaded.
    content = yaml.safe_load(file.read_text())
    content["datasets"]["classification"]["generator"] = None
    file.write_text(yaml.safe_dump(content))
    hafabench(*prepare)
    run = expand(load_experiment(file))["classification/pvt_tiny/seed0"]
    first = verified_digests(run)
    written = run.dataset_report.stat().st_mtime_ns

    moved = tmp_path / "there"
    root.rename(moved)
    content["datasets"]["classification"]["root"] = str(moved)
    file.write_text(yaml.safe_dump(content))
    hafabench(*prepare)
    assert verified_digests(run) == first
    assert json.loads(run.dataset_report.read_text())["root"] == str(moved)
    # The workflow compares times.
    assert run.dataset_report.stat().st_mtime_ns // 10**6 == written // 10**6

    image = next((moved / "train/digit_0").iterdir())
    shutil.copy(image, moved / "extra.JPEG")
    image.unlink()
    with pytest.raises(UserError) as refused:
        hafabench("train", run.id, "-e", str(file))
    message = str(refused.value)
    assert "the training split has changed: 40 images were verified, and there are 39 now" in message
    assert "hafabench data prepare classification" in message
    assert not run.checkpoint.exists()
