"""Training states that contradict themselves are refused with the way out, and nothing of them is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from hafabench.engines.distributed import World
from hafabench.engines.interrupt import StopRequest
from hafabench.engines.training import TrainingSession
from hafabench.engines.training_state import STATE, TrainingState
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.runs.lease import hold
from hafabench.runs.run import Run
from tools.tiny_runs.classification import tiny_run

TOTAL, DONE = 12, 3


class Schedules:
    """The part of mmengine's schedulers that a state contains."""

    def __init__(self) -> None:
        self.state = {"schedulers": [{"_global_step": 0, "last_step": 0, "_last_value": [0.1], "param_name": "lr"}]}

    def state_dict(self) -> dict[str, Any]:
        return deepcopy(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def fresh(optimizer: str = "adamw", scaler: Any = None, average: bool = False) -> TrainingState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    made = (
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if optimizer == "sgd"
        else torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    )
    off = torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(model, made, scaler or off, deepcopy(model) if average else None)


def save(run: Run, **options: Any) -> dict[str, Any]:
    """Save a state after `DONE` steps and return its content."""
    state = fresh(**options)
    for _ in range(DONE):
        state.model(torch.randn(5, 3)).square().sum().backward()
        state.optimizer.step()
        if isinstance(state.scaler, Schedules):
            state.scaler.state["schedulers"][0]["_global_step"] += 1
    state.step = DONE
    with hold(run, "train") as lease:
        state.save(run, 1.5, lease)
    return load_checkpoint(run.work / STATE)


@pytest.fixture
def run(tmp_path) -> Run:
    return tiny_run(tmp_path / "run", images=tmp_path)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "sgd"}, {"average": True}, {"schedules": True}],
    ids=["adamw", "sgd", "average", "schedules"],
)
def test_a_whole_state_is_resumed(run, options):
    def made() -> TrainingState:
        schedules = Schedules() if options.get("schedules") else None
        return fresh(**{k: v for k, v in options.items() if k != "schedules"}, scaler=schedules)

    content = save(
        run,
        **{k: v for k, v in options.items() if k != "schedules"},
        scaler=Schedules() if options.get("schedules") else None,
    )
    state = made()
    state.resume(run, TOTAL, verbose=False)
    assert (state.step, state.seconds, state.resumes) == (DONE, 1.5, 1)
    assert all(torch.equal(value, content["model"][name]) for name, value in state.model.state_dict().items())
    assert state.optimizer.state_dict()["state"].keys() == content["optimizer"]["state"].keys()


