"""The protocol of `hafabench.measure.latency`: order, pairing, statistics, clean-up. No test knows absolute times."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import torch
from torch import nn

from hafabench.catalog import CATALOG
from hafabench.config import LatencyConfig
from hafabench.errors import UserError
from hafabench.measure import latency
from hafabench.measure.latency import Spread, measure, paired_ratio, time_interleaved


class FakeMachine:
    """A clock that only work moves, and a queue like a GPU's: calls enqueue, waiting does the work."""

    def __init__(self, speed=lambda call: 1.0):
        self.now = 0.0
        self.pending = 0.0
        self.calls: list[str] = []
        self._speed = speed

    def clock(self) -> float:
        return self.now

    def subject(self, name: str, seconds: float):
        def call() -> None:
            self.pending += seconds * self._speed(len(self.calls))
            self.calls.append(name)

        return call

    def synchronize(self) -> None:
        self.now += self.pending
        self.pending = 0.0


def run(machine: FakeMachine, work: dict[str, float], warmup: int, repeats: int, **options) -> dict[str, list[float]]:
    subjects = {name: machine.subject(name, seconds) for name, seconds in work.items()}
    return time_interleaved(
        subjects, warmup, repeats, clock=machine.clock, synchronize=machine.synchronize, **options
    )


def test_every_round_times_every_model_once_in_changing_order():
    machine = FakeMachine()
    run(machine, {"a": 1.0, "b": 1.0, "c": 1.0}, warmup=0, repeats=300)
    rounds = [machine.calls[i : i + 3] for i in range(0, 900, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len({tuple(order) for order in rounds}) == 6
    for position in range(3):
        share = Counter(order[position] for order in rounds)
        assert all(75 <= share[name] <= 125 for name in "abc"), f"position {position}: {share}"


def test_order_follows_from_the_seed():
    def calls(seed: int) -> list[str]:
        machine = FakeMachine()
        run(machine, {"a": 1.0, "b": 1.0, "c": 1.0}, 1, 20, seed=seed)
        return machine.calls

    assert calls(1) == calls(1)
    assert calls(1) != calls(2)


def test_queued_work_is_waited_for_and_charged_to_its_model():
    seconds = run(FakeMachine(), {"a": 1.0, "b": 3.0}, warmup=0, repeats=4)
    assert seconds == {"a": [1.0] * 4, "b": [3.0] * 4}


def test_work_left_over_from_before_is_charged_to_no_model():
    machine = FakeMachine()
    machine.pending = 100.0
    assert run(machine, {"a": 1.0}, warmup=0, repeats=2) == {"a": [1.0, 1.0]}


def test_warm_up_rounds_run_and_are_discarded():
    machine = FakeMachine(speed=lambda call: 50.0 if call < 6 else 1.0)
    seconds = run(machine, {"a": 1.0, "b": 2.0}, warmup=3, repeats=5)
    assert len(machine.calls) == 16
    assert seconds == {"a": [1.0] * 5, "b": [2.0] * 5}


def test_spread_is_median_and_quartiles():
    assert Spread.of([100.0, 3.0, 1.0, 4.0, 2.0]) == Spread(median=3.0, low=2.0, high=4.0, repeats=5)


def test_ratio_is_taken_within_rounds_so_that_drift_cancels():
    # The machine becomes slower with every round of two calls; within a round its speed is the same.
    machine = FakeMachine(speed=lambda call: 1.0 + call // 2)
    seconds = run(machine, {"base": 2.0, "model": 5.0}, warmup=0, repeats=9)
    own = Spread.of(seconds["model"])
    assert own.high - own.low > own.median / 2
    ratio = paired_ratio(seconds["model"], seconds["base"])
    assert (ratio.low, ratio.median, ratio.high, ratio.repeats) == pytest.approx((2.5, 2.5, 2.5, 9))


def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians():
    assert paired_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 8.0]).median == 2.0


def test_twenty_times_the_work_is_seen_on_a_real_clock():
    layer, image = nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 64, 64)
    with torch.inference_mode():
        seconds = time_interleaved(
            {"once": lambda: layer(image), "twenty": lambda: [layer(image) for _ in range(20)]}, warmup=3, repeats=15
        )
    assert paired_ratio(seconds["twenty"], seconds["once"]).median > 3


def small_group(**changes) -> LatencyConfig:
    values = {"name": "small", "baseline": "resnet18", "models": ["pvt_tiny_hafa", "resnet18"]}
    return LatencyConfig(**{**values, "image_size": 64, "batch_size": 2, "warmup": 1, "repeats": 3, **changes})


