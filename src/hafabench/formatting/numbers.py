"""Numbers for people and for files: with fixed decimals, with significant digits, or unrounded."""

from __future__ import annotations

import math


def format_fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    """Format a number with fixed decimals and without a negative zero.

    Args:
        value: The number.
        decimals: How many digits follow the decimal point.
        signed: Whether positive numbers and zero start with ``+``.
    """
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return f"+{text}" if signed and not text.startswith("-") else text


def format_interval(low: float, high: float, decimals: int, *, signed: bool = False) -> str:
    """Format an interval as ``[+0.3, +2.1]``.

    Args:
        low: The lower bound.
        high: The upper bound.
        decimals: How many digits follow the decimal points.
        signed: Whether positive bounds and zero start with ``+``.
    """
    bounds = (format_fixed(bound, decimals, signed=signed) for bound in (low, high))
    return f"[{', '.join(bounds)}]"


def format_significant(value: float, digits: int = 4, *, signed: bool = False) -> str:
    """Format a number with significant digits. Whole numbers keep all their digits and have no exponent.

    Args:
        value: The number.
        digits: How many significant digits a number has at least.
        signed: Whether positive numbers and zero start with ``+``.
    """
    sign = "+" if signed else ""
    if not math.isfinite(value):
        return f"{value:{sign}}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):{sign}d}"
    before_point = math.floor(math.log10(abs(value))) + 1
    return f"{value:{sign}.{max(digits, before_point)}g}"


def format_unrounded(value: float | None) -> str:
    """Format a number for a file that programs read; None gives an empty text.

    Ten significant digits keep parameter counts exact and hide the floating-point error of a unit conversion.
    """
    return "" if value is None else f"{value:.10g}"
