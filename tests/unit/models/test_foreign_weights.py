"""Checkpoints of other code bases: supported formats and names, and errors that name every tensor."""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from click.testing import CliRunner
from torch import nn

from hafabench.cli import cli
from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import load_experiment
from hafabench.data.prepare import prepare_dataset
from hafabench.errors import UserError
from hafabench.models import create
from hafabench.models.checkpoints.foreign import ForeignWeights
from hafabench.models.checkpoints.published import fit
from hafabench.reporting.frame import collect_experiment
from hafabench.results.predictions import read_predictions
from hafabench.results.record import read_record
from hafabench.runs.paths import dataset_report
from hafabench.runs.run import expand
from tests.support.messages import missing_facts
from tests.support.mmdet_weights import mmdet_state
from tests.support.published_names import published

SMALL = {"num_classes": 7, "depths": (1, 2, 1, 2), "embed_dims": (8, 16, 40, 64)}
HAFA = CATALOG["pvt_tiny_hafa"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def dense(body: nn.Module) -> nn.Module:
    """A dense model that is nothing but a backbone and a convolution as its neck has them."""
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.body = body
    model.neck = nn.Module()
    model.neck.lateral_convs = nn.ModuleList([nn.Conv2d(4, 4, 1)])
    return model


def assert_equal(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())


# Names.


def test_the_published_names_of_pvt_are_those_of_its_repository():
    """Independent of our names: a sample of the published PVT-Tiny's, with its shapes."""
    weights = published(create("pvt_tiny").state_dict())
    shapes = {
        "patch_embed1.proj.weight": (64, 3, 4, 4),
        "patch_embed4.norm.bias": (512,),
        "pos_embed1": (1, 3136, 64),
        "pos_embed4": (1, 50, 512),
        "block1.0.attn.sr.weight": (64, 64, 8, 8),
        "block1.1.attn.norm.weight": (64,),
        "block3.1.attn.q.weight": (320, 320),
        "block3.0.attn.kv.bias": (640,),
        "block4.1.mlp.fc1.weight": (2048, 512),
        "block2.0.norm1.weight": (128,),
        "norm.weight": (512,),
        "cls_token": (1, 1, 512),
        "head.weight": (1000, 512),
    }
    assert {name: tuple(weights[name].shape) for name in shapes} == shapes
    roots = {re.sub(r"\d.*", "", name) for name in weights}
    assert roots == {"patch_embed", "pos_embed", "block", "norm.weight", "norm.bias", "cls_token"} | {
        "head.weight",
        "head.bias",
    }


@torch.no_grad()
def test_published_pvt_gives_the_same_logits():
    source, target = create("pvt_tiny", **SMALL).eval(), create("pvt_tiny", **SMALL).eval()
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(source(x), target(x))
    fitted = fit(target, published(source.state_dict()), CATALOG["pvt_tiny"], {})
    target.load_state_dict(fitted.state)
    assert torch.equal(source(x), target(x))
    assert (fitted.naming, fitted.dropped) == ("names of the published PVT code", ())


def test_published_pvt_v2_is_read_by_timm_and_tcformer_by_its_own_names():
    model = timm.create_model("pvt_v2_b0", num_classes=7)
    theirs = {}
    for name, value in model.state_dict().items():
        name = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"patch_embed{int(m[1]) + 1}", name)
        name = re.sub(r"^stages\.(\d)\.blocks", lambda m: f"block{int(m[1]) + 1}", name)
        name = re.sub(r"^stages\.(\d)\.norm", lambda m: f"norm{int(m[1]) + 1}", name)
        theirs[name.replace("patch_embed.", "patch_embed1.").replace(".dwconv.", ".dwconv.dwconv.")] = value
    fitted = fit(model, theirs, CATALOG["pvt_v2_b1"], {})
    assert_equal(fitted.state, model.state_dict())
    assert fitted.naming == "names that timm loads"

    tokens = create("pvt_v2_b1_sia_sia_sia", **SMALL)
    theirs = {}
    for name, value in published(tokens.state_dict()).items():
        for stage in (2, 3):
            merger = f"stage{stage}.merger."
            for ours, their in (("map_conv", "conv"), ("token_proj", "conv.skip"), ("token_norm", "norm")):
                name = name.replace(f"{merger}{ours}.", f"ctm{stage - 1}.{their}.")
            name = name.replace(f"{merger}score.", f"ctm{stage - 1}.score.")
        theirs[name] = value[..., None] if name.startswith("ctm") and name.endswith("skip.weight") else value
    assert {name.split(".")[0] for name in theirs if name.startswith("ctm")} == {"ctm1", "ctm2", "ctm3"}
    assert_equal(fit(tokens, theirs, CATALOG["pvt_v2_b1_sia_sia_sia"], {}).state, tokens.state_dict())


