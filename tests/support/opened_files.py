"""Recording which files Python opens."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_recorders: list[Counter[str]] = []


def _record(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str | Path) and arguments[1] in ("r", "rb"):
        for recorder in _recorders:
            recorder[str(arguments[0])] += 1


# An audit hook cannot be removed, so there is one for all tests, which does nothing without a recorder.
sys.addaudithook(_record)


@contextmanager
def files_read(folder: str) -> Iterator[Counter[str]]:
    """Count how often each existing file below a relative ``folder`` is opened for reading."""
    recorder: Counter[str] = Counter()
    found: Counter[str] = Counter()
    _recorders.append(recorder)
    try:
        yield found
    finally:
        _recorders.remove(recorder)
        inside = {path: count for path, count in recorder.items() if path.startswith(f"{folder}/")}
        found.update({path: count for path, count in inside.items() if Path(path).is_file()})
