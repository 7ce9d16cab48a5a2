"""Lists of names in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def join_names(names: Sequence[str], shown: int = 4) -> str:
    """Join names by commas; only the number of those beyond the first ``shown`` is given. No name gives "nothing"."""
    if not names:
        return "nothing"
    text = ", ".join(names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"