def test_mmdets_pvt_in_a_dense_model():
    body = create("pvt_tiny", dense=True, depths=(1, 2, 1, 2))
    model = dense(body)
    weights = {f"backbone.{name}": value for name, value in mmdet_state(body).items()}
    # mmdet wraps the neck's convolutions.
    convolution = model.neck.lateral_convs[0].state_dict()
    weights |= {f"neck.lateral_convs.0.conv.{leaf}": value for leaf, value in convolution.items()}
    fitted = fit(model, weights, CATALOG["pvt_tiny"], {})
    expected = model.state_dict()
    # The class token's row of the embedding, which no dense model reads, is not among mmdet's weights.
    name = "backbone.body.stage4.pos_embed"
    assert not fitted.state[name][:, 0].any()
    expected[name] = torch.cat((fitted.state[name][:, :1], expected[name][:, 1:]), dim=1)
    assert_equal(fitted.state, expected)
    assert fitted.naming == "mmdet's names of PVT"


def test_a_classifiers_leftovers_are_dropped_in_a_dense_model_only():
    classifier, body = create("pvt_tiny", **SMALL), create("pvt_tiny", dense=True, **SMALL)
    model = dense(body)
    weights = {f"backbone.{name}": value for name, value in published(classifier.state_dict()).items()}
    neck = {f"neck.{name}": value for name, value in model.neck.state_dict().items()}
    fitted = fit(model, weights | neck, CATALOG["pvt_tiny"], {})
    (sentence,) = fitted.dropped
    assert sentence.startswith("dropped, because only classification uses it: ")
    dropped = set(sentence.split(": ")[1].split(", "))
    assert dropped == {f"backbone.{n}" for n in ("cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias")}
    headless = create("pvt_tiny", **(SMALL | {"num_classes": 0}))
    with pytest.raises(UserError, match=r"unknown to the model: head\.weight, head\.bias"):
        fit(headless, published(classifier.state_dict()), CATALOG["pvt_tiny"], {})


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_missing_batch_counters(wrapper):
    model = create("pvt_tiny_hafa", **SMALL)
    weights = {wrapper + n: v for n, v in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert_equal(fit(model, weights, HAFA, {}).state, model.state_dict())


# Dead weights.


def dead(width: int = 64) -> dict[str, torch.Tensor]:
    return {
        "ctm3.unused_proj.weight": torch.randn(width, width, 1),
        "ctm3.unused_proj.bias": torch.randn(width),
        "ctm3.unused_norm.weight": torch.randn(width),
        "ctm3.unused_norm.bias": torch.randn(width),
        "cls_token": torch.randn(1, 1, width),
    }


def test_dead_weights_of_the_published_hafa_are_recognised_by_their_shapes():
    model = create("pvt_tiny_hafa", **SMALL)
    fitted = fit(model, published(model.state_dict()) | dead(), HAFA, {})
    assert_equal(fitted.state, model.state_dict())
    (sentence,) = fitted.dropped
    assert sentence.startswith("dropped, because the published class never uses it (no gradient reaches it): ")
    assert set(sentence.rpartition("): ")[2].split(", ")) == set(dead())


@pytest.mark.parametrize(
    ("extra", "left"),
    [
        # Another width, and a second projection: not what the published class is known to hold.
        ({"ctm3.more.weight": torch.zeros(32, 32)}, "ctm3.more.weight"),
        ({"a.weight": torch.zeros(64, 64), "a.bias": torch.zeros(64)}, "a.weight, a.bias"),
    ],
)
def test_nothing_else_is_dropped(extra, left):
    model = create("pvt_tiny_hafa", **SMALL)
    with pytest.raises(UserError) as caught:
        fit(model, published(model.state_dict()) | dead() | extra, HAFA, {})
    assert str(caught.value) == f"unknown to the model: {left}"


def test_nothing_is_dead_where_something_is_missing_or_where_the_class_has_no_such_weights():
    model = create("pvt_tiny_hafa", **SMALL)
    weights = published(model.state_dict()) | dead()
    del weights["ctm3.score.bias"]
    with pytest.raises(UserError) as caught:
        fit(model, weights, HAFA, {})
    missing, unknown = str(caught.value).splitlines()
    assert missing == "missing in the file: stage4.merger.score.bias"
    assert unknown == f"unknown to the model: {', '.join(dead())}"
    qkv = create("pvt_tiny_hafa_qkv", **SMALL)
    with pytest.raises(UserError, match="unknown to the model: ctm3"):
        fit(qkv, published(qkv.state_dict()) | dead(), CATALOG["pvt_tiny_hafa_qkv"], {})


# Refusals.


def test_every_mismatch_is_listed_in_one_error():
    model = create("pvt_tiny", **SMALL)
    weights = published(model.state_dict())
    del weights["cls_token"], weights["block2.1.mlp.fc1.bias"]
    weights["head.weight"] = torch.zeros(1000, 64)
    weights["extra.gamma"] = torch.zeros(3)
    with pytest.raises(UserError) as caught:
        fit(model, weights, CATALOG["pvt_tiny"], {})
    assert str(caught.value).splitlines() == [
        "missing in the file: stage2.blocks.1.mlp.fc1.bias, stage4.cls_token",
        "unknown to the model: extra.gamma",
        "head.weight: expected shape (7, 64), found (1000, 64)",
    ]


def test_unknown_names_get_a_suggestion_that_works():
    model = create("pvt_tiny_hafa", **SMALL)
    weights = {name.replace("stage2.merger.offset", "patch_embed2.off"): v for name, v in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        fit(model, weights, HAFA, {})
    suggestion = "--rename patch_embed2.off=stage2.merger.offset"
    assert str(caught.value).splitlines()[-1] == f"renames that the shapes suggest: {suggestion}"
    renames = dict([suggestion.removeprefix("--rename ").split("=")])
    assert_equal(fit(model, weights, HAFA, renames).state, model.state_dict())
    with pytest.raises(UserError, match=r"--rename patch_embed3\.off: no tensor name in the file begins with this"):
        fit(model, weights, HAFA, renames | {"patch_embed3.off": "x"})


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_objects_are_never_unpickled(tmp_path, archive):
    file, witness = tmp_path / "weights.pth", tmp_path / "witness"
    content = {"state_dict": {"a": torch.zeros(1)}, "hook": Hostile(witness)}
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=r"contains Python objects other than tensors.*safetensors") as caught:
        ForeignWeights(file)
    assert len(caught.value.problems) == 1
    assert not witness.exists()
    if archive:
        assert "mkdir" in str(caught.value)


def whole_file(tmp_path: Path, archive: bool) -> bytes:
    path = tmp_path / "whole"
    torch.save({"a": torch.arange(100)}, path, _use_new_zipfile_serialization=archive)
    return path.read_bytes()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "empty"),
        (b"hello", "not a readable"),
        (b"\x80\x04K\x01.", "not a readable"),
        (b"PK\x03\x04half", "truncated"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\xef\xbb\xbf<html>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (b'{"error": "not found"}', "not a readable"),
        (gzip.compress(b"weights"), "gzip"),
        (zipped(**{"model.pth": b"weights"}), "model.pth"),
        ((10**6).to_bytes(8, "little") + b"{}", "truncated"),
        ((2).to_bytes(8, "little") + b"{]", "damaged"),
    ],
    # gzip and zip files contain the time, and the ids of tests must not.
    ids=[
        *["empty", "text", "pickle", "truncated-zip", "lfs-pointer", "html", "html-with-mark", "xml", "json"],
        *["gzip", "zip", "truncated-safetensors", "damaged-safetensors"],
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, name, content, fact):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        ForeignWeights(tmp_path / name)
    assert missing_facts(refused.value, name, fact) == []


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_a_file_that_is_cut_anywhere_is_refused_in_one_sentence(tmp_path, archive):
    whole = whole_file(tmp_path, archive)
    file = tmp_path / "torn.pth"
    for end in range(1, len(whole), 97):
        file.write_bytes(whole[:end])
        with pytest.raises(
            UserError, match=r"torn\.pth: (not a readable checkpoint|contains Python objects)"
        ) as refused:
            ForeignWeights(file)
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, archive):
    whole = whole_file(tmp_path, archive)
    file = tmp_path / "damaged.pth"
    for start in range(0, len(whole) - 40, 97):
        file.write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
        # A change within the numbers of a tensor is not always noticed.
        with suppress(UserError):
            ForeignWeights(file)


