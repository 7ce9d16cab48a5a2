"""Files that are there whole or not at all, and digests of them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hafabench.errors import Problem, UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there becomes ``path`` on leaving, or nothing does.

    The content is flushed to disk before the rename, so a crash leaves either the old file or the new one.

    Raises:
        UserError: where the disk is full or the folder cannot be written; no partial file is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(Problem(str(path), "", _why_not_written(error))) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``; what is written there replaces ``path`` on leaving, or nothing changes.

    Files are not flushed to disk one by one: what must survive a power failure is verified by digest when reused.

    Raises:
        UserError: where the disk is full or the folder cannot be written; nothing half-made is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    except OSError as error:
        raise UserError(Problem(str(path), "", _why_not_written(error))) from error
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _why_not_written(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "not written: no space left on the device; free some and run the same command again"
    if error.errno == errno.EDQUOT:
        return "not written: disk quota exceeded; free some and run the same command again"
    return f"not written: {error.strerror or error}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
