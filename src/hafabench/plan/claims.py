"""What the paper claims, as far as runs can settle it, and the runs that settle most of it for so many GPU-hours.

A *difference* is a printed difference between a row and its baseline: it takes both rows' runs, of every seed. A
*value* is a row's printed accuracies on one task: it takes the row's runs. A run on segmentation or detection takes
its classification run. The choice is exact: the largest number of differences that the budget pays for; among equal
ones the largest number of values; among equal ones the cheapest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from hafabench.config import Experiment
from hafabench.errors import UserError
from hafabench.matrix import Run, run_id
from hafabench.reporting.paper import load_paper_values


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: ``table2/pvt_tiny_hafa/miou`` (a difference) or ``segmentation/pvt_tiny`` (values).
        kind: which of the two.
        printed: what the paper prints: the difference, or the row's first value.
        runs: ids of the runs that settle it, without those they start from.
    """

    id: str
    kind: Literal["difference", "value"]
    printed: float
    runs: frozenset[str]


@dataclass(frozen=True)
class Selection:
    """Runs chosen for a budget.

    Attributes:
        budget: GPU-hours allowed.
        gpu_hours: that the chosen runs still take.
        runs: their ids, in the experiment's order, those that others start from included.
        settled, open: ids of claims that these runs settle, and of those that they do not.
    """

    budget: float
    gpu_hours: float
    runs: tuple[str, ...]
    settled: tuple[str, ...]
    open: tuple[str, ...]


def paper_claims(experiment: Experiment, runs: Mapping[str, Run]) -> list[Claim]:
    """Every claim of Tables 1-6 that the experiment's runs can settle, differences first.

    Raises:
        UserError: for paper values that cannot be read.
    """
    paper = load_paper_values(experiment.paper_values)
    differences: list[Claim] = []
    values: dict[str, Claim] = {}
    for layout in experiment.layouts:
        for row in layout.rows:
            for column in layout.columns:
                if column.verb != "evaluate":
                    continue
                at = (layout.source, row.row or row.model)
                printed = paper.get((*at, column.key))
                own = _runs(experiment, runs, column.task, row.model)
                if own and printed and printed.value is not None:
                    name = f"{column.task}/{row.model}"
                    values.setdefault(name, Claim(name, "value", printed.value, own))
                change = paper.get((*at, column.change or ""))
                delta = change.value if change else printed.delta if printed else None
                against = _runs(experiment, runs, column.task, row.baseline) if row.baseline else None
                if column.delta and delta is not None and own and against:
                    name = f"{layout.id}/{row.row or row.model}/{column.key}"
                    differences.append(Claim(name, "difference", delta, own | against))
    return [*differences, *values.values()]


def _runs(experiment: Experiment, runs: Mapping[str, Run], task: str, model: str) -> frozenset[str] | None:
    """The model's runs on a task, of every seed; None where the experiment has none."""
    wanted = frozenset(run_id(task, model, seed) for seed in experiment.config.seeds)
    return wanted if wanted <= runs.keys() else None


def choose(
    claims: Iterable[Claim], costs: Mapping[str, float], parents: Mapping[str, str | None], budget: float
) -> Selection:
    """The runs that settle most of ``claims`` for at most ``budget``, by an integer program solved to optimality.

    Args:
        claims: what can be settled.
        costs: GPU-hours that each run still takes, by id in the experiment's order; finished ones take none.
        parents: the run that each run starts from.
        budget: GPU-hours.

    Raises:
        UserError: for a negative budget.
    """
    if budget < 0:
        raise UserError(f"expected a budget of zero or more GPU-hours, found {budget:g}")
    claims, runs = list(claims), list(costs)
    position = {run: index for index, run in enumerate(runs)}
    settles = {claim.id: len(runs) + index for index, claim in enumerate(claims)}
    size = len(runs) + len(claims)
    # Each level outweighs all of the next: one difference more than any values, one value more than any saving.
    values = sum(claim.kind == "value" for claim in claims)
    saving = np.array([costs[run] for run in runs]) / (sum(costs.values()) + 1)
    worth = [float(values + 1) if claim.kind == "difference" else 1.0 for claim in claims]
    objective = -np.concatenate([-0.9 * saving, worth])
    rows, limits = [_row(size, {position[run]: cost for run, cost in costs.items()})], [budget]
    for claim in claims:
        for run in claim.runs:
            rows.append(_row(size, {settles[claim.id]: 1, position[run]: -1}))
            limits.append(0)
    for run, parent in parents.items():
        if parent is not None:
            rows.append(_row(size, {position[run]: 1, position[parent]: -1}))
            limits.append(0)
    solution = milp(
        objective,
        constraints=LinearConstraint(np.array(rows), -np.inf, limits),
        integrality=np.ones(size),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    if solution.x is None:
        raise UserError(f"no choice of runs was found for {budget:g} GPU-hours: {solution.message}")
    taken = tuple(run for run in runs if solution.x[position[run]] > 0.5)
    settled = tuple(claim.id for claim in claims if claim.runs <= set(taken))
    return Selection(
        budget=budget,
        gpu_hours=sum(costs[run] for run in taken),
        runs=taken,
        settled=settled,
        open=tuple(claim.id for claim in claims if claim.id not in settled),
    )


def _row(size: int, entries: Mapping[int, float]) -> np.ndarray:
    row = np.zeros(size)
    for index, value in entries.items():
        row[index] = value
    return row
