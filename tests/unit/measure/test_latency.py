"""Models, metrics, clean-up and warnings of `hafabench.measure.latency`. No test knows absolute times."""

from __future__ import annotations

import gc

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from hafabench.cli import cli
from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import LatencyConfig
from hafabench.errors import UserError
from hafabench.measure import latency
from hafabench.measure import self_test as selftest
from hafabench.measure.instrument import Comparison, Protocol, compare
from hafabench.measure.latency import measure
from hafabench.measure.self_test import SelfTest
from hafabench.stats.intervals import Interval
from tools.checkout import REPOSITORY


def test_twenty_times_the_work_is_seen_on_a_real_clock():
    layer, image = nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 64, 64)
    subjects = {"once": lambda: layer(image), "twenty": lambda: [layer(image) for _ in range(20)]}
    with torch.inference_mode():
        found = compare(lambda: subjects, "once", Protocol(3, 15))
    assert found.ratio("twenty").value > 3


def small_group(**changes) -> LatencyConfig:
    values = {"name": "small", "baseline": "resnet18", "models": ["pvt_tiny_hafa", "resnet18"], "threads": 1}
    return LatencyConfig(**{**values, "image_size": 64, "batch_size": 2, "warmup": 1, "repeats": 3, **changes})


def fake_comparison(seconds: dict[str, list[float]], **changes) -> Comparison:
    return Comparison(
        **{"seconds": seconds, "baseline": "resnet18", "warmup": 10, "steady": True, "confidence": 0.99} | changes
    )


def test_a_group_gives_latencies_and_paired_ratios(capsys):
    found = measure(small_group(), CATALOG, device="cpu").metrics
    assert [(m.model, m.name, m.unit) for m in found] == [
        ("resnet18", "latency_ms", "ms"),
        ("pvt_tiny_hafa", "latency_ms", "ms"),
        ("pvt_tiny_hafa", "latency_ratio", "1"),
    ]
    for metric in found:
        assert 0 < metric.low <= metric.value <= metric.high
        assert (metric.repeats, metric.task, metric.seed, metric.interval) == (3, "classification", None, None)
        assert "batch of 2 at 64x64" in metric.convention
        assert "3 interleaved rounds after" in metric.convention
    assert "ratio to resnet18" in found[2].convention
    assert "latency/small round 3 of at most 3" in capsys.readouterr().err


def test_threads_are_those_of_the_group_while_timing_and_restored_after(monkeypatch):
    before = torch.get_num_threads()
    wanted = before + 1
    seen = []

    def fake_compare(*_arguments, **_options):
        seen.append(torch.get_num_threads())
        return fake_comparison({"resnet18": [1.0, 1.0]})

    monkeypatch.setattr(latency, "compare", fake_compare)
    [baseline] = measure(small_group(models=["resnet18"], threads=wanted), CATALOG, device="cpu").metrics
    assert seen == [wanted]
    assert f"CPU threads {wanted}" in baseline.convention
    assert torch.get_num_threads() == before


def test_no_garbage_is_collected_while_the_clock_runs(monkeypatch):
    seen = []

    def fake_compare(*_arguments, **_options):
        seen.append((gc.isenabled(), torch.is_inference_mode_enabled()))
        return fake_comparison({"resnet18": [1.0, 1.0]})

    monkeypatch.setattr(latency, "compare", fake_compare)
    measure(small_group(models=["resnet18"]), CATALOG, device="cpu")
    assert seen == [(False, True)]
    assert gc.isenabled()


