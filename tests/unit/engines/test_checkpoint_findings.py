"""The links from a run to its checkpoint, and from the checkpoint to the record that was made from it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hafabench.engines.trained import checkpoint_findings, fill_trained, identity, is_trained
from hafabench.errors import UserError
from hafabench.files import sha256_of
from hafabench.models import create
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.results.record import Collapse, Record
from hafabench.runs.run import Run
from tools import synthetic_records
from tools.tiny_runs.classification import tiny_run

TRAINING = {"listing_digest": "0" * 64, "steps": 9, "packages": {"torch": "2"}, "shape": [1, 2]}


@pytest.fixture
def run(tmp_path) -> Run:
    made = tiny_run(tmp_path / "run", images=tmp_path, model="tiny_resnet")
    torch.manual_seed(0)
    weights = create(made.model, num_classes=3).state_dict()
    training = {**TRAINING, "shape": (1, 2)}
    save_checkpoint(made.checkpoint, {"state_dict": weights, "meta": {**identity(made), "training": training}})
    return made


def record_of(run: Run, **changes: Any) -> Record:
    record = synthetic_records.evaluation(
        run.task, run.model.name, run.seed, {"top1": 50.0}, fingerprint=run.fingerprint
    )
    provenance = record.provenance.model_copy(update={"checkpoint_sha256": sha256_of(run.checkpoint)})
    return record.model_copy(update={"provenance": provenance, "training": TRAINING, **changes})


def says(run: Run, record: Record | None = None) -> list[str]:
    return [str(finding) for finding in checkpoint_findings(run, record) or []]


def test_a_checkpoint_that_holds(run):
    assert checkpoint_findings(run) == checkpoint_findings(run, record_of(run)) == []
    run.checkpoint.unlink()
    assert checkpoint_findings(run) is None


def edited(run: Run, /, **meta: Any) -> None:
    content = load_checkpoint(run.checkpoint)
    save_checkpoint(run.checkpoint, {**content, "meta": {**content["meta"], **meta}})


def test_a_replaced_checkpoint_is_found_by_its_record(run):
    record = record_of(run)
    content = load_checkpoint(run.checkpoint)
    content["state_dict"]["fc.bias"] += 1
    save_checkpoint(run.checkpoint, content)
    assert checkpoint_findings(run) == []
    (finding,) = checkpoint_findings(run, record)
    assert f"{run.id} was evaluated with" in finding.says
    assert (finding.link, finding.file) == ("checkpoint", str(run.checkpoint))


def test_the_training_in_the_record_is_that_of_the_checkpoint(run):
    training = {**TRAINING, "git_commit": "f" * 40}
    (said,) = says(run, record_of(run, training=training))
    assert "meta.training: differs from `training` in the record" in said


@pytest.mark.parametrize("change", [{"seed": 1}, {"model": "other"}, {"fingerprint": "0" * 12}, {"run": 5}], ids=str)
def test_a_checkpoint_of_another_run_is_found(run, change):
    edited(run, **change)
    key, value = next(iter(change.items()))
    assert any(f"meta.{key}" in said and repr(value) in said for said in says(run))


@pytest.mark.parametrize("key", ["state_dict", "average"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_values_that_are_not_finite_are_found(run, key, value):
    content = load_checkpoint(run.checkpoint)
    content[key] = {**content["state_dict"], "fc.bias": torch.full((3,), value)}
    save_checkpoint(run.checkpoint, content)
    (said,) = says(run)
    assert "fc.bias: some values are not finite" in said


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"state_dict": 5}], ids=["none", "empty", "number"])
def test_a_checkpoint_without_weights_is_found(run, content):
    save_checkpoint(run.checkpoint, {**content, "meta": identity(run)})
    (said,) = says(run)
    assert "expected weights by name" in said


def test_a_collapse_has_no_weights(run):
    collapse = Collapse(run=run.id, step=3, reason="the loss is nan")
    meta = {**identity(run), "collapse": collapse.model_dump(), "training": TRAINING}
    save_checkpoint(run.checkpoint, {"meta": meta})
    assert checkpoint_findings(run, record_of(run, metrics=[], collapse=collapse)) == []
    other = collapse.model_copy(update={"step": 4})
    assert ["meta.collapse" in said for said in says(run, record_of(run, metrics=[], collapse=other))] == [True]
    save_checkpoint(run.checkpoint, {"meta": {**meta, "collapse": {"step": "x"}}})
    assert "meta.collapse of a final checkpoint" in says(run)[0]


def test_a_parent_that_was_trained_again_is_found(run, tmp_path):
    child = replace(tiny_run(tmp_path / "child", images=tmp_path, model="tiny_resnet", seed=1), parent=run)
    weights = load_checkpoint(run.checkpoint)["state_dict"]
    origin = {"run": run.id, "path": str(run.checkpoint), "sha256": sha256_of(run.checkpoint)}
    save_checkpoint(
        child.checkpoint, {"state_dict": weights, "meta": {**identity(child), "initialised_from": origin}}
    )
    assert checkpoint_findings(child) == []
    edited(run, note="trained again")
    (said,) = says(child)
    assert "meta.initialised_from" in said and str(run.checkpoint) in said


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    place = content.index(load_checkpoint(file)["state_dict"]["fc.bias"].numpy().tobytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_flipped_byte_is_found_and_refused_with_the_way_out(run):
    flip(run.checkpoint)
    (said,) = says(run)
    assert "digest: the content has changed since the checkpoint was written" in said
    advice = rf"delete it; `hafabench train {run.id}` then trains the run again"
    for use in (lambda: is_trained(run), lambda: fill_trained(create(run.model, num_classes=3), run, run.checkpoint)):
        with pytest.raises(UserError, match=advice):
            use()


def test_weights_that_are_not_finite_are_refused_with_the_way_out(run):
    content = load_checkpoint(run.checkpoint)
    content["state_dict"]["bn1.running_mean"] += math.nan
    save_checkpoint(run.checkpoint, content)
    with pytest.raises(UserError, match=r"bn1\.running_mean: some values are not finite.*\n.*trains the run again"):
        fill_trained(create(run.model, num_classes=3), run, run.checkpoint)
