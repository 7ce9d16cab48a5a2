"""Checks of a stored training state before anything of it is loaded.

A state that is damaged has another digest. The checks here find states that are whole and still contradict
themselves, the training or its history. They would otherwise end in a traceback after hours, or in wrong weights.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import is_finite, tensor_problem
from hafabench.results.history import read_history

Key = str
Found = Iterator[tuple[Key, str]]


def progress_problems(content: Mapping[str, Any], total: int) -> Found:
    """Yield the keys of a state whose values cannot describe the progress of a training, and why.

    Args:
        content: The content of the state.
        total: Number of optimiser steps of the whole training.
    """
    step, seconds, resumes, started = (content.get(key) for key in ("step", "seconds", "resumes", "started"))
    if not is_integer(step) or not 0 < step < total:
        yield "step", f"expected a whole number from 1 to {total - 1} of the {total} steps, found {step!r}"
    if not is_number(seconds) or seconds < 0:
        yield "seconds", f"expected a number of 0 or more, found {seconds!r}"
    if not is_integer(resumes) or resumes < 0:
        yield "resumes", f"expected a whole number of 0 or more, found {resumes!r}"
    try:
        datetime.fromisoformat(started)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        yield "started", f"expected a time as in ISO 8601, found {started!r}"


def history_problem(file: Path, step: int) -> str:
    """Describe why a history cannot be that of the first ``step`` steps; empty if it can."""
    try:
        entries = read_history(file) if file.exists() else []
    except UserError:
        return "the history cannot be read"
    for entry in entries:
        if entry["step"] <= step and not is_number(entry.get("loss")):
            return f"the history has the loss {entry.get('loss')!r} at step {entry['step']}, before the saved state"
    return ""


def optimizer_problems(optimizer: torch.optim.Optimizer, found: Any, step: int, *, may_skip: bool) -> Found:
    """Yield the keys at which ``found`` cannot be the state of ``optimizer`` after ``step`` steps, and why.

    Args:
        optimizer: The optimiser of the training, which has not done a step yet.
        found: The stored state.
        step: Number of steps that the training has done.
        may_skip: Whether mixed precision may have skipped the updates of some steps.
    """
    if not isinstance(found, Mapping) or not isinstance(found.get("state"), Mapping):
        yield "optimizer", "expected the state of an optimiser"
        return
    own = optimizer.state_dict()
    groups = found.get("param_groups")
    if not isinstance(groups, list) or [_members(group) for group in groups] != [
        _members(group) for group in own["param_groups"]
    ]:
        yield "optimizer.param_groups", "the groups of parameters are not those of this model and recipe"
        return
    for index, (own_group, group) in enumerate(zip(own["param_groups"], groups, strict=True)):
        # Versions of torch may have further options.
        shared = {key: value for key, value in own_group.items() if key in group or key == "lr"}
        present = {key: group.get(key) for key in shared}
        yield from unlike(shared, present, f"optimizer.param_groups[{index}]")
    members = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    expected = _state_of_one(optimizer)
    if expected and not found["state"] and not may_skip:
        yield "optimizer.state", f"expected the state of the parameters after {step} steps, found none"
    counts: list[float] = []
    for index, entry in found["state"].items():
        place = f"optimizer.state[{index!r}]"
        if not is_integer(index) or not 0 <= index < len(members) or not isinstance(entry, Mapping):
            yield place, f"expected the state of one of the {len(members)} parameters"
            continue
        if entry.keys() != expected.keys():
            names = (", ".join(map(str, keys)) or "nothing" for keys in (expected, entry))
            yield place, "expected {}, found {}".format(*names)
            continue
        for name, example in expected.items():
            problem = _state_problem(example, entry[name], members[index])
            if problem:
                yield f"{place}.{name}", problem
            elif name == "step":
                counts.append(float(entry[name]))
    wrong = [count for count in counts if not (count.is_integer() and 1 <= count <= step)]
    if wrong or (counts and max(counts) < step and not may_skip):
        count = wrong[0] if wrong else max(counts)
        yield "optimizer.state", f"has done {count:g} steps, and the training {step}"


def unlike(own: Any, found: Any, key: Key) -> Found:
    """Yield the keys at which ``found`` differs from ``own`` in its names, lengths or kinds of values, and why.

    Args:
        own: Numbers, texts and containers of them.
        found: What is to take their place. Numbers may differ but have to be finite if the own ones are.
        key: The dotted key of both.
    """
    if isinstance(own, Mapping):
        if not isinstance(found, Mapping) or found.keys() != own.keys():
            names = ", ".join(map(str, own)) or "nothing"
            instead = ", ".join(map(str, found)) or "nothing" if isinstance(found, Mapping) else repr(found)
            yield key, f"expected {names}, found {instead}"
            return
        for name in own:
            yield from unlike(own[name], found[name], f"{key}.{name}")
    elif isinstance(own, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(own):
            yield key, f"expected {len(own)} values, found {found!r}"
            return
        for index, pair in enumerate(zip(own, found, strict=True)):
            yield from unlike(*pair, f"{key}[{index}]")
    elif isinstance(own, torch.Tensor):
        problem = tensor_problem(own, found)
        if problem:
            yield key, problem
    elif is_number(own) and not is_number(found):
        yield key, f"expected a finite number, found {found!r}"
    elif isinstance(own, str) and found != own:
        yield key, f"expected {own!r}, found {found!r}"


def schedule_problems(own: Any, found: Any, step: int) -> Found:
    """Yield the keys at which ``found`` cannot be the state of learning rate schedules after ``step`` steps, and why.

    Args:
        own: The state of the schedules before the first step, as `hafabench.engines.dense.training` stores it.
        found: The stored state.
        step: Number of steps that the training has done.
    """
    for index, (before, after) in enumerate(zip(own["schedulers"], found["schedulers"], strict=True)):
        expected = before["_global_step"] + step
        if after["_global_step"] != expected:
            message = f"expected {expected} after {step} steps, found {after['_global_step']!r}"
            yield f"scaler.schedulers[{index}]._global_step", message


def scale_problem(scaler: Any, key: Key) -> Found:
    """Yield why a stored gradient scaler cannot scale a loss, if it cannot."""
    scale = scaler.get("scale") if isinstance(scaler, Mapping) else None
    if not is_number(scale) or scale <= 0:
        yield f"{key}.scale", f"expected a finite number above 0, found {scale!r}"


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number; truth values are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether a value is a whole number; truth values are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _members(group: Any) -> Any:
    return group.get("params") if isinstance(group, Mapping) else None


def _state_of_one(optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
    """Return what an optimiser stores for a parameter of shape (2,) after its first step."""
    device = optimizer.param_groups[0]["params"][0].device
    parameter = nn.Parameter(torch.zeros(2, device=device))
    parameter.grad = torch.zeros_like(parameter)
    # Classes derived from another optimiser have defaults that their constructor does not accept.
    accepted = inspect.signature(type(optimizer)).parameters
    probe = type(optimizer)([parameter], **{k: value for k, value in optimizer.defaults.items() if k in accepted})
    probe.step()
    return probe.state[parameter]


def _state_problem(example: Any, found: Any, parameter: torch.Tensor) -> str:
    """Describe why ``found`` cannot be stored for a parameter in the place of ``example``; empty if it can."""
    if not isinstance(example, torch.Tensor):
        return "" if found is None or is_number(found) else f"expected a number, found {type(found).__name__}"
    if example.ndim:
        return tensor_problem(parameter, found)
    is_scalar = isinstance(found, torch.Tensor) and found.ndim == 0 and found.dtype == example.dtype
    return "" if is_scalar and is_finite(found) else "expected a finite number of the optimiser's data type"