def test_a_group_gives_latencies_and_paired_ratios(capsys):
    found = measure(small_group(), CATALOG, device="cpu")
    assert [(m.model, m.name, m.unit) for m in found] == [
        ("resnet18", "latency_ms", "ms"),
        ("pvt_tiny_hafa", "latency_ms", "ms"),
        ("pvt_tiny_hafa", "latency_ratio", "1"),
    ]
    for metric in found:
        assert 0 < metric.low <= metric.value <= metric.high
        assert (metric.repeats, metric.task, metric.seed) == (3, "classification", None)
        assert "batch of 2 at 64x64" in metric.convention
        assert "1 of warm-up" in metric.convention
    assert "ratio to resnet18" in found[2].convention
    assert "latency/small round 4/4 left 0 s" in capsys.readouterr().err


def test_threads_are_those_of_the_group_while_timing_and_restored_after():
    before = torch.get_num_threads()
    wanted = before + 1
    [baseline] = measure(small_group(models=["resnet18"], threads=wanted), CATALOG, device="cpu")
    assert f"CPU threads {wanted}" in baseline.convention
    assert torch.get_num_threads() == before


def test_no_garbage_is_collected_while_the_clock_runs(monkeypatch):
    seen = []

    def fake_rounds(subjects, warmup, repeats, **_options):
        seen.append((gc.isenabled(), torch.is_inference_mode_enabled()))
        return {name: [1.0] for name in subjects}

    monkeypatch.setattr(latency, "time_interleaved", fake_rounds)
    measure(small_group(models=["resnet18"]), CATALOG, device="cpu")
    assert seen == [(False, True)]
    assert gc.isenabled()


def test_seconds_are_reported_in_milliseconds_and_ratios_without_unit(monkeypatch):
    monkeypatch.setattr(latency, "_subject", lambda *_: None)
    rounds = {"resnet18": [0.010, 0.020, 0.030], "pvt_tiny_hafa": [0.020, 0.040, 0.060]}
    monkeypatch.setattr(latency, "time_interleaved", lambda *_, **__: rounds)
    found = measure(small_group(), CATALOG, device="cpu")
    assert [(m.low, m.value, m.high) for m in found] == [
        pytest.approx((15.0, 20.0, 25.0)),
        pytest.approx((30.0, 40.0, 50.0)),
        pytest.approx((2.0, 2.0, 2.0)),
    ]


def test_an_exhausted_gpu_is_one_sentence_and_leaves_the_process_as_it_was(monkeypatch):
    def no_memory(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(latency, "time_interleaved", no_memory)
    before = torch.get_num_threads()
    with pytest.raises(
        UserError, match=r"'small': 1 models at batch size 2 do not fit into the memory of cpu; lower"
    ):
        measure(small_group(models=["resnet18"], threads=before + 1), CATALOG, device="cpu")
    assert gc.isenabled()
    assert torch.get_num_threads() == before


def test_subjects_are_in_evaluation_mode_reproducible_and_sample_off_the_grid():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = latency._subject(CATALOG["pvt_tiny_hafa"], small_group(), torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected), "building a subject changed the caller's random state"
    second = latency._subject(CATALOG["pvt_tiny_hafa"], small_group(), torch.device("cpu"))
    assert not first.func.training
    for (name, one), (_, two) in zip(first.func.named_parameters(), second.func.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    assert torch.equal(first.args[0], second.args[0])
    offsets = {name: p for name, p in first.func.named_parameters() if name.endswith("merger.offset.weight")}
    assert len(offsets) == 2
    assert all(weight.std() > 0 for weight in offsets.values())


def test_unknown_and_unbuilt_models_are_all_named():
    with pytest.raises(UserError) as caught:
        measure(small_group(baseline="resnet81", models=["dynamicvit_lvs_0.5", "nonsense"]), CATALOG)
    text = str(caught.value)
    assert text.count("latency group 'small':") == 3
    for expected in ("unknown model 'resnet81'; did you mean", "unknown model 'nonsense'", "not built yet"):
        assert expected in text


def test_an_image_size_that_a_model_cannot_take_is_refused_before_anything_is_timed(monkeypatch):
    monkeypatch.setattr(latency, "time_interleaved", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(UserError, match="'hrnet_w32' cannot take images of 200 x 200 pixels"):
        measure(small_group(models=["hrnet_w32"], image_size=200), CATALOG, device="cpu")
