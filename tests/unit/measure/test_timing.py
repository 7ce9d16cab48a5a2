"""Order, pairing, warm-up and stopping of the interleaved rounds, and results on a noisy machine."""

from __future__ import annotations

from collections import Counter

import pytest

from hafabench.measure.timing import FEWEST_ROUNDS, Protocol, time_against_baseline, time_interleaved
from tests.support.fake_machine import FakeMachine, NoisyNeighbours


def run(machine: FakeMachine, work: dict[str, float], warmup: int, repeats: int, **options) -> dict[str, list[float]]:
    return time_interleaved(
        machine.subjects(work), warmup, repeats, clock=machine.clock, synchronize=machine.synchronize, **options
    )


def measured(machine: FakeMachine, work: dict[str, float], protocol: Protocol, **options):
    clocks = {"clock": machine.clock, "synchronize": machine.synchronize}
    return time_against_baseline(lambda: machine.subjects(work), next(iter(work)), protocol, **clocks, **options)


def test_every_round_times_every_model_once_in_changing_order():
    machine = FakeMachine()
    run(machine, {"a": 1.0, "b": 1.0, "c": 1.0}, warmup=0, repeats=300)
    rounds = [machine.calls[i : i + 3] for i in range(0, 900, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert all(rounds[i] == rounds[i + 1][::-1] for i in range(0, 300, 2))
    assert len({tuple(order) for order in rounds}) == 6
    for position in range(3):
        share = Counter(order[position] for order in rounds)
        assert all(70 <= share[name] <= 130 for name in "abc"), f"position {position}: {share}"


def test_order_follows_from_the_seed():
    def calls(seed: int) -> list[str]:
        machine = FakeMachine()
        measured(machine, {"a": 1.0, "b": 1.0, "c": 1.0}, Protocol(1, 20), seed=seed)
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


def test_ratio_is_taken_within_rounds_so_that_drift_cancels():
    # The machine becomes slower with every round of two calls; within a round its speed is the same.
    machine = FakeMachine(speed=lambda call: 1.0 + call // 2)
    found = measured(machine, {"base": 2.0, "model": 5.0}, Protocol(0, 32))
    time, ratio = found.median_time("model"), found.ratio("model")
    assert not time.is_bounded or time.half_width > 0.2
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2.5, 2.5, 2.5))


def test_warm_up_goes_on_until_the_speed_is_steady_and_is_discarded():
    # Every call of the first 60 is half a per cent faster than the one before; two calls make a round.
    machine = FakeMachine(speed=lambda call: 1.005 ** max(60 - call, 0) if call < 60 else 1.0)
    found = measured(machine, {"a": 1.0, "b": 1.0}, Protocol(5, 16))
    assert found.steady
    assert 25 <= found.warmup <= 45
    assert found.median_time("a").value == pytest.approx(1.0, rel=0.05)


def test_warm_up_of_an_unsteady_machine_ends_and_is_reported():
    machine = FakeMachine(speed=lambda call: 1.02**call)
    found = measured(machine, {"a": 1.0, "b": 1.0}, Protocol(3, 4))
    assert (found.steady, found.warmup) == (False, 30)


def test_without_warm_up_every_round_is_kept():
    machine = FakeMachine()
    assert measured(machine, {"a": 1.0, "b": 1.0}, Protocol(0, 20)).rounds == 20
    assert len(machine.calls) == 40


def test_as_many_rounds_as_the_interval_needs():
    def rounds(wanted: float | None) -> int:
        machine = FakeMachine(NoisyNeighbours(3))
        found = measured(machine, {"a": 1.0, "b": 1.1}, Protocol(5, 800, wanted))
        assert wanted is None or found.half_width <= wanted
        return found.rounds

    assert rounds(0.05) == FEWEST_ROUNDS
    assert FEWEST_ROUNDS < rounds(0.02) < rounds(0.01) < 800
    assert rounds(None) == 800


def test_subjects_are_renewed_and_old_ones_never_called_again():
    machine, given = FakeMachine(), []

    def renew():
        copy = len(given)
        given.append(copy)
        return {name: machine.subject(f"{name}{copy}", 1.0) for name in "ab"}

    clocks = {"clock": machine.clock, "synchronize": machine.synchronize}
    found = time_against_baseline(renew, "a", Protocol(0, 20), **clocks)
    assert found.rounds == 20
    # Eight rounds of two calls with one copy; what serves the warm-up is never timed.
    assert [call[1] for call in machine.calls] == ["1"] * 16 + ["2"] * 16 + ["3"] * 8


@pytest.mark.parametrize("wanted", [None, 0.02])
def test_a_subject_against_itself_is_no_difference_in_95_of_100_trials(wanted):
    """Under jitter, drift and bursts, and where the interval's own width decides when to stop."""
    agreed = 0
    for trial in range(100):
        machine = FakeMachine(NoisyNeighbours(trial))
        found = measured(machine, {"a": 1.0, "b": 1.0}, Protocol(5, 120, wanted), seed=trial)
        agreed += not found.ratio("b").excludes(1.0)
    assert agreed >= 95


def test_a_difference_of_five_per_cent_is_detected_in_the_same_noise():
    seen = 0
    for trial in range(40):
        machine = FakeMachine(NoisyNeighbours(trial))
        found = measured(machine, {"a": 1.0, "b": 1.05}, Protocol(5, 400, 0.02), seed=trial)
        assert 1.0 < found.ratio("b").value < 1.1
        seen += found.ratio("b").low > 1.0
    assert seen >= 38
