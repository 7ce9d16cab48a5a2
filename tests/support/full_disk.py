"""A disk that is full, at any of the operations by which a file is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

OPERATIONS = ("write", "flush", "fsync", "close")


def fill_disk(
    monkeypatch: pytest.MonkeyPatch, operation: str, number: int, is_full: Callable[[Path], bool] = lambda _path: True
) -> None:
    """Make an operation on files that are opened for writing raise an error of the operating system.

    Args:
        monkeypatch: Pytest's fixture, which ends the effect.
        operation: One of `OPERATIONS`.
        number: The number of the error, such as ``errno.ENOSPC``.
        is_full: Tells whether a file is affected. ``fsync`` affects every file.
    """

    def fail(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    if operation == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
        return
    opened = Path.open

    def open_file(self, mode="r", *arguments, **options):
        handle = opened(self, mode, *arguments, **options)
        if set(mode) & set("wax+") and is_full(self):
            close = handle.close

            def close_and_fail():
                # The operating system closes a file also if it reports an error.
                del handle.close
                close()
                fail()

            setattr(handle, operation, close_and_fail if operation == "close" else fail)
        return handle

    monkeypatch.setattr(Path, "open", open_file)
