"""Models, metrics, clean-up and warnings of `hafabench.measure.latency`, independent of absolute times."""

from __future__ import annotations

import gc

import pytest
import torch
from click.testing import CliRunner
from timm.models import register_model
from torch import nn

from hafabench.cli import cli
from hafabench.config.catalog import CATALOG, ModelSpec
from hafabench.config.experiment import LatencyConfig
from hafabench.errors import UserError
from hafabench.measure import latency
from hafabench.measure import self_test as selftest
from hafabench.measure.latency import measure
from hafabench.measure.self_test import SelfTest
from hafabench.measure.timing import InterleavedTimes, Protocol, time_against_baseline
from hafabench.stats.intervals import Interval
from tools.checkout import REPOSITORY


def test_twenty_times_the_work_is_measured_on_a_real_clock():
    layer, image = nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 64, 64)
    subjects = {"once": lambda: layer(image), "twenty": lambda: [layer(image) for _ in range(20)]}
    with torch.inference_mode():
        found = time_against_baseline(lambda: subjects, "once", Protocol(3, 15))
    assert found.ratio("twenty").value > 3


# What a forward pass of `recording_model` saw of its process: threads, garbage collection, inference mode.
SEEN: list[tuple[int, bool, bool]] = []


@register_model
def recording_model(pretrained: bool = False, num_classes: int = 1000, **_kwargs) -> nn.Module:
    class Recording(nn.Linear):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if not image.is_meta:
                SEEN.append((torch.get_num_threads(), gc.isenabled(), torch.is_inference_mode_enabled()))
            return super().forward(image.mean((2, 3)))

    return Recording(3, num_classes)


@register_model
def exhausting_model(pretrained: bool = False, num_classes: int = 1000, **_kwargs) -> nn.Module:
    class Exhausting(nn.Linear):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if not image.is_meta:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image.mean((2, 3)))

    return Exhausting(3, num_classes)


@register_model
def infinite_model(pretrained: bool = False, num_classes: int = 1000, **_kwargs) -> nn.Module:
    model = nn.Linear(3, num_classes)
    nn.init.constant_(model.bias, float("inf"))
    return model


SMALL = {
    "small": ModelSpec("small", "resnet", "tiny", "test_resnet"),
    "other": ModelSpec("other", "resnet", "tiny", "test_convnext"),
    "recording": ModelSpec("recording", "resnet", "tiny", "recording_model"),
    "exhausting": ModelSpec("exhausting", "resnet", "tiny", "exhausting_model"),
}


def small_group(**changes) -> LatencyConfig:
    values = {"name": "small", "baseline": "small", "models": ["other", "small"], "threads": 1}
    return LatencyConfig(**{**values, "image_size": 64, "batch_size": 2, "warmup": 1, "repeats": 3, **changes})


def fake_comparison(seconds: dict[str, list[float]], **changes) -> InterleavedTimes:
    return InterleavedTimes(
        **{"seconds": seconds, "baseline": "small", "warmup": 10, "steady": True, "confidence": 0.99} | changes
    )


def test_a_group_gives_latencies_and_paired_ratios(capsys):
    found = measure(small_group(), SMALL, device="cpu").metrics
    assert [(m.model, m.name, m.unit) for m in found] == [
        ("small", "latency_ms", "ms"),
        ("other", "latency_ms", "ms"),
        ("other", "latency_ratio", "1"),
    ]
    for metric in found:
        assert 0 < metric.low <= metric.value <= metric.high
        assert (metric.repeats, metric.task, metric.seed, metric.interval) == (3, "classification", None, None)
        assert "batch of 2 at 64x64" in metric.convention
        assert "3 interleaved rounds after" in metric.convention
    assert "ratio to small" in found[2].convention
    assert "latency/small round 3 of at most 3" in capsys.readouterr().err


def test_models_run_with_the_groups_threads_in_inference_mode_and_without_garbage_collection():
    before = torch.get_num_threads()
    wanted = before + 1
    SEEN.clear()
    group = small_group(baseline="recording", models=["recording"], threads=wanted)
    [baseline] = measure(group, SMALL, device="cpu").metrics
    assert set(SEEN) == {(wanted, False, True)}
    assert f"CPU threads {wanted}" in baseline.convention
    assert torch.get_num_threads() == before
    assert gc.isenabled()


def test_medians_quartiles_and_intervals_in_their_units(monkeypatch):
    rounds = {"small": [0.010, 0.020, 0.030] * 20, "other": [0.020, 0.040, 0.060] * 20}
    monkeypatch.setattr(latency, "time_against_baseline", lambda *_, **__: fake_comparison(rounds))
    found = measure(small_group(throughput_batch=8), SMALL, device="cpu").metrics
    assert [(m.model, m.name, m.unit, (m.low, m.value, m.high)) for m in found] == [
        ("small", "latency_ms", "ms", pytest.approx((10.0, 20.0, 30.0))),
        ("other", "latency_ms", "ms", pytest.approx((20.0, 40.0, 60.0))),
        ("other", "latency_ratio", "1", pytest.approx((2.0, 2.0, 2.0))),
        ("small", "images_per_s", "images/s", pytest.approx((800 / 3, 400.0, 800.0))),
        ("other", "images_per_s", "images/s", pytest.approx((400 / 3, 200.0, 400.0))),
        ("other", "throughput_ratio", "1", pytest.approx((0.5, 0.5, 0.5))),
    ]
    assert found[2].interval == pytest.approx((2.0, 2.0))
    assert found[3].interval == pytest.approx((800 / 3, 800.0))
    assert found[4].interval == pytest.approx((400 / 3, 400.0))
    assert {m.confidence for m in found} == {0.99}


