"""Atomic writing of files and folders, and digests of files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from hafabench.errors import Problem, UserError

_LARGE = 2**24
_RECENT_S = 5.0


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, and rename the file written there to ``path`` at the end.

    The content is flushed to disk before it is renamed, so that a crash leaves either the old file or the new one.

    Raises:
        UserError: If the disk is full or the folder cannot be written. No partial file is left.
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
    """Yield a new folder next to ``path``, and replace ``path`` by it at the end.

    The files are not flushed to disk. A folder that has to survive a power failure is verified by digest before it is
    used again.

    Raises:
        UserError: If the disk is full or the folder cannot be written. No partial folder is left.
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
    """Write ``text`` to ``path`` atomically.

    Names of files that the locale's encoding could not decode are written with the bytes that they have.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def _why_not_written(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "not written: no space left on the device; free some space and run the same command again"
    if error.errno == errno.EDQUOT:
        return "not written: disk quota exceeded; free some space and run the same command again"
    return f"not written: {error.strerror or error}"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_large(path: Path) -> str:
    """Return the SHA-256 of a file that several commands need, without reading it again while it is unchanged.

    The digests of large files are stored in the user's cache folder, with the size and the time of change that the
    file had. A file that was changed within the last seconds is always read, because two changes may have the same
    time.
    """
    about = Path(path).stat()
    version = (about.st_ino, about.st_size, about.st_mtime_ns)
    if about.st_size < _LARGE or time.time() - about.st_mtime < _RECENT_S:
        return sha256_of(path)
    return _stored_sha256(Path(path).resolve(), version)


@lru_cache(maxsize=256)
def _stored_sha256(path: Path, version: tuple[int, ...]) -> str:
    known = " ".join(map(str, version))
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    stored = Path(root) / "hafabench" / "sha256" / hashlib.sha256(os.fsencode(path)).hexdigest()
    try:
        found, _, digest = stored.read_text(encoding="ascii").strip().rpartition(" ")
        if found == known and len(digest) == 64:
            return digest
    except (OSError, UnicodeDecodeError):
        pass
    digest = sha256_of(path)
    # Without a cache folder the file is read by every command.
    with suppress(UserError, OSError):
        write_text(stored, f"{known} {digest}\n")
    return digest
