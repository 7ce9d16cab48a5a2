"""Atomic writing of files and folders, removal of what this program made, and digests of files."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from hafabench.errors import Problem, UserError

_LARGE = 2**24
_RECENT_S = 5.0
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
# Number of files that a message names.
_SHOWN = 5

IsMade = Callable[[Path], bool]
"""Tells whether this program made a file, given its path relative to a folder."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, and rename the file written there to ``path`` at the end.

    The content is flushed to disk before it is renamed, so that a crash leaves either the old file or the new one.
    What killed processes left of the same file is removed first.

    Raises:
        UserError: If the disk is full or the folder cannot be written. No partial file is left.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(Problem(str(path), "", why_not_written(error, path))) from error
    finally:
        temporary.unlink(missing_ok=True)


def _nothing(_path: Path) -> bool:
    return False


@contextmanager
def atomic_folder(path: Path, is_made: IsMade = _nothing) -> Iterator[Path]:
    """Yield a new folder next to ``path``, and replace ``path`` by it at the end.

    The files are not flushed to disk. A folder that has to survive a power failure is verified by digest before it is
    used again. What killed processes left of the same folder is removed first. If ``path`` is a symbolic link, the
    folder that it leads to is replaced.

    Args:
        path: The folder. It need not exist.
        is_made: Tells whether this program made a file of the folder, given its path relative to the folder. By
            default only an empty folder is replaced.

    Raises:
        UserError: If the folder contains a file that this program did not make, the disk is full, or the folder
            cannot be written. Then the folder is as before, and no partial folder is left.
    """
    path = Path(path)
    target = path.resolve()
    temporary, replaced, is_old = _temporary(target), _temporary(target, "old"), False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        if temporary.exists():
            # An earlier process had the same number.
            shutil.rmtree(temporary)
        _refuse_other_files(path, target, is_made)
        temporary.mkdir()
        yield temporary
        if target.exists():
            _exchange(temporary, target, replaced)
            is_old = True
            # Files may have been added since the first check.
            if other_files(temporary, is_made):
                _exchange(temporary, target, replaced)
                is_old = False
                _refuse_other_files(path, target, is_made)
        else:
            temporary.rename(target)
    except OSError as error:
        raise UserError(Problem(str(path), "", why_not_written(error, path))) from error
    finally:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        if is_old:
            with suppress(UserError):
                remove_made(temporary, is_made)
        else:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_made(folder: Path, is_made: IsMade) -> list[Path]:
    """Remove the files of a folder that this program made, and the folders that are then empty.

    Args:
        folder: The folder. It need not exist.
        is_made: Tells whether this program made a file of the folder, given its path relative to the folder.

    Returns:
        The files that were kept.

    Raises:
        UserError: If a file cannot be removed.
    """
    kept = []
    for parent, folders, files in os.walk(folder, topdown=False):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for path in (Path(parent, name) for name in (*files, *links)):
            if not _is_made(path, folder, is_made):
                kept.append(path)
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(Problem(str(path), "", f"cannot be removed: {error.strerror or error}")) from error
        # A folder with other files is kept.
        with suppress(OSError):
            Path(parent).rmdir()
    return sorted(kept)


def other_files(folder: Path, is_made: IsMade) -> list[Path]:
    """Return the files of a folder that this program did not make, as paths relative to the folder, sorted.

    A symbolic link counts as a file that it did not make.

    Args:
        folder: The folder. It need not exist.
        is_made: Tells whether this program made a file of the folder, given its path relative to the folder.
    """
    if not folder.is_dir():
        return [Path()] if folder.exists() or folder.is_symlink() else []
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        paths = (Path(parent, name) for name in (*files, *links))
        found += [path.relative_to(folder) for path in paths if not _is_made(path, folder, is_made)]
    return sorted(found)


def _is_made(path: Path, folder: Path, is_made: IsMade) -> bool:
    # This program makes no links, pipes or devices.
    return stat.S_ISREG(path.lstat().st_mode) and is_made(path.relative_to(folder))


def _refuse_other_files(path: Path, target: Path, is_made: IsMade) -> None:
    """Refuse to replace ``path``, which leads to ``target``, if it contains files that this program did not make."""
    if target.exists() and not target.is_dir():
        found = not_a_file(target) or "expected a folder, found a file"
        raise UserError(Problem(str(path), "", f"not written: {found.replace('a regular file', 'a folder')}"))
    others = other_files(target, is_made)
    if others:
        shown = ", ".join(map(str, others[:_SHOWN])) + f" and {len(others) - _SHOWN} more" * (len(others) > _SHOWN)
        message = f"not written: hafabench did not make {shown} in it; move it away, or choose another folder"
        raise UserError(Problem(str(path), "", message))


