"""What every model of this project promises, checked on every one of them (few blocks, narrow, small images)."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.optim import param_groups_weight_decay

import hafabench.models
from hafabench.config.catalog import CATALOG
from hafabench.errors import UserError
from hafabench.models import OWN_MODELS, create, family_of, timm_name
from hafabench.models.hafa.laa import OffsetConv
from tests.support.family_expectations import (
    CLASSIFY_EVERY_TOKEN,
    INITIALISED,
    NORM_EPS,
    allowed_grids,
    initial_spread,
)
from tests.support.small_models import image, small, small_options

# Models with a feature pyramid, which dense tasks need; the others only classify.
PYRAMIDS = [name for name, spec in OWN_MODELS.items() if family_of(spec).own.dense]
CLASSIFIERS = [name for name in OWN_MODELS if name not in PYRAMIDS]
STRIDES = (4, 8, 16, 32)
# Adding a constant to every score changes no weighted mean and no softmax: its gradient is zero but for rounding.
ZERO_GRADIENT = ("score.bias",)


def dead_parameters(model: torch.nn.Module) -> list[str]:
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or (not parameter.grad.any() and not name.endswith(ZERO_GRADIENT))
    ]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    # Models this small lose more to waiting threads than they gain.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(OWN_MODELS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def classifier(name):
    return small(name, num_classes=5, drop_path_rate=0.1)


@pytest.fixture(scope="module", params=PYRAMIDS)
def pyramid(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(pyramid):
    torch.manual_seed(0)
    return create(pyramid, dense=True, **small_options(pyramid))


def test_trains_every_parameter(classifier):
    logits = classifier.train()(image(2, 64, 64))
    assert logits.shape == (2, 5)
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 3])).backward()
    # Drop-path may skip a branch for both samples: accumulate until the chance is negligible.
    for _ in range(3):
        if not dead_parameters(classifier):
            break
        classifier(image(2, 64, 64)).square().sum().backward()
    assert dead_parameters(classifier) == []


def test_checkpoint_loads_strictly(name, classifier):
    other = small(name, num_classes=5)
    other.load_state_dict(classifier.state_dict(), strict=True)
    x = image(1, 65, 97)
    with torch.no_grad():
        expected = classifier.eval()(x)
        assert expected.shape == (1, 5)
        assert torch.equal(other.eval()(x), expected)


def test_convolution_weights_are_channels_last_and_stay_so(name):
    """As tokens do: otherwise a CPU brings every map into another order, and back."""
    model = small(name)
    model.load_state_dict({key: value.contiguous() for key, value in model.state_dict().items()})
    weights = {key: value for key, value in model.named_parameters() if value.ndim == 4}
    assert weights
    assert [key for key, value in weights.items() if value.stride(1) != 1] == []


def test_mixed_precision(name):
    model = small(name, num_classes=5, drop_path_rate=0.0)
    # Models that drop tokens draw which: the same ones twice.
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(image(2, 64, 64))
    logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    torch.manual_seed(1)
    expected = model(image(2, 64, 64))
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()


@torch.no_grad()
def test_samples_do_not_influence_each_other(classifier):
    x = image(3, 64, 96)
    together = classifier.eval()(x)
    torch.testing.assert_close(
        together, torch.cat([classifier(sample) for sample in x.split(1)]), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_timm_interfaces(name, classifier):
    features = classifier.eval().forward_features(image(1, 64, 64))
    pooled = classifier.forward_head(features, pre_logits=True)
    assert pooled.shape == (1, classifier.num_features)
    logits = classifier(image(1, 64, 64))
    torch.testing.assert_close(classifier.forward_head(features), logits)
    if CATALOG[name].family not in CLASSIFY_EVERY_TOKEN:
        torch.testing.assert_close(classifier.get_classifier()(pooled), logits)
    assert classifier.default_cfg["crop_pct"] == 0.875
    assert classifier.default_cfg["interpolation"] == "bicubic"
    modules = dict(classifier.named_modules())
    assert classifier.default_cfg["first_conv"] in modules
    names = classifier.default_cfg["classifier"]
    assert all(name in modules for name in ([names] if isinstance(names, str) else names))
    groups = timm.models.group_parameters(classifier, classifier.group_matcher())
    assert sum(len(group) for group in groups.values()) == len(list(classifier.parameters()))


@torch.no_grad()
def test_intermediate_maps(pyramid):
    model = small(pyramid).eval()
    final, maps = model.forward_intermediates(image(1, 64, 64), indices=[1, -1])
    assert [tuple(m.shape[1:]) for m in maps] == [
        (model.channels[i], 64 // STRIDES[i], 64 // STRIDES[i]) for i in (1, 3)
    ]
    assert final.shape[-1] == model.channels[-1]


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_classifiers_are_no_backbones(model):
    with pytest.raises(UserError, match="has no feature pyramid, which dense tasks need"):
        create(model, dense=True, **small_options(model))


@pytest.mark.parametrize("size", [(65, 97), (32, 32)])
def test_backbone_gives_four_stages_of_tokens(pyramid, backbone, size):
    backbone.eval().zero_grad()
    stages = backbone.forward_tokens(image(1, *size))
    assert [tokens.grid for tokens in stages] in allowed_grids(CATALOG[pyramid].family, *size)
    assert tuple(tokens.x.shape[2] for tokens in stages) == tuple(backbone.channels)
    for tokens, merger in zip(stages, CATALOG[pyramid].mergers, strict=True):
        assert (tokens.assignment is not None) == (merger == "sia")
        assert tokens.to_map().shape[-2:] == tokens.grid


def test_backbone_trains_every_parameter(backbone):
    backbone.train().zero_grad()
    stages = backbone.forward_tokens(image(2, 64, 96))
    generator = torch.Generator().manual_seed(1)
    # Through random weights: a LayerNorm's outputs have a fixed sum and sum of squares.
    features = [tokens.to_map() for tokens in stages]
    sum((feature * torch.randn(feature.shape, generator=generator)).sum() for feature in features).backward()
    assert dead_parameters(backbone) == []


@torch.no_grad()
def test_features_only(pyramid):
    model = small(pyramid, features_only=True).eval()
    for feature, stride, channels in zip(
        model(image(1, 64, 96)), model.feature_info.reduction(), model.feature_info.channels(), strict=True
    ):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)
    assert tuple(model.feature_info.reduction()) == STRIDES


@pytest.mark.parametrize("size", [(31, 64), (64, 16)])
def test_too_small_an_input_is_refused(classifier, size):
    with pytest.raises(UserError, match=f"input of {size[0]} x {size[1]} pixels is too small"):
        classifier(image(1, *size))


def test_without_classifier_and_other_channels(name):
    model = small(name, num_classes=0, in_chans=1).eval()
    with torch.no_grad():
        assert model(image(1, 64, 64, channels=1)).shape == (1, model.num_features)
    model.reset_classifier(4)
    with torch.no_grad():
        assert model(image(1, 64, 64, channels=1)).shape == (1, 4)


def test_weight_decay_spares_norms_biases_and_class_token(name, classifier):
    groups = param_groups_weight_decay(classifier, 0.05, no_weight_decay_list=classifier.no_weight_decay())
    spared = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    named = dict(classifier.named_parameters())
    assert all(id(p) in spared for p in named.values() if p.ndim == 1)
    if CATALOG[name].family == "pvt":
        assert ("stage4.cls_token" in named) == (CATALOG[name].mergers[3] != "sia")
        assert all(id(p) in spared for key, p in named.items() if key.endswith("cls_token"))


@pytest.mark.parametrize("name", [name for name in OWN_MODELS if CATALOG[name].family in INITIALISED])
def test_initial_weights(name):
    family = CATALOG[name].family
    model = small(name, num_classes=100)
    checked = 0
    for key, module in model.named_modules():
        if isinstance(module, OffsetConv):
            assert not module.weight.any(), key
            assert not module.bias.any(), key
        elif isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all(), key
            assert not module.bias.any(), key
        elif (spread := initial_spread(family, module)) is not None and module.weight.numel() > 500:
            assert module.weight.std().item() == pytest.approx(spread, rel=0.12), key
            checked += 1
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                assert not module.bias.any(), key
    assert checked > 10
    for key, parameter in model.named_parameters():
        if key.endswith(("pos_embed", "cls_token", "relative_position_bias_table")):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), key


@pytest.mark.parametrize("name", [name for name in OWN_MODELS if CATALOG[name].family in NORM_EPS])
def test_epsilon_of_norms(name):
    """The eps is 1e-5 in mergers and in the spatial reduction, and specific to the family in all other norms."""
    norms = {key: m.eps for key, m in small(name).named_modules() if isinstance(m, torch.nn.LayerNorm)}
    coarse = {key for key in norms if ".merger." in key or key.endswith(".attn.norm")}
    assert all(norms[key] == 1e-5 for key in coarse)
    assert bool(coarse) == (name in PYRAMIDS)
    assert {eps for key, eps in norms.items() if key not in coarse} == {NORM_EPS[CATALOG[name].family]}


def test_every_own_model_is_registered():
    own = {"pvt", "lvvit", "dynamicvit", "dynamic_swin"}
    expected = {n for n, s in CATALOG.items() if s.family in own or s.has_mergers}
    assert expected == {name for name, spec in OWN_MODELS.items() if spec.family in NORM_EPS}
    assert all(timm.is_model(timm_name(model)) for model in OWN_MODELS)
    assert hafabench.models.__all__


@torch.no_grad()
@pytest.mark.parametrize("model", ["pvt_tiny_hafa", "pvt_v2_b1_hafa", "swin_tiny_hafa", *CLASSIFIERS])
def test_full_size(model):
    logits = timm.create_model(timm_name(model)).eval()(image(1, 224, 224))
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()
