"""Models at a fraction of their width and depth: all models of the catalogue, libraries, and refused scales."""

from __future__ import annotations

import csv
import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from hafabench.config.catalog import CATALOG, MIN_DEPTH, MIN_WIDTH, WITHOUT_PYRAMID, ModelSpec
from hafabench.engines.dense.model import build_dense_model, load_mm
from hafabench.errors import UserError
from hafabench.measure.complexity import count
from hafabench.models import create
from hafabench.models.checkpoints.published import fit, fit_backbone
from hafabench.models.hafa.laa import LocalAdaptiveAggregation
from hafabench.models.hafa.sia import SemanticInformationAggregation
from hafabench.models.scaling import scaled_channels, scaled_depths, scaled_dims

QUARTER = {"width": 0.25, "depth": 0.5}
COMPLEXITY = Path(__file__).parents[3] / "configs/complexity.csv"


def full_sizes() -> dict[str, int]:
    """Counted parameters of the full-size classifiers."""
    with COMPLEXITY.open() as handle:
        lines = [line for line in csv.DictReader(handle) if line["task"] == "classification"]
    return {line["model"]: int(line["params"]) for line in lines}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(spec: ModelSpec, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create(spec, **options)


@pytest.mark.parametrize("name", CATALOG)
def test_every_model_runs_at_a_quarter_of_its_width_and_half_of_its_depth(name):
    spec = replace(CATALOG[name], **QUARTER)
    options = {"img_size": 64} if "swin" in spec.family else {}
    model = create(spec, num_classes=10, **options).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert model(images).shape == (1, 10)
    for kind, merger in (("laa", LocalAdaptiveAggregation), ("sia", SemanticInformationAggregation)):
        assert sum(isinstance(module, merger) for module in model.modules()) == spec.mergers.count(kind)
    if spec.family not in WITHOUT_PYRAMID:
        backbone = create(spec, dense=True).eval()
        with torch.no_grad():
            maps = backbone.forward_maps(images)
        shapes = [(channels, side, side) for channels, side in zip(backbone.channels, (16, 8, 4, 2), strict=True)]
        assert [tuple(features.shape[1:]) for features in maps] == shapes


@pytest.mark.parametrize(("width", "depth"), [(0.25, 0.5), (MIN_WIDTH, MIN_DEPTH)])
def test_scaled_models_are_much_smaller_and_keep_their_order(width, depth):
    full = full_sizes()
    small = {
        name: parameters(on_meta(replace(spec, width=width, depth=depth), num_classes=1000))
        for name, spec in CATALOG.items()
        if name in full
    }
    assert len(small) > 20
    for name, size in small.items():
        assert size < full[name] * width, name
    for one, size in small.items():
        for other in small:
            if CATALOG[one].family == CATALOG[other].family and full[one] < 0.95 * full[other]:
                assert size < small[other], (one, other)


def test_operations_keep_their_order():
    names = ("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large")
    found = [count(on_meta(replace(CATALOG[name], width=0.25), num_classes=10), (64, 64)).gmacs for name in names]
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("name", "width", "library"),
    [
        # PVT-v2-B0 has half the width of B1; DeiT's models differ in width only, and heads have no parameters.
        ("pvt_v2_b1", 0.5, "pvt_v2_b0"),
        ("deit_small", 0.5, "deit_tiny_patch16_224"),
        ("deit_base", 0.25, "deit_tiny_patch16_224"),
    ],
)
def test_scaled_models_have_the_size_of_the_narrower_models_of_timm(name, width, library):
    with torch.device("meta"):
        peer = timm.create_model(library)
    assert parameters(on_meta(replace(CATALOG[name], width=width))) == parameters(peer)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"depth": 18}),
        ("resnet50", {"depth": 50}),
        ("resnext50_32x4d", {"depth": 50, "groups": 32, "base_width": 1}),
        ("resnext101_64x4d", {"depth": 101, "groups": 64, "base_width": 1}),
    ],
)
def test_scaled_resnets_have_the_size_of_mmdets(name, options):
    # mmdet scales the channels of a group with those of the stem: 4 at a quarter of the width is 1.
    load_mm()
    backbones = importlib.import_module("mmdet.models.backbones")
    kind = backbones.ResNeXt if "groups" in options else backbones.ResNet
    with torch.device("meta"):
        peer = kind(base_channels=16, stem_channels=16, **options)
    # The backbone has no classifier either.
    assert parameters(on_meta(replace(CATALOG[name], width=0.25), dense=True)) == parameters(peer)


