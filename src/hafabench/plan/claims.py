"""The claims of the paper that runs can settle, and the runs that settle the most claims within a budget.

A *difference* is a printed difference between a row and its baseline. It is settled by the runs of both rows with
every seed. A *value* is the group of all printed accuracies of a row on one task. It is settled by the runs of the
row. A run on segmentation or detection also needs the classification run that it starts from. The choice is exact:
it maximises the number of differences, then the number of values, and then minimises the cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from hafabench.config.experiment import Experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.errors import UserError
from hafabench.reporting.claims.comparability import Comparability
from hafabench.reporting.claims.paper_claims import paper_claims
from hafabench.runs.run import Run, run_id


@dataclass(frozen=True)
class Question:
    """Claims of the paper that the same runs settle.

    Attributes:
        id: The locator of a difference (``table2/pvt_tiny_hafa/miou_delta``), or the task and model of a value
            (``segmentation/pvt_tiny``).
        kind: Whether it is a difference or a value.
        claims: The locators of the claims (`hafabench.reporting.claims.paper_claims`).
        runs: The ids of the runs that settle them, without those that they start from.
    """

    id: str
    kind: Literal["difference", "value"]
    claims: tuple[str, ...]
    runs: frozenset[str]


@dataclass(frozen=True)
class Selection:
    """The runs chosen for a budget.

    Attributes:
        budget: The GPU-hours allowed.
        gpu_hours: The GPU-hours that the chosen runs still take.
        runs: Their ids in the experiment's order, including those that others start from.
        settled, open: The ids of the questions that these runs settle, and of the others.
    """

    budget: float
    gpu_hours: float
    runs: tuple[str, ...]
    settled: tuple[str, ...]
    open: tuple[str, ...]


def questions(experiment: Experiment, runs: Mapping[str, Run]) -> list[Question]:
    """Every question that the experiment's runs can settle, differences first.

    Runs that do not follow the paper's protocol settle none.

    Raises:
        UserError: As `paper_claims`, and if the paper's protocol cannot be loaded.
    """
    comparability = Comparability(experiment, runs)
    differences: list[Question] = []
    values: dict[str, Question] = {}
    for claim in paper_claims(experiment, load_paper_values(experiment.paper_values)):
        found = [_runs(experiment, runs, claim.column.task, model) for model in claim.models]
        available = [names for names in found if names is not None]
        if claim.kind != "accuracy" or len(available) < len(found):
            continue
        needed = frozenset[str]().union(*available)
        if any(comparability.of_run(runs[run]).all for run in needed):
            continue
        if claim.is_difference:
            differences.append(Question(claim.locator, "difference", (claim.locator,), needed))
            continue
        name = f"{claim.column.task}/{claim.row.model}"
        earlier = values[name].claims if name in values else ()
        values[name] = Question(name, "value", (*earlier, claim.locator), needed)
    return [*differences, *values.values()]


def _runs(experiment: Experiment, runs: Mapping[str, Run], task: str, model: str) -> frozenset[str] | None:
    """The runs of a model on a task with all its seeds; None if the experiment does not have them all."""
    wanted = frozenset(run_id(task, model, seed) for seed in experiment.config.seeds_of(model))
    return wanted if wanted <= runs.keys() else None


def choose(
    questions: Iterable[Question], costs: Mapping[str, float], parents: Mapping[str, str | None], budget: float
) -> Selection:
    """Choose the runs that settle the most questions within a budget, by an integer program solved to optimality.

    Args:
        questions: The questions that can be settled.
        costs: The GPU-hours that each run still takes, by id in the experiment's order; finished runs take none.
        parents: The run that each run starts from.
        budget: The GPU-hours allowed.

    Raises:
        UserError: If the budget is negative.
    """
    if budget < 0:
        raise UserError(f"expected a budget of zero or more GPU-hours, found {budget:g}")
    questions, runs = list(questions), list(costs)
    position = {run: index for index, run in enumerate(runs)}
    settles = {question.id: len(runs) + index for index, question in enumerate(questions)}
    size = len(runs) + len(questions)
    # One difference outweighs all values, and one value outweighs all savings.
    values = sum(question.kind == "value" for question in questions)
    saving = np.array([costs[run] for run in runs]) / (sum(costs.values()) + 1)
    worth = [float(values + 1) if question.kind == "difference" else 1.0 for question in questions]
    objective = -np.concatenate([-0.9 * saving, worth])
    rows, limits = [_row(size, {position[run]: cost for run, cost in costs.items()})], [budget]
    for question in questions:
        for run in question.runs:
            rows.append(_row(size, {settles[question.id]: 1, position[run]: -1}))
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
    settled = tuple(question.id for question in questions if question.runs <= set(taken))
    return Selection(
        budget=budget,
        gpu_hours=sum(costs[run] for run in taken),
        runs=taken,
        settled=settled,
        open=tuple(question.id for question in questions if question.id not in settled),
    )


def _row(size: int, entries: Mapping[int, float]) -> np.ndarray:
    row = np.zeros(size)
    for index, value in entries.items():
        row[index] = value
    return row
