"""Counting conventions applied to models that were taken apart, and how counts become printed figures.

Pure arithmetic, exact: counts are integers, and decimals are shortened as decimals. What conventions there are is
data (`hafabench.config.claims`).
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

from hafabench.config.claims import Convention, Printing
from hafabench.results.counts import Counted, Counts

PRINTINGS: tuple[Printing, ...] = ("rounded", "rounded twice", "truncated")


def count_by(convention: Convention, counted: Counted) -> Decimal:
    """What ``convention`` counts of a model, in the unit that the paper prints (10^6 parameters, 10^9 operations)."""
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
    """What ``convention`` counts of a row, of its other build where the convention has one; None if not counted."""
    counted = counts.of(task, model, convention.build) or counts.of(task, model)
    return None if counted is None else count_by(convention, counted)


def printed(value: Decimal, decimals: int, printing: Printing) -> str:
    """``value`` shortened to ``decimals``: ``printed(Decimal("15.446"), 1, "rounded twice")`` -> ``15.5``."""
    if printing == "rounded twice":
        value = _shorten(value, decimals + 1, ROUND_HALF_UP)
    return str(_shorten(value, decimals, ROUND_DOWN if printing == "truncated" else ROUND_HALF_UP))


def _shorten(value: Decimal, decimals: int, rounding: str) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-decimals), rounding=rounding)