def set_at(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that changes one value of a state; a function as value is called with what is there."""

    def change(content: dict[str, Any]) -> None:
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to(place[path[-1]]) if callable(to) else to

    return change


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


PARAMETER = ("optimizer", "state", 0)
GROUP = ("optimizer", "param_groups", 0)
NUMBERS = [99, TOTAL, 0, -1, 2.0, True, "3", None, math.nan]
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    **{
        f"step {value!r}": (set_at("step", to=value), "step: expected a whole number from 1 to 11")
        for value in NUMBERS
    },
    "step of another time": (set_at("step", to=DONE - 1), "optimizer.state: has done 3 steps, and the training 2"),
    "step beyond the optimiser": (set_at("step", to=DONE + 1), "has done 3 steps, and the training 4"),
    "no step": (drop("step"), "step: expected a whole number"),
    **{
        f"seconds {value!r}": (set_at("seconds", to=value), "seconds: expected a number of 0 or more")
        for value in (-1.0, math.nan, math.inf, "1", None, True)
    },
    "resumes -1": (set_at("resumes", to=-1), "resumes: expected a whole number of 0 or more"),
    "started 5": (set_at("started", to=5), "started: expected a time"),
    "started at noon": (set_at("started", to="noon"), "started: expected a time"),
    "no model": (drop("model"), "expected weights by name, found NoneType"),
    "weight nan": (set_at("model", "0.weight", to=lambda v: v * math.nan), "0.weight: some values are not finite"),
    "statistics infinite": (
        set_at("model", "1.running_var", to=lambda v: v / 0),
        "1.running_var: some values are not",
    ),
    "weight of integers": (set_at("model", "0.weight", to=lambda v: v.long()), "expected data type torch.float32"),
    "no optimizer": (drop("optimizer"), "optimizer: expected the state of an optimiser"),
    "optimizer is a list": (set_at("optimizer", to=[]), "optimizer: expected the state of an optimiser"),
    "no groups": (set_at("optimizer", "param_groups", to=[]), "the groups of parameters are not those"),
    "groups of other parameters": (set_at(*GROUP, "params", to=[0, 1]), "the groups of parameters are not those"),
    "group is none": (set_at(*GROUP, to=None), "the groups of parameters are not those"),
    "lr nan": (set_at(*GROUP, "lr", to=math.nan), "param_groups[0].lr: expected a finite number"),
    "lr missing": (drop(*GROUP, "lr"), "param_groups[0].lr: expected a finite number"),
    "betas of one": (set_at(*GROUP, "betas", to=(0.9,)), "param_groups[0].betas: expected 2 values"),
    "betas of text": (set_at(*GROUP, "betas", to=("a", 0.9)), "param_groups[0].betas[0]: expected a finite number"),
    "no moments": (set_at("optimizer", "state", to={}), "expected the state of the parameters after 3 steps"),
    "moments of another shape": (set_at(*PARAMETER, "exp_avg", to=torch.zeros(2)), "exp_avg: expected shape (4, 3)"),
    "moments transposed": (set_at(*PARAMETER, "exp_avg", to=lambda v: v.t()), "exp_avg: expected shape (4, 3)"),
    "moments nan": (set_at(*PARAMETER, "exp_avg_sq", to=lambda v: v * math.nan), "exp_avg_sq: some values are not"),
    "moments of integers": (set_at(*PARAMETER, "exp_avg", to=lambda v: v.int()), "exp_avg: expected data type"),
    "moment missing": (drop(*PARAMETER, "exp_avg"), "expected step, exp_avg, exp_avg_sq, found step, exp_avg_sq"),
    "moments of no parameter": (
        set_at("optimizer", "state", 9, to={}),
        "state[9]: expected the state of one of the 4",
    ),
    "moments by name": (set_at("optimizer", "state", "a", to={}), "state['a']: expected the state of one of the 4"),
    "step of the optimiser nan": (set_at(*PARAMETER, "step", to=torch.tensor(math.nan)), "step: expected a finite"),
    "step of the optimiser -1": (set_at(*PARAMETER, "step", to=torch.tensor(-1.0)), "has done -1 steps"),
    "step of the optimiser 1.5": (set_at(*PARAMETER, "step", to=torch.tensor(1.5)), "has done 1.5 steps"),
    "steps of the optimiser by position": (set_at(*PARAMETER, "step", to=torch.zeros(2)), "step: expected a finite"),
    "no scaler": (drop("scaler"), "scaler: expected the state of a gradient scaler or of schedules"),
    "scaler nan": (set_at("scaler", to={"scale": math.nan}), "scaler.scale: expected a finite number above 0"),
    "scaler 0": (set_at("scaler", to={"scale": 0.0}), "scaler.scale: expected a finite number above 0"),
}


def change_state(run: Run, content: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    if "state" in content["optimizer"]:
        content["optimizer"]["state"].setdefault(9, None)
        content["optimizer"]["state"].setdefault("a", None)
    change(content)
    if isinstance(content.get("optimizer"), dict):
        for key in (9, "a"):
            if content["optimizer"]["state"].get(key, 0) is None:
                del content["optimizer"]["state"][key]
    save_checkpoint(run.work / STATE, content)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_state_that_contradicts_itself_is_refused_with_the_way_out(run, kind):
    change, message = CHANGES[kind]
    change_state(run, save(run), change)
    state = fresh()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        state.resume(run, TOTAL, verbose=False)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"{run.work / STATE}: delete this file to start the training over")
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert (state.step, state.optimizer.state_dict()["state"]) == (0, {})


SCHEDULE = ("scaler", "schedulers", 0)
SCHEDULES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "none": (set_at("scaler", "schedulers", to=[]), "scaler.schedulers: expected 1 values"),
    "other names": (drop(*SCHEDULE, "last_step"), "expected _global_step, last_step, _last_value, param_name, found"),
    "a method": (set_at(*SCHEDULE, "step", to=5), "expected _global_step, last_step, _last_value, param_name, found"),
    "another step": (set_at(*SCHEDULE, "_global_step", to=9), "_global_step: expected 3 after 3 steps, found 9"),
    "nan": (set_at(*SCHEDULE, "_last_value", to=[math.nan]), "_last_value[0]: expected a finite number"),
    "another parameter": (set_at(*SCHEDULE, "param_name", to="x"), "param_name: expected 'lr', found 'x'"),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_of_another_training_are_refused(run, kind):
    change, message = SCHEDULES[kind]
    content = save(run, scaler=Schedules())
    if kind == "a method":
        content["scaler"]["schedulers"][0]["step"] = None
    change(content)
    save_checkpoint(run.work / STATE, content)
    with pytest.raises(UserError) as caught:
        fresh(scaler=Schedules()).resume(run, TOTAL, verbose=False)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "not finite"])
def test_a_moving_average_that_cannot_be_loaded_is_refused(run, kind):
    content = save(run, average=True)
    if kind == "missing":
        del content["average"]
    else:
        content["average"]["0.bias"] *= math.inf
    save_checkpoint(run.work / STATE, content)
    with pytest.raises(UserError, match=r"expected weights by name|0\.bias: some values are not finite"):
        fresh(average=True).resume(run, TOTAL, verbose=False)


def test_a_loss_that_is_not_finite_contradicts_the_state_after_it(run):
    save(run)
    entries = [{"step": step, "loss": math.nan if step == 2 else 1.0} for step in range(1, DONE + 2)]
    run.history.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(UserError, match=r"history\.jsonl: the history has the loss nan at step 2"):
        fresh().resume(run, TOTAL, verbose=False)


def test_a_scale_of_the_loss_may_have_skipped_updates(run):
    content = save(run)
    content["step"] = DONE + 2
    content["scaler"] = torch.amp.GradScaler("cpu").state_dict()
    save_checkpoint(run.work / STATE, content)
    state = fresh(scaler=torch.amp.GradScaler("cpu"))
    state.resume(run, TOTAL, verbose=False)
    assert state.step == DONE + 2


def test_a_state_without_a_scale_can_be_resumed_with_mixed_precision(run):
    save(run)
    state = fresh(scaler=torch.amp.GradScaler("cpu"))
    state.resume(run, TOTAL, verbose=False)
    assert state.scaler.get_scale() == 2.0**16


def test_a_flipped_byte_of_a_state_is_found(run):
    value = save(run)["optimizer"]["state"][0]["exp_avg"].numpy().tobytes()
    file = run.work / STATE
    content = bytearray(file.read_bytes())
    content[content.index(value)] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"the content has changed.*\n.*delete this file to start the training over"):
        fresh().resume(run, TOTAL, verbose=False)


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean"])
def test_initial_weights_and_buffers_that_are_not_finite_are_refused(run, name):
    state = fresh()
    state.model.state_dict()[name].fill_(math.inf)
    session = TrainingSession(run, World(0, 0, 1, torch.device("cpu")), StopRequest(), TOTAL, lease=None)
    with pytest.raises(UserError, match=f"initial weights or buffers of tiny_convnext are not finite .*: {name}; "):
        session.begin(state)
    assert not run.history.exists()
