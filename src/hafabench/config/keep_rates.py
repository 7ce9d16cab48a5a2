"""Keep rates: the share of an image's tokens that a model keeps after each of its three predictors.

A configuration contains the three rates, or the name of a schedule and one rate from which they follow. This module
imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable

KeepRates = tuple[float, ...]

PREDICTORS = 3

# `steps` is the published schedule of Dynamic-Swin. It needs a rate of at least 0.4; `clamped` stops at zero instead.
SCHEDULES: dict[str, Callable[[float], KeepRates]] = {
    "constant": lambda rate: (rate, rate, rate),
    "powers": lambda rate: (rate, rate**2, rate**3),
    "steps": lambda rate: (rate, rate - 0.2, rate - 0.4),
    "clamped": lambda rate: (rate, max(rate - 0.2, 0.0), max(rate - 0.4, 0.0)),
}


def scheduled(schedule: str, rate: float) -> KeepRates:
    """Return the keep rates of a schedule: ``("powers", 0.5)`` -> ``(0.5, 0.25, 0.125)``.

    `keep_rates_problem` checks them.
    """
    return tuple(round(share, 10) for share in SCHEDULES[schedule](rate))


def keep_rates_problem(rates: KeepRates) -> str | None:
    """Return why ``rates`` are not valid keep rates; None if they are."""
    if len(rates) != PREDICTORS:
        return f"expected {PREDICTORS} rates, one per predictor, found {len(rates)}"
    for place, rate in enumerate(rates, start=1):
        if not 0 <= rate <= 1:
            hint = "; the schedule 'clamped' stops at 0" if rate < 0 else ""
            return f"rate {place} is {rate:g}, but a keep rate is between 0 and 1{hint}"
        if place > 1 and rate > rates[place - 2]:
            return (
                f"rate {place} is {rate:g}, but a predictor cannot keep more than the {rates[place - 2]:g} before it"
            )
    return None


def describe_rates(rates: KeepRates) -> str:
    """Return the rates as text, with the schedule that gives them: ``constant 0.25 (0.25, 0.25, 0.25)``."""
    for name in SCHEDULES:
        if scheduled(name, rates[0]) == tuple(round(rate, 10) for rate in rates):
            return f"{name} {rates[0]:g} ({', '.join(f'{rate:g}' for rate in rates)})"
    return ", ".join(f"{rate:g}" for rate in rates)


def tokens_to_keep(rate: float, tokens: int) -> int:
    """Return the number of ``tokens`` to keep, rounded down, but at least one if the rate is not zero."""
    return max(int(rate * tokens), 1) if rate else 0