def _exchange(first: Path, second: Path, spare: Path) -> None:
    """Exchange two folders, in one step if the file system offers this; otherwise ``spare`` is used in between."""
    current, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        # macOS
        done = False
    else:
        done = renameat2(current, os.fsencode(first), current, os.fsencode(second), exchange) == 0
    if not done:
        second.rename(spare)
        first.rename(second)
        spare.rename(first)


def remove_leftovers(path: Path, *, of_all_machines: bool = False) -> None:
    """Remove the temporary files and folders that killed processes left next to ``path`` when they wrote it.

    Those of processes that still run, and of processes of other machines, are kept. If a process was killed while it
    replaced a folder, the old folder is moved back.

    Args:
        path: The file or folder.
        of_all_machines: Whether those of other machines are removed too. Nobody else may write to ``path`` then.
    """
    name = _temporary_pattern(re.escape(path.name))
    try:
        entries = [entry.name for entry in os.scandir(path.parent)]
    except OSError:
        return
    for entry in entries:
        found = name.fullmatch(entry)
        if found is None:
            continue
        is_here = found[1] in (None, _machine())
        if _runs(int(found[2])) if is_here else not of_all_machines:
            continue
        leftover = path.with_name(entry)
        with suppress(OSError):
            if found[3] == "old" and not path.exists():
                leftover.rename(path)
            elif leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def is_file_or_temporary(path: Path, *names: str) -> bool:
    """Whether a path is one of the files ``names``, or what an interrupted process left of one.

    Args:
        path: The path, relative to the folder of the files.
        names: Names of files without folders.
    """
    return any(str(path) == name or _temporary_pattern(re.escape(name)).fullmatch(str(path)) for name in names)


def final_path(path: Path) -> Path:
    """Return the file that a process writes by way of the temporary file ``path``; other paths as they are."""
    found = _temporary_pattern("(.+?)").fullmatch(path.name)
    return path if found is None else path.with_name(found[1])


def _temporary_pattern(name: str) -> re.Pattern[str]:
    # Earlier versions did not write the machine into the name.
    return re.compile(rf"\.{name}(?:\.([0-9a-f]{{8}}))?\.(\d{{1,10}})\.(tmp|old)")


def _temporary(path: Path, suffix: str = "tmp") -> Path:
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{suffix}")


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return eight digits that stand for this machine, or for this container if it numbers its own processes."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # It belongs to somebody else.
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically.

    Names of files that the locale's encoding could not decode are written with the bytes that they have.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def append_text(path: Path, text: str) -> None:
    """Append ``text`` to a file. If this fails, the file is as before.

    Raises:
        UserError: If the disk is full or the file cannot be written.
    """
    before = None
    try:
        with Path(path).open("ab") as handle:
            before = os.fstat(handle.fileno()).st_size
            handle.write(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        why = why_not_written(error, path)
        if before is not None:
            with suppress(OSError):
                os.truncate(path, before)
        raise UserError(Problem(str(path), "", why)) from error


def why_not_written(error: OSError, path: Path | None = None) -> str:
    """Return why something could not be written, as a clause.

    Args:
        error: The error of the operating system.
        path: The file, or None if it is unknown. The free space is that of its file system.
    """
    again = "free some space and run the same command again"
    if error.errno == errno.ENOSPC:
        return f"not written: no space left on the device{_free_space(path)}; {again}"
    if error.errno == errno.EDQUOT:
        return f"not written: disk quota exceeded; {again}"
    return f"not written: {error.strerror or error}"


def is_full_disk(error: OSError) -> bool:
    """Whether an error says that the disk is full, or the user's quota used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _free_space(path: Path | None) -> str:
    """Return the free space where ``path`` is, as ``" (12 MB of 500 GB are free)"``; empty if it is unknown."""
    if path is None:
        return ""
    folder = next((parent for parent in Path(path).absolute().parents if parent.is_dir()), None)
    try:
        found = os.statvfs(folder or "")
    except OSError:
        return ""
    if found.f_files and not found.f_favail:
        return " (it cannot have more files)"
    free, whole = (_size(blocks * found.f_frsize) for blocks in (found.f_bavail, found.f_blocks))
    return f" ({free} of {whole} are free)"


def _size(number: int) -> str:
    unit, name = next(((unit, name) for unit, name in _UNITS if number >= unit), _UNITS[-1])
    return f"{number / unit:.3g} {name}"


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def not_a_file(path: Path | str) -> str | None:
    """Return what is at a path instead of a regular file; None if it is one, or if nothing is known to be there.

    Opening a named pipe waits until a process writes into it, and some devices never end. Every reader of a file that
    a user names asks this function before it opens the file.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    return next((f"expected a regular file, found {name}" for is_kind, name in _KINDS if is_kind(mode)), None)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        UserError: If there is something else than a regular file.
    """
    if wrong := not_a_file(path):
        raise UserError(Problem(str(path), "", wrong))
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
