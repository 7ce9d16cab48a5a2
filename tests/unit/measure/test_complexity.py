"""What `hafabench.measure.complexity` counts and does not count. Counts of whole models are golden tests."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from hafabench.config.catalog import CATALOG, derive
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.measure import complexity
from hafabench.measure.complexity import count, count_model, dead_weights, metrics, table_rows


class Layers(nn.Module):
    """3x8x8 -> conv 6@4x4 -> norm -> linear 6 -> 5 on 16 tokens -> softmax."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 2, 2)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, image):
        tokens = self.norm(self.conv(image)).flatten(2).transpose(1, 2)
        return self.fc(tokens).softmax(-1)


class Attention(nn.Module):
    """16 queries, keys and values in 2 heads of 4 channels, without any weights."""

    def __init__(self, fused: bool):
        super().__init__()
        self.fused = fused

    def forward(self, image):
        q = k = v = image.reshape(1, 2, 16, 4)
        if self.fused:
            return functional.scaled_dot_product_attention(q, k, v)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


class Deformable(nn.Module):
    """Offsets and deformable convolution 4 -> 6, kernel and stride 2, in two groups."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(4, 8, 2, 2)
        self.conv = torchvision.ops.DeformConv2d(4, 6, 2, 2, groups=2)

    def forward(self, image):
        return self.conv(image, self.offset(image))


def test_convolution_and_linear_count_without_bias_norm_and_softmax():
    size = count(Layers(), (8, 8))
    assert size.gmacs * 1e9 == pytest.approx(16 * 6 * (3 * 2 * 2) + 16 * 6 * 5)
    assert size.params == (6 * 3 * 4 + 6) + 2 * 6 + (6 * 5 + 5)


@pytest.mark.parametrize("fused", [False, True])
def test_both_attention_products_count_fused_or_not(fused):
    size = count(Attention(fused), (8, 8), in_chans=2)
    assert size.gmacs * 1e9 == pytest.approx(2 * (2 * 16 * 16 * 4))


def test_deformable_convolution_counts_like_a_plain_one():
    size = count(Deformable(), (8, 8), in_chans=4)
    assert size.gmacs * 1e9 == pytest.approx(16 * 8 * (4 * 4) + 16 * 6 * (2 * 4))


def test_frozen_parameters_count_as_not_trainable():
    model = Layers()
    model.conv.requires_grad_(False)
    size = count(model, (8, 8))
    assert size.params - size.params_trainable == 6 * 3 * 4 + 6


def test_the_model_is_left_as_it_was():
    model = Layers().train()
    model.fc.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model, (8, 8))
    assert (model.training, model.norm.training, model.fc.training) == (True, True, False)
    for name, tensor in model.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name]), name


def test_counting_happens_in_evaluation_mode():
    class OnlyEvaluates(Layers):
        def forward(self, image):
            assert not self.training
            return super().forward(image)

    assert count(OnlyEvaluates().train(), (8, 8)) == count(Layers(), (8, 8))


@pytest.mark.parametrize("name", ["vit_base", "pvt_large_hafa", "pvt_v2_b1_sia_sia_sia", "swin_tiny_hafa"])
def test_no_weight_is_ever_allocated(name, monkeypatch):
    places = set()

    def spy(model, image_size):
        places.update(tensor.device.type for tensor in (*model.parameters(), *model.buffers()))
        return count(model, image_size)

    monkeypatch.setattr(complexity, "count", spy)
    count_model(CATALOG[name], "classification", (224, 224), 1000)
    assert places == {"meta"}


def test_the_classifier_counts():
    small, large = (count_model(CATALOG["resnet18"], "classification", (64, 64), n) for n in (10, 1000))
    assert large.params - small.params == 990 * 513
    assert (large.gmacs - small.gmacs) * 1e9 == pytest.approx(990 * 512)


def test_cost_follows_the_input_size_and_parameters_do_not():
    spec = CATALOG["pvt_tiny_hafa"]
    small, large = (count_model(spec, "classification", size, 10) for size in ((224, 224), (256, 320)))
    assert small.params == large.params
    assert large.gmacs > small.gmacs * 1.5


@pytest.mark.parametrize("name", ["resnet18", "pvt_tiny_hafa", "hrnet_w32", "pvt_v2_b1"])
def test_an_invalid_image_size_is_one_error(name):
    with pytest.raises(UserError) as caught:
        count_model(CATALOG[name], "classification", (1, 0), 1000)
    assert len(caught.value.problems) == 1


def test_the_error_about_an_image_size_names_model_and_size():
    expected = "model 'hrnet_w32' cannot take images of 225 x 230 pixels: "
    with pytest.raises(UserError, match=expected):
        count_model(CATALOG["hrnet_w32"], "classification", (225, 230), 1000)


def test_only_published_classes_hold_dead_weights():
    hafa = CATALOG["pvt_tiny_hafa"]
    assert dead_weights(hafa, "classification") == 264_192
    assert dead_weights(hafa, "detection") == 263_680
    for live in ("pvt_tiny", "resnet18", "swin_tiny_hafa", "pvt_tiny_hafa_paper", "pvt_v2_b1_laa_laa_laa"):
        assert dead_weights(CATALOG[live], "classification") == 0, live
    # A variant defined by an experiment is counted by what it is, not by its name.
    assert dead_weights(derive(hafa, "mine"), "classification") == 264_192


def test_a_detector_is_counted_on_a_fixed_number_of_regions(monkeypatch):
    def gmacs(proposals: int, masks: int) -> float:
        monkeypatch.setattr(complexity, "PROPOSALS", proposals)
        monkeypatch.setattr(complexity, "MASKS", masks)
        return count_model(CATALOG["resnet18"], "detection", (64, 96), 80).gmacs * 1e9

    assert (complexity.PROPOSALS, complexity.MASKS) == (1000, 100)
    # Two hidden layers on 7x7x256, then 81 classes and 4 coordinates for each of 80.
    box = 7 * 7 * 256 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80)
    # Four 3x3 convolutions and a 2x2/2 transposed one on 14x14x256, then a mask for each class on 28x28.
    mask = 14 * 14 * 256 * 256 * (4 * 9 + 4) + 28 * 28 * 256 * 80
    assert gmacs(30, 20) - gmacs(10, 5) == pytest.approx(20 * box + 15 * mask)


def test_metrics_carry_unit_and_convention():
    found = {m.name: m for m in metrics([CATALOG["resnet18"]], "classification", (224, 192), 1000)}
    assert {name: metric.unit for name, metric in found.items()} == {
        "params": "1",
        "params_trainable": "1",
        "params_with_dead_weights": "1",
        "gmacs": "GMAC",
    }
    assert found["params"].value == 11_689_512
    assert "224x192" in found["gmacs"].convention
    assert "no bias, norms" in found["gmacs"].convention
    assert all(m.task == "classification" and m.seed is None and m.convention for m in found.values())


def test_metrics_add_the_dead_weights():
    found = {m.name: m.value for m in metrics([CATALOG["pvt_tiny_hafa"]], "classification", (224, 224), 1000)}
    assert found["params_with_dead_weights"] - found["params"] == 264_192


@pytest.fixture
def experiment(write_experiment):
    return load_experiment(write_experiment())


def test_csv_rows(experiment):
    rows = list(table_rows(experiment, ["resnet18", "deit_tiny"], "classification", "csv"))
    assert rows == ["model,params,gmacs", "resnet18,11689512,1.814073", "deit_tiny,5717416,1.253683"]


def test_text_rows_are_aligned(experiment):
    rows = list(table_rows(experiment, ["resnet18", "deit_tiny"], "classification", "text"))
    assert rows[1].split() == ["resnet18", "11,689,512", "11,689,512", "1.814"]
    assert len({len(row) for row in rows}) == 1


def test_without_names_the_rows_are_those_of_the_tables(experiment, monkeypatch):
    monkeypatch.setattr(complexity, "count_model", lambda spec, *_: complexity.Complexity(1, 1, 1.0))
    names = [row.split(",")[0] for row in table_rows(experiment, [], "segmentation", "csv")][1:]
    assert "pvt_large_hafa" in names
    assert "swin_tiny" not in names


def test_all_unknown_names_are_reported_before_counting(experiment):
    rows = table_rows(experiment, ["resnet18", "pvt_tiny_haffa", "pvt_tinny"], "classification", "csv")
    with pytest.raises(UserError) as caught:
        next(rows)
    assert [str(p).split(";")[0] for p in caught.value.problems] == [
        "unknown model 'pvt_tiny_haffa'",
        "unknown model 'pvt_tinny'",
    ]