def test_a_machine_that_is_too_noisy_is_reported(monkeypatch):
    noisy = {"small": [0.01] * 60, "other": [0.01, 0.02, 0.03] * 20}
    monkeypatch.setattr(latency, "time_against_baseline", lambda *_, **__: fake_comparison(noisy, steady=False))
    settling, ratio, machine = measure(small_group(interval=0.02), SMALL, device="cpu").warnings
    assert settling.endswith("the speed was not steady after 10 rounds of warm-up")
    assert "too noisy: the ratio of other to small is known to 50.0 % after 60 rounds" in ratio
    assert "configured 2.0 %" in ratio
    assert "cores" in machine
    quiet = {"small": [0.01] * 60, "other": [0.02] * 60}
    monkeypatch.setattr(latency, "time_against_baseline", lambda *_, **__: fake_comparison(quiet))
    assert measure(small_group(interval=0.02), SMALL, device="cpu").warnings == []


def test_the_machine_is_described():
    machine = measure(small_group(models=["small"]), SMALL, device="cpu").machine
    assert machine.cores >= len(machine.affinity) >= 1
    assert machine.cpu
    assert len(machine.load) == 2
    assert 0 <= machine.others_percent <= machine.busy_percent <= 100


def test_a_self_test_times_one_model_twice_and_counts_agreement(monkeypatch):
    names = []

    def fake_compare(renew, baseline, *_arguments, **options):
        first, second = (call.func for call in renew().values())
        assert first is not second
        names.append((baseline, options["seed"]))
        return fake_comparison({"a": [1.0] * 60, "b": [1.0, 1.01] * 30}, baseline="a")

    monkeypatch.setattr(latency, "time_against_baseline", fake_compare)
    found = list(selftest.trials(small_group(), SMALL["small"], 3, device="cpu"))
    assert names == [("a", 0), ("a", 1), ("a", 2)]
    assert [interval.value for interval in found] == pytest.approx([1.005] * 3)
    off = Interval(1.1, 1.05, 1.2, 0.99)
    assert SelfTest((*found * 32, off, off, off, off)).passed
    result = SelfTest((*found * 31, *[off] * 7))
    assert not result.passed
    assert "no difference in 93 of 100 trials, 93 %" in str(result)


def test_an_exhausted_gpu_is_an_error_that_leaves_the_process_as_it_was():
    before = torch.get_num_threads()
    with pytest.raises(
        UserError, match=r"'small': 1 models at batch size 2 do not fit into the memory of cpu; lower the batch size"
    ):
        measure(small_group(baseline="exhausting", models=["exhausting"], threads=before + 1), SMALL, device="cpu")
    assert gc.isenabled()
    assert torch.get_num_threads() == before


def test_subjects_are_in_evaluation_mode_reproducible_and_sample_off_the_grid():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = latency._model(CATALOG["pvt_tiny_hafa"])
    assert torch.equal(torch.rand(3), expected), "building a subject changed the caller's random state"
    second = latency._model(CATALOG["pvt_tiny_hafa"])
    assert not first.training
    for (name, one), (_, two) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    assert torch.equal(latency._image(2, 8), latency._image(2, 8))
    offsets = {name: p for name, p in first.named_parameters() if name.endswith("merger.offset.weight")}
    assert len(offsets) == 2
    assert all(weight.std() > 0 for weight in offsets.values())


def test_unknown_models_are_all_named():
    with pytest.raises(UserError) as caught:
        measure(small_group(baseline="resnet81", models=["pvt_tiny", "nonsense"]), CATALOG)
    text = str(caught.value)
    assert text.count("latency group 'small':") == 2
    for expected in ("unknown model 'resnet81'; did you mean", "unknown model 'nonsense'"):
        assert expected in text


def test_an_invalid_image_size_is_refused_before_timing(capsys):
    with pytest.raises(UserError, match="'hrnet_w32' cannot take images of 200 x 200 pixels"):
        measure(small_group(baseline="hrnet_w32", models=["hrnet_w32"], image_size=200), CATALOG, device="cpu")
    assert "round" not in capsys.readouterr().err


@pytest.mark.parametrize(("off", "code"), [(0, 0), (2, 1)])
def test_the_self_tests_verdict_is_its_exit_code(monkeypatch, off, code):
    found = [Interval(1.0, 0.9, 1.1, 0.99)] * (10 - off) + [Interval(1.2, 1.1, 1.3, 0.99)] * off
    monkeypatch.setattr(selftest, "trials", lambda group, spec, number: iter(found[:number]))
    arguments = ["latency", "table4", "--self-test", "--trials", "10", "-e", str(REPOSITORY / "configs/digits.yaml")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == code
    assert f"A/A: no difference in {10 - off} of 10 trials" in done.output


def test_a_model_whose_weights_are_not_finite_is_not_timed():
    with pytest.raises(UserError, match="infinite: some initial weights or buffers are not finite: bias"):
        latency._model(ModelSpec("infinite", "resnet", "tiny", "infinite_model"))