def test_folders_and_missing_files(tmp_path):
    for path, fact in ((tmp_path, "folder"), (tmp_path / "none.pth", "no such file")):
        with pytest.raises(UserError) as refused:
            ForeignWeights(path)
        assert missing_facts(refused.value, path, fact) == []


@pytest.mark.parametrize("written", ["weights.pth", "weights.bin", "weights"])
def test_safetensors_are_recognised_by_their_content(tmp_path, written):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / written)
    assert list(ForeignWeights(tmp_path / written).tensors) == ["a"]
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert list(ForeignWeights(tmp_path / "other.safetensors").tensors) == ["a"]


def test_a_module_saved_as_a_whole_is_refused_with_its_class(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(UserError) as refused:
        ForeignWeights(tmp_path / "module.pth")
    assert missing_facts(refused.value, "module.pth", "torch.nn.modules.linear.Linear", "state_dict") == []


def test_a_torchscript_module_is_refused(tmp_path):
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    torch.jit.trace(Double(), torch.zeros(1)).save(str(tmp_path / "script.pth"))
    with pytest.raises(UserError, match=r"script\.pth: a TorchScript module"):
        ForeignWeights(tmp_path / "script.pth")


WEIGHTS = {"a.weight": torch.zeros(1), "b.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ({"model": {**WEIGHTS, "epoch": 3}}, ["model: ", "expected tensors only", "epoch (int)"]),
        ({"state_dict": {**WEIGHTS, "head": None}}, ["state_dict: ", "head (nothing)"]),
        ({"state_dict": {**WEIGHTS, "buffers": {"x": 1}}}, ["state_dict: ", "buffers (a mapping with x)"]),
        ({**WEIGHTS, "epoch": 3}, ["expected tensors only", "epoch (int)"]),
        ({"model": {"module": WEIGHTS}}, ["model.module", "--part", "`part`"]),
        ({"net": WEIGHTS, "epoch": 3}, ["weights in net", "--part"]),
        ({"model": {}}, ["model: ", "an empty mapping"]),
        ({"model": None, "epoch": 3}, ["model: ", "found nothing"]),
        ({"model": "resnet50", "epoch": 3}, ["model: ", "found str"]),
        ({"model": {"width": 3}}, ["model: ", "expected tensors only", "width (int)"]),
        ({"model": {0: torch.zeros(1)}}, ["model: ", "names of tensors as text", "0"]),
        ({"optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}}, "epoch": 3}, ["no weights", "optimizer, epoch"]),
        ({"a": torch.zeros(2, 2).to_sparse()}, ["dense tensors", "a"]),
        ([torch.zeros(1)], ["expected weights by name", "list"]),
        (torch.zeros(1), ["expected weights by name", "Tensor"]),
        ({}, ["no weights", "nothing"]),
    ],
    ids=str,
)
def test_what_is_no_set_of_weights_is_named(tmp_path, content, facts):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError) as refused:
        ForeignWeights(tmp_path / "weights.pth")
    assert missing_facts(refused.value, "weights.pth", *facts) == []


def test_nested_weights_are_chosen_by_a_name_with_dots(tmp_path):
    torch.save({"model": {"module": WEIGHTS, "ema.1": WEIGHTS}}, tmp_path / "weights.pth")
    assert ForeignWeights(tmp_path / "weights.pth", "model.module").part == "model.module"
    with pytest.raises(UserError, match=r"model\.teacher: expected weights by name, found nothing; .*model\.module"):
        ForeignWeights(tmp_path / "weights.pth", "model.teacher")


@pytest.mark.parametrize("wrapper", ["module.", "module.model.", "model."])
def test_prefixes_of_trainers(wrapper):
    model = create("pvt_tiny_hafa", **SMALL)
    weights = {wrapper + name: value for name, value in model.state_dict().items()}
    assert_equal(fit(model, {"n_averaged": torch.tensor(3), **weights}, HAFA, {}).state, model.state_dict())


def test_quantized_integers_are_no_weights():
    model = create("pvt_tiny", **SMALL)
    weights = model.state_dict() | {"head.weight": torch.zeros(7, 64, dtype=torch.int8)}
    with pytest.raises(UserError, match=r"head\.weight: expected floating-point numbers, found torch\.int8"):
        fit(model, weights, CATALOG["pvt_tiny"], {})


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"a": torch.zeros(1)}, ""),
        ({"model": {"a": torch.zeros(1)}, "epoch": 3}, "model"),
        ({"state_dict": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=0.1)}, "state_dict"),
    ],
)
def test_where_weights_are_found(tmp_path, content, part):
    torch.save(content, tmp_path / "weights.pth")
    weights = ForeignWeights(tmp_path / "weights.pth")
    assert (weights.part, list(weights.tensors)) == (part, ["a"])


