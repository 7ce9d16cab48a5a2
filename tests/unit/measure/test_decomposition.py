"""Decomposition of models by kind: every kind in its part, and sums that equal the complexity count."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from hafabench.config.catalog import CATALOG
from hafabench.config.operation_kinds import BUFFERS, MULTIPLICATIONS, OPERATIONS, PARAMETERS, PARTS
from hafabench.measure.complexity import build_on_meta, count, dead_weights
from hafabench.measure.counts import _deep_stem
from hafabench.measure.decompose import decompose
from hafabench.results.decomposition import total


class Everything(nn.Module):
    """3x8x8 -> convolutions of every sort -> 16 tokens of 8 -> attention -> 5 classes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.offset = nn.Conv2d(8, 8, 1)
        self.deform = torchvision.ops.DeformConv2d(8, 8, 2, padding=1)
        self.position = nn.Parameter(torch.zeros(1, 16, 8))
        self.token_norm = nn.LayerNorm(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def get_classifier(self):
        return self.fc

    def forward(self, image):
        x = functional.relu(self.norm(self.stem(image)))
        x = self.depthwise(x)
        x = self.deform(functional.pad(x, (0, -1, 0, -1)), self.offset(x))
        q = k = v = self.token_norm(x.flatten(2).transpose(1, 2) + self.position).unsqueeze(1)
        x = functional.scaled_dot_product_attention(q, k, v).squeeze(1)
        x = functional.gelu(x).transpose(1, 2).unflatten(2, (4, 4))
        return self.fc(self.pool(x).flatten(1)).softmax(-1)


def counts(amounts) -> dict[tuple[str, str], int]:
    return {(amount.part, amount.kind): amount.count for amount in amounts}


@pytest.fixture(scope="module")
def everything():
    with torch.device("meta"):
        model = Everything()
    return decompose(model, (8, 8))


def test_operations_by_kind(everything):
    assert counts(everything.operations) == {
        ("backbone", "convolution"): 16 * 8 * (3 * 4) + 16 * 8 * 8,
        ("backbone", "convolution_bias"): 16 * 8,
        ("backbone", "batch_norm"): 16 * 8,
        ("backbone", "relu"): 16 * 8,
        ("backbone", "depthwise"): 16 * 8 * 9,
        ("backbone", "depthwise_bias"): 16 * 8,
        ("backbone", "deformable"): 16 * 8 * (8 * 4),
        ("backbone", "deformable_bias"): 16 * 8,
        ("backbone", "layer_norm"): 16 * 8,
        ("backbone", "attention"): 2 * 16 * 16 * 8,
        ("backbone", "softmax"): 16 * 16 + 5,
        ("backbone", "gelu"): 16 * 8,
        ("backbone", "pooling"): 16 * 8,
        ("head", "linear"): 8 * 5,
        ("head", "linear_bias"): 5,
    }


def test_parameters_by_kind(everything):
    assert counts(everything.parameters) == {
        ("backbone", "other"): 16 * 8,
        ("backbone", "convolution"): 8 * 3 * 4 + 8 * 8,
        ("backbone", "norm"): 2 * 8 + 2 * 8,
        ("backbone", BUFFERS): 2 * 8,
        ("backbone", "depthwise"): 8 * 9,
        ("backbone", "bias"): 8 + 8 + 8,
        ("backbone", "deformable"): 8 * 8 * 4,
        ("head", "linear"): 8 * 5,
        ("head", "bias"): 5,
    }


class Disguised(nn.Module):
    """A convolution that runs as a matrix product and a linear layer that runs as a batched one, without biases."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 2, 2, bias=False)
        self.fc = nn.Linear(6, 5, bias=False)

    def forward(self, image):
        windows = functional.unfold(image, 2, stride=2).transpose(1, 2)
        x = functional.linear(windows, self.conv.weight.flatten(1))
        return torch.bmm(x, self.fc.weight.t().unsqueeze(0))


def test_the_weight_decides_and_not_the_operator():
    with torch.device("meta"):
        model = Disguised()
    found = counts(decompose(model, (8, 8)).operations)
    assert found == {("backbone", "convolution"): 16 * 6 * 12, ("backbone", "linear"): 16 * 5 * 6}


def test_shared_and_frozen_parameters():
    with torch.device("meta"):
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        second.weight = first.weight
        first.bias.requires_grad_(False)
        found = decompose(nn.Sequential(first, second), None)
    assert found.params == 16 + 4 + 4
    assert [(a.kind, a.count) for a in found.parameters if not a.trainable] == [("bias", 4)]
    assert found.operations == ()


SIZES = {"classification": (64, 96), "segmentation": (64, 96)}
MODELS = [
    ("classification", "resnet18"),
    ("classification", "pvt_tiny_hafa"),
    ("classification", "pvt_tiny_hafa_paper"),
    ("classification", "pvt_v2_b1_hafa"),
    ("classification", "pvt_v2_b1_sia_sia_sia"),
    ("segmentation", "resnet50"),
    ("segmentation", "pvt_tiny_hafa"),
]


@pytest.mark.parametrize(("task", "name"), MODELS, ids=lambda value: str(value))
def test_sums_equal_the_complexity_count(task, name):
    model = build_on_meta(CATALOG[name], task, 10)
    found, plain = decompose(model, SIZES[task]), count(model, SIZES[task])
    assert found.params == plain.params
    assert found.macs == pytest.approx(plain.gmacs * 1e9, abs=0.5)
    trained = sum(a.count for a in found.parameters if a.trainable and a.kind in PARAMETERS)
    assert trained == plain.params_trainable
    # Nothing falls between the names.
    assert {a.kind for a in found.operations} <= set(OPERATIONS)
    assert {a.kind for a in found.parameters} <= {*PARAMETERS, BUFFERS}
    assert {a.part for a in (*found.parameters, *found.operations)} <= set(PARTS)
    assert len(counts(found.operations)) == len(found.operations)


def test_custom_convolutions_are_distinguished():
    """LAA's two convolutions and SIA's strided map, as the golden classes have them, at 64x96."""
    found = decompose(build_on_meta(CATALOG["pvt_tiny_hafa"], "classification", 10), (64, 96))
    positions = {2: 8 * 12, 3: 4 * 6, 4: 2 * 3}
    assert total(found.operations, ["offset"]) == positions[2] * 8 * 4 * 64 + positions[3] * 8 * 4 * 128
    assert total(found.operations, ["deformable"]) == positions[2] * 128 * 4 * 64 + positions[3] * 320 * 4 * 128
    assert total(found.operations, ["token_convolution"]) == positions[4] * 512 * 9 * 320
    assert total(found.operations, ["depthwise"]) == positions[4] * 512 * 25


def test_dead_weights_are_no_part_of_any_model():
    """They are a number beside the count and never trained parameters."""
    model = build_on_meta(CATALOG["pvt_tiny_hafa"], "segmentation", 150)
    assert decompose(model, None).params == sum(p.numel() for p in model.parameters()) == 18_387_367
    assert dead_weights(CATALOG["pvt_tiny_hafa"], "segmentation") == 263_680


def test_parts_of_a_dense_model():
    found = decompose(build_on_meta(CATALOG["resnet18"], "detection", 80), None)
    neck = 4 * 256 + (64 + 128 + 256 + 512) * 256 + 4 * (9 * 256 * 256 + 256)
    assert total(found.parameters, PARAMETERS, ["neck"]) == neck
    assert total(found.parameters, PARAMETERS, ["backbone"]) == 11_689_512 - 513 * 1000
    frozen = sum(a.count for a in found.parameters if not a.trainable and a.kind in PARAMETERS)
    assert frozen == 31_327_536 - 31_170_032


def test_predictors_are_a_part_of_their_own():
    found = decompose(build_on_meta(CATALOG["dynamicvit_lvs_0.5"], "classification", 1000), (224, 224))
    assert total(found.parameters, PARAMETERS, ["predictors"]) == 3 * 241_250
    assert total(found.operations, MULTIPLICATIONS, ["predictors"]) > 0
    assert total(found.parameters, PARAMETERS, ["head"]) == 2 * 385_000


def test_the_deep_stem_is_mmsegs():
    model = build_on_meta(CATALOG["resnet18"], "segmentation", 150)
    before = decompose(model, (64, 64))
    _deep_stem(model, "resnet18")
    after = decompose(model, (64, 64))
    # Three 3x3 convolutions of 32, 32 and 64 channels with two more norms, for one 7x7 of 64.
    assert after.params - before.params == (27 * 32 + 9 * 32 * 32 + 9 * 32 * 64) - 147 * 64 + 2 * (32 + 32)
    assert after.macs - before.macs == 32 * 32 * ((27 * 32 + 9 * 32 * 32 + 9 * 32 * 64) - 147 * 64)
