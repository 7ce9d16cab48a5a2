"""Counts of parameters and operations under a counting convention, and their conversion to printed figures.

All arithmetic is exact: counts are integers, and decimals are rounded as decimals. `hafabench.config.claims` defines
the conventions.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

from hafabench.config.claims import Convention, RoundingMode
from hafabench.formatting.numbers import rounded
from hafabench.results.counts import Counted, Counts

ROUNDING_MODES: tuple[RoundingMode, ...] = ("rounded", "rounded twice", "truncated")


def count_by(convention: Convention, counted: Counted) -> Decimal:
    """Count a model by ``convention``, in the unit that the paper prints (10^6 parameters, 10^9 operations)."""
    amounts = counted.amounts.parameters if convention.metric == "params_m" else counted.amounts.operations
    weights = convention.weights
    total = sum(
        weights.get(amount.kind, 0) * amount.count
        for amount in amounts
        if amount.part not in convention.without and (amount.trainable or not convention.trainable)
    )
    if convention.dead_weights:
        total += counted.dead_weights
    return Decimal(total) / convention.per_unit


def count_row(convention: Convention, counts: Counts, task: str, model: str) -> Decimal | None:
    """Count the model of a table row by ``convention``.

    Args:
        convention: If it names another build of the row and that build was counted, the other build is used.
        counts: The counts of all models.
        task: The task of the row.
        model: The model of the row.

    Returns:
        The count in the unit that the paper prints, or None if the model was not counted.
    """
    counted = counts.of(task, model, convention.build) or counts.of(task, model)
    return None if counted is None else count_by(convention, counted)


def printed(value: Decimal, decimals: int, rounding_mode: RoundingMode) -> str:
    """Return a rounded number: ``printed(Decimal("15.446"), 1, "rounded twice")`` gives ``15.5``."""
    if rounding_mode == "rounded twice":
        value = rounded(value, decimals + 1)
    return str(rounded(value, decimals, ROUND_DOWN if rounding_mode == "truncated" else ROUND_HALF_UP))