def test_two_sets_of_weights_are_distinguished_by_name(tmp_path):
    file = tmp_path / "last.pth.tar"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}, "epoch": 3}, file)
    with pytest.raises(UserError, match=r"weights in state_dict and state_dict_ema.*--part"):
        ForeignWeights(file)
    assert ForeignWeights(file, "state_dict_ema").tensors["a"] == 1
    with pytest.raises(UserError, match=r"epoch: expected weights by name, found int; .* state_dict, state_dict_ema"):
        ForeignWeights(file, "epoch")
    torch.save({"optimizer": {}, "epoch": 3}, file)
    with pytest.raises(UserError, match=r"no weights in state_dict or model or .*it contains optimizer, epoch"):
        ForeignWeights(file)


# The verb.


@pytest.fixture
def experiment(write_experiment, monkeypatch, tmp_path):
    def shrink(content):
        content["datasets"]["classification"]["images"] = {"train": 64, "val": 20}
        content["datasets"]["classification"]["generator"]["image_size"] = 32
        content["overrides"][0]["set"] |= {"image_size": 32}

    path = write_experiment(shrink)
    monkeypatch.chdir(tmp_path)
    loaded = load_experiment(path)
    prepare_dataset(loaded.config.datasets["classification"], dataset_report(loaded, "classification"))
    return loaded


