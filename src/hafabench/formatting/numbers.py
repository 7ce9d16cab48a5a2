"""Numbers for people and for files: with fixed decimals, with significant digits, or unrounded.

Every printed number is rounded by `rounded`, so that two pages never show the same number differently.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal

# Enough for every double at every number of decimals.
_EXACT = Context(prec=700)
# Digits after the printed ones that decide how a double is rounded. Further digits are the error of its arithmetic.
_GUARD_DIGITS = 8


def rounded(value: float | Decimal, decimals: int, rounding: str = ROUND_HALF_UP) -> Decimal:
    """Round a finite number as a decimal; a half is rounded away from zero, as in the paper's tables.

    A double stands for the decimal number next to it, because 82.35 and the mean of 82.3 and 82.4 are not exactly
    82.35 in binary. A `Decimal` is rounded exactly. The result is never a negative zero.

    Args:
        value: The number.
        decimals: How many digits follow the decimal point; a negative number rounds to tens, hundreds and so on.
        rounding: Another rounding mode of `decimal`.
    """
    if not isinstance(value, Decimal):
        exact = Decimal(float(value))
        value = exact.quantize(_unit(decimals + _GUARD_DIGITS), ROUND_HALF_EVEN, _EXACT)
    found = value.quantize(_unit(decimals), rounding, _EXACT)
    return found if found else abs(found)


def format_fixed(value: float | Decimal, decimals: int, *, signed: bool = False) -> str:
    """Format a number with fixed decimals. A number that is rounded to zero has no sign.

    Args:
        value: The number.
        decimals: How many digits follow the decimal point.
        signed: Whether positive numbers start with ``+``.
    """
    if not math.isfinite(value):
        return f"{value:{'+' if signed else ''}}"
    found = rounded(value, decimals)
    return f"{found:{'+' if signed and found else ''}f}"


def format_interval(low: float, high: float, decimals: int, *, signed: bool = False) -> str:
    """Format an interval as ``[+0.3, +2.1]``.

    Args:
        low: The lower bound.
        high: The upper bound.
        decimals: How many digits follow the decimal points.
        signed: Whether positive bounds start with ``+``.
    """
    bounds = (format_fixed(bound, decimals, signed=signed) for bound in (low, high))
    return f"[{', '.join(bounds)}]"


def format_significant(value: float, digits: int = 4, *, signed: bool = False) -> str:
    """Format a number with significant digits. Whole numbers keep all their digits and have no exponent.

    Args:
        value: The number.
        digits: How many significant digits a number has at least.
        signed: Whether positive numbers start with ``+``.
    """
    sign = "+" if signed and value else ""
    if not math.isfinite(value):
        return f"{value:{sign}}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):{sign}d}"
    before_point = math.floor(math.log10(abs(value))) + 1
    digits = max(digits, before_point)
    return f"{float(rounded(value, digits - before_point)):{sign}.{digits}g}"


def format_unrounded(value: float | None) -> str:
    """Format a number for a file that programs read; None gives an empty text.

    Ten significant digits keep parameter counts exact and hide the floating-point error of a unit conversion.
    """
    return "" if value is None else f"{value or 0.0:.10g}"


def _unit(decimals: int) -> Decimal:
    return Decimal(1).scaleb(-decimals)
