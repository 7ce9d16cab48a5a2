"""Which share of an image's tokens a pruned model keeps behind each of its predictors.

A schedule turns one rate r into the three: it is chosen by name, or the three are given. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable

KeepRates = tuple[float, ...]

PREDICTORS = 3

# `steps` is the published schedule of Dynamic-Swin, which no rate below 0.4 fits; `clamped` stops it at zero.
SCHEDULES: dict[str, Callable[[float], KeepRates]] = {
    "constant": lambda rate: (rate, rate, rate),
    "powers": lambda rate: (rate, rate**2, rate**3),
    "steps": lambda rate: (rate, rate - 0.2, rate - 0.4),
    "clamped": lambda rate: (rate, max(rate - 0.2, 0.0), max(rate - 0.4, 0.0)),
}


def scheduled(schedule: str, rate: float) -> KeepRates:
    """The rates of a schedule: ``("powers", 0.5)`` -> ``(0.5, 0.25, 0.125)``; not checked, see `rates_problem`."""
    return tuple(round(share, 10) for share in SCHEDULES[schedule](rate))


def rates_problem(rates: KeepRates) -> str | None:
    """Say why ``rates`` are no shares of an image's tokens, or None where they are."""
    if len(rates) != PREDICTORS:
        return f"expected {PREDICTORS} rates, one per predictor, found {len(rates)}"
    for place, rate in enumerate(rates, start=1):
        if not 0 <= rate <= 1:
            hint = "; the schedule 'clamped' stops at 0" if rate < 0 else ""
            return f"rate {place} is {rate:g}, but a share of the tokens lies between 0 and 1{hint}"
    return None


def describe_rates(rates: KeepRates) -> str:
    """Rates with the schedule that gives them: ``constant 0.25``, ``powers 0.5``, or the three numbers."""
    for name in SCHEDULES:
        if scheduled(name, rates[0]) == tuple(round(rate, 10) for rate in rates):
            return f"{name} {rates[0]:g} ({', '.join(f'{rate:g}' for rate in rates)})"
    return ", ".join(f"{rate:g}" for rate in rates)


def kept(rate: float, tokens: int) -> int:
    """Tokens that ``rate`` of ``tokens`` keeps: rounded down, but one at least where the rate is not zero."""
    return max(int(rate * tokens), 1) if rate else 0