def test_published_weights_are_evaluated_as_a_run_and_marked(experiment):
    run = expand(experiment)["classification/pvt_tiny/seed0"]
    state = published(create("pvt_tiny", num_classes=10).state_dict())
    torch.save({"model": state}, "published.pth")
    command = ["evaluate", run.id, "-e", str(experiment.file), "--weights"]
    done = CliRunner().invoke(cli, [*command, "published.pth"])
    assert done.exit_code == 0, done.output
    folder = Path("results/digits/imported/evaluate/classification/pvt_tiny")
    (path,) = folder.glob("*.json")
    record = read_record(path)
    kept = read_predictions(path.with_suffix(".npz"), record.predictions_sha256)
    everything = np.ones((1, len(kept.images)), int)
    assert len(kept.images) == 20
    assert {name: kept.resampled(name, everything).item() for name in kept.metrics} == {
        metric.name: metric.value for metric in record.metrics
    }
    assert (record.origin, record.source.kind, record.id) == (
        "imported",
        "weights",
        "imported/classification/pvt_tiny/seed_unknown",
    )
    assert record.source.read == "its model, names of the published PVT code"
    # The model was evaluated here, on this data. How it was trained is unknown.
    assert record.provenance.checkpoint_sha256 == record.source.sha256
    assert record.provenance.device == "cpu"
    assert len(record.provenance.dataset_digest) == 64
    assert (record.training, {metric.seed for metric in record.metrics}) == (None, {None})
    assert not run.record.exists()
    frame, _ = collect_experiment(experiment)
    assert set(frame["origin"]) == {"imported"}

    other = {name: (value + 0.01).contiguous() for name, value in state.items()}
    safetensors.torch.save_file(other, "other.safetensors")
    refused = CliRunner().invoke(cli, [*command, "other.safetensors"])
    assert "--replace" in str(refused.exception)
    replaced = CliRunner().invoke(cli, [*command, "other.safetensors", "--replace"])
    assert replaced.exit_code == 0, replaced.output
    assert not path.exists()
    assert sorted(kept.suffix for kept in folder.iterdir()) == [".json", ".npz"]


def test_weights_of_another_model_are_refused_with_their_names(experiment):
    torch.save(create("resnet18", num_classes=10).state_dict(), "resnet.pth")
    command = ["evaluate", "classification/pvt_tiny/seed0", "-e", str(experiment.file)]
    done = CliRunner().invoke(cli, [*command, "--weights", "resnet.pth"])
    assert isinstance(done.exception, UserError)
    missing, unknown = map(str, done.exception.problems[:2])
    assert missing.startswith("resnet.pth: missing in the file: head_norm.weight, ")
    assert missing.count(", ") + 1 == len(create("pvt_tiny").state_dict())
    assert unknown.startswith("resnet.pth: unknown to the model: ")
    assert "layer4.1.bn2.weight" in unknown
    assert not Path("results/digits/imported").exists()
    for options, says in (
        (["--part", "model"], "require --weights"),
        (["--weights", "resnet.pth", "--rename", "a"], "OLD=NEW"),
    ):
        done = CliRunner().invoke(cli, [*command, *options])
        assert says in str(done.exception)
