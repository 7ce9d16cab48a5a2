"""Checkpoints whose content has changed, or cannot be the state of a model, are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hafabench.errors import UserError
from hafabench.models import create
from hafabench.models.checkpoints.classifier import load_classifier
from hafabench.models.checkpoints.digest import content_digest
from hafabench.models.checkpoints.final import is_finished
from hafabench.models.checkpoints.foreign import ForeignWeights
from hafabench.models.checkpoints.storage import FORMAT, load_checkpoint, load_strict, save_checkpoint
from tools.tiny_runs.classification import tiny_run


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def final(model: nn.Module, **meta) -> dict:
    return {"state_dict": model.state_dict(), "meta": {"fingerprint": "1" * 12, "seed": 0, **meta}}


@pytest.fixture
def written(tmp_path) -> Path:
    save_checkpoint(tmp_path / "checkpoint.pth", final(small_model()))
    return tmp_path / "checkpoint.pth"


def test_the_digest_is_that_of_the_content():
    model = small_model()
    content = {**final(model), "average": {0: torch.tensor(1, dtype=torch.bfloat16), 1: torch.zeros(0, 3)}}
    digest = content_digest(content)
    again = {name: content[name] for name in reversed(content)}
    again["state_dict"] = {
        name: value.t().contiguous().t() if value.ndim == 2 else value for name, value in model.state_dict().items()
    }
    assert content_digest(again) == digest
    assert content_digest({**content, "digest": digest}, without=["digest"]) == digest
    others = [
        {**content, "more": None},
        {**content, "average": {"0": content["average"][0], 1: torch.zeros(0, 3)}},
        {**content, "average": {0: content["average"][0], 1: torch.zeros(3, 0)}},
        {**content, "average": {0: content["average"][0].half(), 1: torch.zeros(0, 3)}},
        {**content, "meta": {**content["meta"], "seed": False}},
        {**content, "meta": {**content["meta"], "seed": [0]}},
        {**content, "meta": {**content["meta"], "seed": (0,)}},
    ]
    assert len({digest, *map(content_digest, others)}) == len(others) + 1


def test_a_flipped_byte_of_the_weights_is_found(written):
    value = load_checkpoint(written)["state_dict"]["0.weight"].numpy().tobytes()
    content = bytearray(written.read_bytes())
    content[content.index(value) + 5] ^= 0x40
    written.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint\.pth: digest: the content has changed.*restore the file"):
        load_checkpoint(written)
    with pytest.raises(UserError, match="the content has changed"):
        ForeignWeights(written)


def test_no_flipped_byte_changes_what_is_read(written):
    def read() -> str:
        found = load_checkpoint(written)
        return content_digest({name: found.get(name) for name in ("format", "state_dict", "meta")})

    expected, content = read(), written.read_bytes()
    refused = 0
    for place in range(0, len(content), 23):
        written.write_bytes(content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :])
        try:
            assert read() == expected, place
        except UserError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("key", ["state_dict", "meta"])
def test_content_that_was_written_by_another_program_is_found(written, key):
    content = torch.load(written, weights_only=True)
    content[key] = {**content[key], "seed": torch.zeros(1)}
    torch.save(content, written)
    with pytest.raises(UserError, match="the content has changed"):
        load_checkpoint(written)


def test_checkpoints_of_earlier_versions_have_no_digest(written):
    content = torch.load(written, weights_only=True)
    del content["digest"]
    torch.save(content, written)
    assert load_checkpoint(written).keys() == {"format", "state_dict", "meta"}
    assert content["format"] == FORMAT


BAD = {
    "nan": (lambda value: value.fill_(torch.nan), "not finite"),
    "infinity": (lambda value: value.fill_(-torch.inf), "not finite"),
    "integers": (lambda value: value.long(), "expected data type torch.float32, found torch.int64"),
    "truth values": (lambda value: value.bool(), "expected data type torch.float32, found torch.bool"),
    "complex numbers": (lambda value: value.to(torch.complex64), "found torch.complex64"),
    "half precision": (lambda value: value.half(), "found torch.float16"),
    "double precision": (lambda value: value.double(), "found torch.float64"),
    "another shape": (lambda value: value[..., None], "expected shape"),
    "sparse": (lambda value: value.to_sparse(), "expected a dense tensor"),
    "no values": (lambda value: value.to("meta"), "expected a dense tensor"),
    "a number": (lambda value: 0.5, "expected a tensor, found float"),
    "nothing": (lambda value: None, "expected a tensor, found NoneType"),
}


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
@pytest.mark.parametrize("kind", BAD)
def test_weights_and_statistics_that_are_no_finite_floats_are_refused(kind, name):
    change, message = BAD[kind]
    model = small_model()
    state = dict(model.state_dict())
    before = {key: value.clone() for key, value in state.items()}
    state[name] = change(state[name].clone())
    with pytest.raises(UserError, match=rf"x\.pth: {name}: .*{message}"):
        load_strict(model, state, Path("x.pth"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("state", [None, [], "weights", torch.zeros(3)], ids=["none", "list", "text", "tensor"])
def test_something_else_than_weights_by_name_is_refused(state):
    with pytest.raises(UserError, match="expected weights by name"):
        load_strict(small_model(), state, Path("x.pth"))


def test_a_counter_of_batches_is_an_integer():
    model = small_model()
    state = {**model.state_dict(), "1.num_batches_tracked": torch.tensor(1.0)}
    with pytest.raises(UserError, match=r"expected data type torch\.int64, found torch\.float32"):
        load_strict(model, state, Path("x.pth"))


def test_only_a_complete_and_unchanged_checkpoint_of_the_run_is_finished(tmp_path):
    run = tiny_run(tmp_path / "run", images=tmp_path)
    assert not is_finished(run)
    meta = {"fingerprint": run.fingerprint}
    save_checkpoint(run.checkpoint, {"state_dict": {"a": torch.ones(2)}, "meta": meta})
    assert is_finished(run)
    whole = run.checkpoint.read_bytes()
    place = whole.index(torch.ones(2).numpy().tobytes())
    broken = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "flipped": whole[:place] + b"\x01" + whole[place + 1 :],
    }
    for kind, content in broken.items():
        run.checkpoint.write_bytes(content)
        assert not is_finished(run), kind
    save_checkpoint(run.checkpoint, {"meta": {**meta, "collapse": {}}})
    assert is_finished(run)
    for content in (
        {"meta": meta},
        {"state_dict": {}, "meta": {"fingerprint": "0" * 12}},
        {"state_dict": {}, "meta": None},
        {"state_dict": {}},
    ):
        save_checkpoint(run.checkpoint, content)
        assert not is_finished(run), content


FOREIGN = {
    "nan": (lambda value: value * torch.nan, "some weights are not finite"),
    "beyond single precision": (lambda value: torch.full_like(value, 1e300, dtype=torch.double), "are not finite"),
    "integers": (lambda value: value.long(), "expected floating-point numbers, found torch.int64"),
    "truth values": (lambda value: value.bool(), "expected floating-point numbers, found torch.bool"),
    "complex numbers": (lambda value: value + 0j, "expected floating-point numbers, found torch.complex64"),
    "no values": (lambda value: value.to("meta"), "expected dense tensors, found others"),
}


@pytest.mark.parametrize("name", ["fc.weight", "bn1.running_var"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_weights_that_are_no_finite_floats_are_refused(tmp_path, kind, name):
    run = tiny_run(tmp_path / "run", images=tmp_path, model="tiny_resnet")
    model = create(run.model, num_classes=3)
    state = dict(model.state_dict())
    change, message = FOREIGN[kind]
    torch.save({**state, name: change(state[name])}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        ForeignWeights(tmp_path / "weights.pth").fill(model, run, tmp_path)


def test_foreign_weights_may_have_any_precision_but_no_counters_that_are_fractions(tmp_path):
    run = tiny_run(tmp_path / "run", images=tmp_path, model="tiny_resnet")
    model = create(run.model, num_classes=3)
    state = dict(model.state_dict())
    torch.save({**state, "fc.weight": state["fc.weight"].half()}, tmp_path / "weights.pth")
    ForeignWeights(tmp_path / "weights.pth").fill(model, run, tmp_path)
    assert torch.equal(model.state_dict()["fc.weight"], state["fc.weight"].half().float())
    torch.save({**state, "bn1.num_batches_tracked": torch.tensor(0.5)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"num_batches_tracked: expected integers, found torch\.float32"):
        ForeignWeights(tmp_path / "weights.pth").fill(model, run, tmp_path)


BACKBONE = {
    "nan": (lambda value: value * torch.nan, "some values are not finite"),
    "integers": (lambda value: value.long(), "expected data type"),
    "a number": (lambda value: 0.5, "expected a dense tensor"),
    "flat": (lambda value: value.flatten(), "expected shape"),
}


@pytest.mark.parametrize("name", ["stage2.pos_embed", "head.weight"])
@pytest.mark.parametrize("kind", BACKBONE)
def test_a_classifier_gives_a_backbone_finite_floats_only(kind, name):
    small = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 40, 64)}
    state = dict(create("pvt_tiny", num_classes=3, **small).state_dict())
    change, message = BACKBONE[kind]
    state[name] = change(state[name])
    backbone = create("pvt_tiny", dense=True, **small)
    if name == "head.weight" and kind in ("integers", "flat"):
        load_classifier(backbone, state)
        return
    with pytest.raises(UserError, match=f"{name}: {message}"):
        load_classifier(backbone, state)