def test_medians_quartiles_and_intervals_in_their_units(monkeypatch):
    rounds = {"resnet18": [0.010, 0.020, 0.030] * 20, "pvt_tiny_hafa": [0.020, 0.040, 0.060] * 20}
    monkeypatch.setattr(latency, "compare", lambda *_, **__: fake_comparison(rounds))
    found = measure(small_group(throughput_batch=8), CATALOG, device="cpu").metrics
    assert [(m.model, m.name, m.unit, (m.low, m.value, m.high)) for m in found] == [
        ("resnet18", "latency_ms", "ms", pytest.approx((10.0, 20.0, 30.0))),
        ("pvt_tiny_hafa", "latency_ms", "ms", pytest.approx((20.0, 40.0, 60.0))),
        ("pvt_tiny_hafa", "latency_ratio", "1", pytest.approx((2.0, 2.0, 2.0))),
        ("resnet18", "images_per_s", "images/s", pytest.approx((800 / 3, 400.0, 800.0))),
        ("pvt_tiny_hafa", "images_per_s", "images/s", pytest.approx((400 / 3, 200.0, 400.0))),
        ("pvt_tiny_hafa", "throughput_ratio", "1", pytest.approx((0.5, 0.5, 0.5))),
    ]
    assert found[2].interval == pytest.approx((2.0, 2.0))
    assert found[3].interval == pytest.approx((800 / 3, 800.0))
    assert found[4].interval == pytest.approx((400 / 3, 400.0))
    assert {m.confidence for m in found} == {0.99}


def test_a_machine_too_noisy_to_say_is_said(monkeypatch):
    noisy = {"resnet18": [0.01] * 60, "pvt_tiny_hafa": [0.01, 0.02, 0.03] * 20}
    monkeypatch.setattr(latency, "compare", lambda *_, **__: fake_comparison(noisy, steady=False))
    settling, ratio, machine = measure(small_group(interval=0.02), CATALOG, device="cpu").warnings
    assert settling.endswith("the speed had not settled after 10 rounds of warm-up")
    assert "too noisy to say: the ratio of pvt_tiny_hafa to resnet18 is known to 50.0 % after 60 rounds" in ratio
    assert "wanted 2.0 %" in ratio
    assert "cores" in machine
    quiet = {"resnet18": [0.01] * 60, "pvt_tiny_hafa": [0.02] * 60}
    monkeypatch.setattr(latency, "compare", lambda *_, **__: fake_comparison(quiet))
    assert measure(small_group(interval=0.02), CATALOG, device="cpu").warnings == []


def test_the_machine_is_described(monkeypatch):
    monkeypatch.setattr(latency, "compare", lambda *_, **__: fake_comparison({"resnet18": [1.0, 1.0]}))
    machine = measure(small_group(models=["resnet18"]), CATALOG, device="cpu").machine
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

    monkeypatch.setattr(latency, "compare", fake_compare)
    found = list(selftest.trials(small_group(), CATALOG["resnet18"], 3, device="cpu"))
    assert names == [("a", 0), ("a", 1), ("a", 2)]
    assert [interval.value for interval in found] == pytest.approx([1.005] * 3)
    off = Interval(1.1, 1.05, 1.2, 0.99)
    assert SelfTest((*found * 32, off, off, off, off)).passed
    result = SelfTest((*found * 31, *[off] * 7))
    assert not result.passed
    assert "no difference in 93 of 100 trials, 93 %" in str(result)


def test_an_exhausted_gpu_is_one_sentence_and_leaves_the_process_as_it_was(monkeypatch):
    def no_memory(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(latency, "compare", no_memory)
    before = torch.get_num_threads()
    with pytest.raises(
        UserError, match=r"'small': 1 models at batch size 2 do not fit into the memory of cpu; lower the batch size"
    ):
        measure(small_group(models=["resnet18"], threads=before + 1), CATALOG, device="cpu")
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


def test_an_image_size_that_a_model_cannot_take_is_refused_before_anything_is_timed(monkeypatch):
    monkeypatch.setattr(latency, "compare", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(UserError, match="'hrnet_w32' cannot take images of 200 x 200 pixels"):
        measure(small_group(models=["hrnet_w32"], image_size=200), CATALOG, device="cpu")


@pytest.mark.parametrize(("off", "code"), [(0, 0), (2, 1)])
def test_the_self_tests_verdict_is_its_exit_code(monkeypatch, off, code):
    found = [Interval(1.0, 0.9, 1.1, 0.99)] * (10 - off) + [Interval(1.2, 1.1, 1.3, 0.99)] * off
    monkeypatch.setattr(selftest, "trials", lambda group, spec, number: iter(found[:number]))
    arguments = ["latency", "table4", "--self-test", "--trials", "10", "-e", str(REPOSITORY / "configs/digits.yaml")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == code
    assert f"A/A: no difference in {10 - off} of 10 trials" in done.output