def test_own_pvt_v2_equals_timms_at_every_scale():
    own = replace(CATALOG["pvt_v2_b2"], mergers=("grid", "conv", "conv", "conv"), width=0.25, depth=0.5)
    assert parameters(on_meta(own)) == parameters(on_meta(replace(own, mergers=CATALOG["pvt_v2_b2"].mergers)))


def test_a_teacher_has_the_size_of_its_student():
    for student, teacher in (("dynamicvit_lvs_0.5", "lvvit_small"), ("dynamic_swin_tiny_0.25", "swin_tiny")):
        for depth in (MIN_DEPTH, 0.5, 0.7):
            own = on_meta(replace(CATALOG[student], width=0.25, depth=depth)).state_dict()
            given = on_meta(replace(CATALOG[teacher], width=0.25, depth=depth)).state_dict()
            assert all(own[name].shape == value.shape for name, value in given.items() if name in own)
            assert given.keys() <= own.keys()


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_dense_heads_follow_the_width(task):
    sizes = []
    for width in (1.0, 0.25):
        with torch.device("meta"):
            model = build_dense_model(replace(CATALOG["pvt_tiny_hafa"], width=width), task, 10)
        sizes.append(sum(p.numel() for n, p in model.named_parameters() if not n.startswith("backbone.")))
        assert model.neck.fpn_convs[0].out_channels == 256 * width
    assert sizes[1] < sizes[0] / 10


def test_dense_models_of_reduced_width_train():
    torch.manual_seed(0)
    model = build_dense_model(replace(CATALOG["pvt_tiny_hafa"], width=MIN_WIDTH, depth=MIN_DEPTH), "segmentation", 3)
    maps = model.extract_feat(torch.randn(2, 3, 64, 64))
    logits = model.decode_head(maps)
    assert logits.shape == (2, 3, 16, 16)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_rounding():
    assert scaled_dims((64, 128, 320, 512), (1, 2, 5, 8), 0.25) == (16, 32, 80, 128)
    assert scaled_dims((64, 128, 320, 512), (1, 2, 5, 8), 0.3) == (19, 38, 95, 152)
    assert scaled_depths((3, 4, 6, 3), 0.5) == (2, 2, 3, 2)
    assert scaled_depths((10,), 0.7) == (7,)
    assert scaled_depths((2, 2, 6, 2), 0.5, multiple=2) == (2, 2, 4, 2)
    assert scaled_channels(256, 0.3, multiple=8) == 80
    assert scaled_channels(7, 1, multiple=8) == 7


@pytest.mark.parametrize(("key", "value"), [("width", 0.05), ("width", 1.5), ("depth", 0.0), ("depth", float("nan"))])
def test_a_scale_out_of_its_bounds_is_refused(key, value):
    with pytest.raises(UserError, match=rf"expected a {key} from 0\.\d+ to 1, found"):
        create(replace(CATALOG["pvt_tiny"], **{key: value}))


def test_timms_weights_are_not_loaded_into_a_scaled_model():
    with pytest.raises(UserError, match=r"width 0\.25, depth 1.* has no published weights"):
        create(replace(CATALOG["resnet18"], width=0.25), pretrained=True)


@pytest.mark.parametrize(("scale", "name"), [({"width": 0.25}, "pvt_tiny"), ({"depth": 0.5}, "pvt_small")])
def test_full_size_weights_in_a_scaled_model_give_one_error(scale, name):
    spec = replace(CATALOG[name], **scale)
    weights = create(name, num_classes=3).state_dict()
    for function, options in ((fit, {"num_classes": 3}), (fit_backbone, {"dense": True})):
        with pytest.raises(UserError, match=r"weights of another size: .* do not fit it") as error:
            function(on_meta(spec, **options), weights, spec, {})
        assert len(error.value.problems) == 1


def test_weights_of_the_same_scale_fit():
    spec = replace(CATALOG["pvt_tiny"], width=0.25)
    weights = create(spec, num_classes=3).state_dict()
    fitted = fit_backbone(create(spec, dense=True), weights, spec, {})
    assert fitted.state
