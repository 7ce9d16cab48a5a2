"""What timm promises of its own models holds for the models of this project.

The checks follow ``tests/test_models.py`` of timm, which its package does not contain: default configuration, forward
and backward pass, gradient checkpointing, feature maps and ``torch.export``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter

import pytest
import timm
import torch

from hafabench.config.catalog import CATALOG
from hafabench.models import OWN_MODELS, create, family_of, timm_name
from tests.support.small_models import image, small, small_options

pytestmark = pytest.mark.usefixtures("one_thread")

EXPORTED_FAST = ("pvt_tiny_hafa", "dynamicvit_lvs_0.5")


@pytest.fixture(scope="module")
def one_thread():
    # Models this small lose more time waiting for threads than they gain.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=list(OWN_MODELS))
def name(request):
    return request.param


def feature_axis(features: torch.Tensor) -> int:
    """Axis of the channels: last for tokens (B, N, C) and for Swin's maps (B, h, w, C), as timm has it."""
    return -1 if features.ndim in (3, 4) else 1


@torch.no_grad()
def test_entry_point_belongs_to_the_family_and_has_its_own_configuration(name):
    entry = timm.models.model_entrypoint(timm_name(name))
    family = CATALOG[name].family
    assert entry.__module__ == f"hafabench.models.{family}"
    assert entry.__name__ == timm_name(name)
    assert entry.__doc__
    cfg = timm.get_pretrained_cfg(timm_name(name))
    assert cfg.architecture == timm_name(name)
    assert not cfg.has_weights
    state = small(name).state_dict()
    for module in (cfg.first_conv, *([cfg.classifier] if isinstance(cfg.classifier, str) else cfg.classifier)):
        assert f"{module}.weight" in state
    assert small(name, num_classes=3).default_cfg["input_size"] == (3, 224, 224)


@torch.no_grad()
def test_default_configuration_describes_the_features(name):
    model = small(name).eval()
    cfg, pooling = model.default_cfg, model.global_pool
    side = 224 if cfg["pool_size"] else 64
    x = image(1, side, side)
    features = model.forward_features(x)
    if cfg["pool_size"]:
        assert tuple(features.shape[1:3]) == cfg["pool_size"]
    else:
        assert features.ndim == 3
    assert features.shape[feature_axis(features)] == model.num_features
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(x).shape == (1, model.num_features)
    model.reset_classifier(0, "")
    assert model(x).shape == features.shape
    # PVT has a class token only if it is pooled.
    unpooled = small(name, num_classes=0, global_pool="").eval()(x)
    assert (unpooled.ndim, unpooled.shape[-1]) == (features.ndim, features.shape[-1])
    model.reset_classifier(7, pooling)
    assert model(x).shape == (1, 7)


@pytest.mark.parametrize("training", [False, True])
def test_gradient_checkpointing_changes_no_output_and_no_gradient(name, training):
    found = []
    for enable in (False, True):
        model = small(name, num_classes=5, drop_path_rate=0.1).train(training)
        model.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        logits = model(image(2, 64, 64))
        logits.square().sum().backward()
        found.append((logits.detach(), {key: p.grad for key, p in model.named_parameters() if p.grad is not None}))
    (logits, gradients), (recomputed_logits, recomputed_gradients) = found
    assert logits.isfinite().all()
    torch.testing.assert_close(recomputed_logits, logits, rtol=1e-4, atol=1e-5)
    assert recomputed_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(recomputed_gradients[key], gradient, rtol=1e-3, atol=1e-4, msg=key)


def test_gradient_checkpointing_recomputes_every_block(name):
    model = small(name, num_classes=5).train()
    calls = Counter()
    for key, module in model.named_modules():
        if re.search(r"\bblocks\.\d+\.norm\d*$", key):
            module.register_forward_pre_hook(lambda *_, key=key: calls.update([key]))
    counts = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        calls.clear()
        model(image(2, 64, 64)).square().sum().backward()
        counts.append(dict(calls))
    stored, recomputed = counts
    assert stored
    assert recomputed == {key: 2 * count for key, count in stored.items()}


@torch.no_grad()
def test_forward_intermediates(name):
    model = small(name).eval()
    info = timm.models.FeatureInfo(model.feature_info, len(model.feature_info))
    x = image(2, 64, 96)
    final, maps = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    assert len(maps) == len(info.channels()) >= 3
    for feature, channels, stride in zip(maps, info.channels(), info.reduction(), strict=True):
        assert feature.shape == (2, channels, math.ceil(64 / stride), math.ceil(96 / stride))
        assert feature.isfinite().all()
    # Selections of the same maps.
    for indices, expected in ((2, maps[-2:]), ([0, -1], [maps[0], maps[-1]])):
        found = model.forward_intermediates(x, indices=indices, intermediates_only=True)
        assert all(torch.equal(feature, map_) for feature, map_ in zip(found, expected, strict=True))
    (early,) = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
    assert torch.equal(early, maps[0])
    with (
        pytest.raises(ValueError, match="NHWC") if CATALOG[name].family != "lvvit" else pytest.raises(AssertionError)
    ):
        model.forward_intermediates(x, output_fmt="NHWC")


@torch.no_grad()
def test_features_only(name):
    model = small(name, features_only=True).eval()
    features = model(image(1, 64, 96))
    assert len(features) == len(model.feature_info.channels()) == 4
    for feature, channels, stride in zip(
        features, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert feature.shape == (1, channels, math.ceil(64 / stride), math.ceil(96 / stride))
    fewer = small(name, features_only=True, out_indices=(0, 1)).eval()
    for feature, expected in zip(fewer(image(1, 64, 96)), fewer.feature_info.channels(), strict=True):
        assert feature.shape[1] == expected


@torch.no_grad()
def test_dropped_tokens_keep_the_features_they_were_dropped_with():
    model = small("dynamicvit_lvs_0.5").eval()
    maps = model.forward_intermediates(image(1, 64, 64), intermediates_only=True)
    changed = [int((later != earlier).any(dim=1).sum()) for earlier, later in itertools.pairwise(maps)]
    # Of 16 tokens 8, 4 and 2 are kept, by predictors in front of blocks 2, 4 and 6 of 8.
    assert changed == [16, 8, 8, 4, 4, 2, 2]


@torch.no_grad()
@pytest.mark.parametrize(
    "model_name",
    [pytest.param(name, marks=[] if name in EXPORTED_FAST else pytest.mark.slow) for name in OWN_MODELS],
)
def test_exports(model_name):
    model = small(model_name, num_classes=5).eval()
    x = image(1, 64, 64)
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_name", [name for name in OWN_MODELS if family_of(CATALOG[name]).own.dense])
def test_dense_classifiers_are_also_built_as_backbones(model_name):
    backbone = create(model_name, dense=True, **small_options(model_name))
    assert not any(key.startswith(("head.", "stage4.cls_token")) for key in backbone.state_dict())
