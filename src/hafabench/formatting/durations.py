"""Durations for people to read."""

from __future__ import annotations


def format_duration(seconds: float | None) -> str:
    """Format a duration in its two largest units: ``1.5 s``, ``2 min 3 s``, ``24 h``, ``6 d 7 h``.

    An unknown duration (None) gives an empty text. Days begin at 48 hours, because time limits are given in hours.
    """
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return _two_units(round(seconds), 60, "min", "s")
    if seconds < 48 * 3600 - 30:
        return _two_units(round(seconds / 60), 60, "h", "min")
    return _two_units(round(seconds / 3600), 24, "d", "h")


def _two_units(amount: int, per_large: int, large: str, small: str) -> str:
    whole, rest = divmod(amount, per_large)
    return f"{whole:,} {large} {rest} {small}" if rest else f"{whole:,} {large}"
