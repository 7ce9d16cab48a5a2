"""Training and evaluation read the data that was verified, and tell data apart that has changed since."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from hafabench.data.prepare import prepare_dataset
from hafabench.data.report import compared_digest, read_report
from hafabench.engines import classification
from hafabench.engines.evaluation import record_evaluation
from hafabench.engines.interrupt import STOP_AFTER
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.runs.run import Run
from hafabench.runs.state import run_state
from tools.tiny_runs.classification import make_images, tiny_run


@pytest.fixture
def run(tmp_path) -> Run:
    make_images(tmp_path / "images")
    made = tiny_run(tmp_path / "run", images=tmp_path / "images", checkpoint_every=1)
    made = replace(made, dataset_report=tmp_path / "classification.json")
    prepare_dataset(made.dataset, made.dataset_report)
    return made


def exchange(run: Run, split: str, name: str = "class0/0.png") -> None:
    """Replace an image by another one of another size in bytes."""
    Image.new("RGB", (40, 30)).save(run.dataset.root / split / name)


def training_digest(run: Run) -> str:
    return load_checkpoint(run.checkpoint)["meta"]["training"]["listing_digest"]


def test_training_stores_what_it_read_and_repeats_itself_only_for_other_data(run, monkeypatch, capfd):
    classification.train(run)
    first = read_report(run.dataset_report).listings["train"]
    assert training_digest(run) == json.loads((run.folder / "config.json").read_text())["listing_digest"] == first
    # Other validation images concern the evaluation and not the training.
    exchange(run, "val")
    monkeypatch.setattr("hafabench.engines.evaluation.Stopwatch", lambda _experiment: None)
    with pytest.raises(UserError, match="the validation split has changed"):
        record_evaluation(None, run)
    prepare_dataset(run.dataset, run.dataset_report)
    classification.train(run)
    assert "already trained" in capfd.readouterr().err
    exchange(run, "train")
    prepare_dataset(run.dataset, run.dataset_report)
    assert run_state(run).state == "stale"
    with pytest.raises(UserError, match=f"its training data: .* `hafabench train {run.id}` trains the run again"):
        record_evaluation(None, run)
    classification.train(run)
    assert "is of another configuration or other training data: training starts over" in capfd.readouterr().err
    assert training_digest(run) == read_report(run.dataset_report).listings["train"] != first


def test_a_state_of_other_data_is_not_resumed(run, monkeypatch, capfd):
    monkeypatch.setenv(STOP_AFTER, "1e-9")
    for _ in range(2):
        with pytest.raises(SystemExit):
            classification.train(run)
    assert "resumed after step 1" in capfd.readouterr().err
    exchange(run, "train")
    prepare_dataset(run.dataset, run.dataset_report)
    with pytest.raises(SystemExit):
        classification.train(run)
    told = capfd.readouterr().err
    assert "belongs to other training data: training starts over" in told
    assert "stopped after step 1 " in told


@pytest.mark.parametrize(("split", "name"), [("train", "training"), ("val", "validation")])
def test_files_that_changed_since_they_were_verified_are_refused(run, split, name):
    folder = run.dataset.root / split
    verified = compared_digest(run.dataset, split, run.dataset_report)
    assert verified == read_report(run.dataset_report).listings[split]
    exchange(run, split)
    with pytest.raises(UserError, match=rf"{folder}: the {name} split has changed: other files than the \d+ images"):
        compared_digest(run.dataset, split, run.dataset_report)
    # Without a report, or with one about another configuration, nothing is known.
    assert compared_digest(run.dataset, split, None) != verified
    other = run.dataset.model_copy(update={"images": {"train": 1, "val": 1}})
    assert compared_digest(other, split, run.dataset_report) != verified
    (folder / "class0/0.png").unlink()
    with pytest.raises(UserError, match=r"images were verified, and there are \d+ now; run `hafabench data prepare"):
        compared_digest(run.dataset, split, run.dataset_report)
    (folder / "class0/0.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"0\.png: a link to nowhere\.png, which does not exist"):
        compared_digest(run.dataset, split, run.dataset_report)


def test_reports_of_earlier_versions_are_compared_by_their_counts(run):
    content = json.loads(run.dataset_report.read_text())
    del content["listings"], content["notes"]
    run.dataset_report.write_text(json.dumps(content))
    exchange(run, "val")
    compared_digest(run.dataset, "val", run.dataset_report)
    (run.dataset.root / "val/class0/0.png").unlink()
    with pytest.raises(UserError, match="the validation split has changed"):
        compared_digest(run.dataset, "val", run.dataset_report)
