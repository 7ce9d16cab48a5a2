"""The lease of a run: the right to write into its folder, which one process has at a time.

Without it, two trainings of one run could write into one folder: that of a killed driver, which still runs, and that
of the next driver; or that of a node which has lost contact, and that of the node which took over its job.

The folder may be on a shared file system on which locks do not work and whose machines have different clocks. A lease
is therefore a file ``lease-<number>.json`` in the folder of the run. It is made by a hard link, which fails if the
file exists, and never changed. The process renews it by setting its time every `RENEW_S` seconds. Times are only
compared for equality: a lease has expired if another process sees no new time for `EXPIRES_S` seconds of its own
clock. A process that takes over a lease makes the file with the next number. The holder has lost its lease if there
is a higher number or its own file is gone, and looks for this before it writes.

`EXPIRES_S` exceeds the time for which NFS may answer from its cache (60 s by default) by several renewals.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import Field, TypeAdapter, ValidationError

from hafabench.config.json_file import read_json_object
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.runs.paths import STATE_SUMMARY
from hafabench.runs.run import Run

RENEW_S = 15.0
EXPIRES_S = 180.0
_LOOK_S = 5.0
_LEASE = re.compile(r"lease-(\d{1,9})\.json")
# Leases that a process was about to make when it was killed.
_UNLINKED = (".lease-*.tmp", "..lease-*.tmp")
# Matches the names of all files of leases.
LEASE_FILES = r"lease-\d{1,9}\.json|\.lease-.*\.tmp"
# A suspended machine must not take its lease for a fresh one, and this clock goes on meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Verb = Literal["train", "evaluate"]
_NOUNS = {"train": "a training", "evaluate": "an evaluation"}


@dataclass(frozen=True)
class Holder:
    """The process that has, or had, a lease.

    Attributes:
        verb: What it does with the run.
        host: The name of its machine.
        pid: Its process id on this machine.
        began: When the process began, in a unit that depends on the operating system; a later process with the same
            id began at another time. None if it is unknown.
        system: The start of the operating system and the namespace in which the process id is valid.
        slurm_job: The id of its Slurm job; None outside Slurm.
        attempt: Number of this attempt at the training, from 1.
        since: When it took the lease (ISO 8601), for people.
        token: Random text that distinguishes all leases.
    """

    verb: Verb
    host: str
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    began: float | None
    system: str
    slurm_job: str | None
    attempt: int = 1
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", Slurm job {self.slurm_job}" if self.slurm_job else "")

    @property
    def noun(self) -> str:
        """What it does, with an article."""
        return _NOUNS[self.verb]

    @property
    def is_here(self) -> bool:
        """Whether its process id is valid for this process: same machine, same start of it, same container."""
        return (self.host, self.system) == (platform.node(), _system())

    @property
    def runs(self) -> bool:
        """Whether the process still exists, if it is here."""
        began = _beginning(self.pid)
        return began is not None and (self.began is None or began in (self.began, 0.0))


_HOLDER = TypeAdapter(Holder)


def this_process(verb: Verb, attempt: int = 1) -> Holder:
    """Return this process as the holder of a new lease.

    Args:
        verb: What it does with the run.
        attempt: Number of this attempt at the training.
    """
    pid = os.getpid()
    slurm_job = os.environ.get("SLURM_JOB_ID") or None
    return Holder(verb, platform.node(), pid, _beginning(pid), _system(), slurm_job, attempt)


class LeaseLost(UserError):
    """Another process has taken over the run of this process."""


class Lease:
    """A lease that this process has taken.

    Args:
        folder: The folder of the run.
        run_id: The run, for messages.
        number: The number of the lease.
        holder: This process.
    """

    def __init__(self, folder: Path, run_id: str, number: int, holder: Holder):
        self.folder, self.run_id, self.holder = folder, run_id, holder
        self._number = number
        self._path = _path(folder, number)

    def check(self) -> None:
        """Return if this process still has the lease; call this before anything is written into the folder.

        Raises:
            LeaseLost: If another process has taken over the run, or the lease was removed.
        """
        try:
            highest = max(_numbers(self.folder), default=0)
            own = _read(self._path)
        except OSError as error:
            # Nothing can be written into this folder either.
            raise UserError(Problem(str(self.folder), "", f"cannot be read: {error.strerror or error}")) from error
        if highest <= self._number and own is not None and own.token == self.holder.token:
            return
        other = _read(_path(self.folder, highest)) if highest > self._number else None
        why = f"{other} has taken over this run" if other is not None else f"its lease {self._path.name} was removed"
        message = f"{self.holder.noun} must not go on, because {why}; it stops without writing anything more"
        raise LeaseLost(Problem(str(self.folder), "", message))

    def renew(self) -> None:
        """Tell other processes that this one still runs."""
        # A file system that does not answer for a moment is no reason to stop. `check` decides.
        with suppress(OSError):
            os.utime(self._path)

    def release(self) -> None:
        """Give the lease back."""
        with suppress(OSError):
            own = _read(self._path)
            if own is not None and own.token == self.holder.token:
                self._path.unlink()


@contextmanager
def hold(run: Run, verb: Verb, *, has_ended: Callable[[str], bool] = lambda _job: False) -> Iterator[Lease | None]:
    """Hold the lease of a run while the context lasts. A context within another one of the same run shares it.

    If torchrun started several processes, only the first one writes into the folder. The others get None.

    Args:
        run: The run.
        verb: What this process does with it.
        has_ended: Tells whether a Slurm job is known to have ended, given its id.

    Raises:
        UserError: If another process has the lease.
    """
    if "WORLD_SIZE" in os.environ and os.environ.get("RANK", "0") != "0":
        yield None
        return
    key = run.folder.resolve()
    if key in _held:
        yield _held[key]
        return
    lease = take(run.folder, run.id, this_process(verb, _attempts(run) + 1), has_ended=has_ended)
    stop = threading.Event()
    thread = threading.Thread(target=_keep_renewing, args=(lease, stop), name="lease", daemon=True)
    thread.start()
    _held[key] = lease
    try:
        yield lease
    finally:
        del _held[key]
        stop.set()
        thread.join()
        lease.release()


_held: dict[Path, Lease] = {}


def _attempts(run: Run) -> int:
    """Number of attempts at the training of a run, as its state tells it."""
    found = (read_json_object(run.work / STATE_SUMMARY) or {}).get("attempt")
    return found if isinstance(found, int) and found > 0 else 0


def _keep_renewing(lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(RENEW_S):
        lease.renew()


def take(
    folder: Path,
    run_id: str,
    me: Holder,
    *,
    has_ended: Callable[[str], bool] = lambda _job: False,
    clock: Callable[[], float] = lambda: time.clock_gettime(_CLOCK),
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Take the lease of a run; `hold` also renews it and gives it back.

    The lease of another process is taken over at once if this process is known to have ended, and otherwise after it
    has expired. It takes up to `EXPIRES_S` seconds to find this out about a process of another machine.

    Args:
        folder: The folder of the run. It is made if it does not exist.
        run_id: The run, for messages.
        me: This process.
        has_ended: Tells whether a Slurm job is known to have ended, given its id.
        clock: Returns the time in seconds, from any beginning.
        sleep: Waits for a number of seconds.

    Raises:
        UserError: If another process has the lease and still runs, or the folder cannot be written.
    """
    watched, since = None, 0.0
    while True:
        seen = _holders(folder)
        last = max(seen, default=0)
        look = _look(folder, last)
        if look is not None and not _is_over(look[0], has_ended):
            holder = look[0]
            if (holder is not None and holder.is_here) or (watched and watched != look and watched[0] == holder):
                raise _refusal(folder, run_id, holder)
            if watched != look:
                if watched is None:
                    _say_waiting(run_id, holder)
                watched, since = look, clock()
            if clock() - since < EXPIRES_S:
                sleep(_LOOK_S)
                continue
        lease = _claim(folder, run_id, last + 1, me, seen)
        if lease is not None:
            return lease
        watched = None


def holder_of(folder: Path) -> tuple[Holder, float] | None:
    """Return who holds the lease of a run according to its folder, and the time of the last renewal.

    The time is that of the file system. None if nobody does. A process that was killed is still returned.
    """
    try:
        last = max(_numbers(folder), default=0)
    except OSError:
        return None
    look = _look(folder, last)
    return (look[0], look[1] / 1e9) if look is not None and look[0] is not None else None


def is_held(run: Run, verb: Verb) -> bool:
    """Return whether a process holds the lease of a run for ``verb`` and seems to run.

    It is certain for processes of this machine. Those of other machines seem to run for `EXPIRES_S` seconds after
    their last renewal, if the clock of the file system agrees with that of this machine.

    Args:
        run: The run.
        verb: What the process does.
    """
    found = holder_of(run.folder)
    if found is None or found[0].verb != verb:
        return False
    holder, renewed = found
    return holder.runs if holder.is_here else abs(time.time() - renewed) < EXPIRES_S


def _look(folder: Path, number: int) -> tuple[Holder | None, int] | None:
    """Return the holder of a lease and the time of its file; None if it does not exist."""
    path = _path(folder, number)
    try:
        # NFS asks the server again when a file is opened.
        with path.open("rb") as handle:
            return _read(path), os.fstat(handle.fileno()).st_mtime_ns
    except OSError:
        return None


def _is_over(holder: Holder | None, has_ended: Callable[[str], bool]) -> bool:
    """Whether the process of a lease is known to have ended."""
    if holder is None:
        return False
    if holder.is_here:
        return not holder.runs
    return holder.slurm_job is not None and has_ended(holder.slurm_job)


def _claim(folder: Path, run_id: str, number: int, me: Holder, seen: Mapping[int, Holder | None]) -> Lease | None:
    """Make the lease with a number; None if another process was faster.

    Args:
        folder: The folder of the run.
        run_id: The run, for messages.
        number: The number of the new lease.
        me: This process.
        seen: The leases that existed when this process decided to take it, by their numbers.
    """
    unlinked = folder / f".lease-{me.token}.tmp"
    path = _path(folder, number)
    content = json.dumps(asdict(me)) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(unlinked, content)
        if not _made_alone(unlinked, path, content):
            return None
        lease = Lease(folder, run_id, number, me)
        # The lease that this process saw may have been taken over and given back meanwhile, and taken by a third one.
        others = {other: holder for other, holder in _holders(folder).items() if other != number}
        if any(other not in seen or seen[other] != holder for other, holder in others.items()):
            lease.release()
            return None
        for old in others:
            _path(folder, old).unlink(missing_ok=True)
        for left in (path for pattern in _UNLINKED for path in folder.glob(pattern)):
            left.unlink(missing_ok=True)
        return lease
    except OSError as error:
        raise UserError(Problem(str(path), "", f"not written: {error.strerror or error}")) from error
    finally:
        with suppress(OSError):
            unlinked.unlink(missing_ok=True)


def _made_alone(source: Path, path: Path, content: str) -> bool:
    """Whether this process made ``path`` with the content of ``source``; False if it exists already."""
    try:
        os.link(source, path)
    except FileExistsError:
        # A server may have made the link although its first answer was lost.
        return path.read_text(encoding="utf-8") == content
    except FileNotFoundError:
        # A process that has just taken the lease removed the source.
        return False
    except OSError:
        # This file system has no hard links.
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
    return True


def _refusal(folder: Path, run_id: str, holder: Holder | None) -> UserError:
    if holder is None:
        message = f"{run_id} is in use by a process of another version; wait until it has ended"
    else:
        message = (
            f"{run_id} is in use: {holder.noun} runs since {holder.since}, {holder}; "
            "wait until it has ended, or stop it, before you start the next one"
        )
    return UserError(Problem(str(folder), "", message))


def _say_waiting(run_id: str, holder: Holder | None) -> None:
    who = str(holder) if holder is not None else "another process"
    print(
        f"{run_id}: was in use by {who}; waiting for up to {EXPIRES_S:.0f} s to see whether it still runs",
        file=sys.stderr,
        flush=True,
    )


def _path(folder: Path, number: int) -> Path:
    return folder / f"lease-{number}.json"


def _numbers(folder: Path) -> set[int]:
    """The numbers of all leases in a folder; none if it does not exist."""
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {int(found[1]) for name in names if (found := _LEASE.fullmatch(name))}


def _holders(folder: Path) -> dict[int, Holder | None]:
    """The holders of all leases in a folder by their numbers; None for one that cannot be read."""
    found: dict[int, Holder | None] = {}
    for number in _numbers(folder):
        try:
            found[number] = _read(_path(folder, number))
        except OSError:
            found[number] = None
    return found


def _read(path: Path) -> Holder | None:
    """The holder in the file of a lease; None if the file is missing, still empty, or of another version.

    Raises:
        OSError: If the file exists and cannot be read.
    """
    try:
        return _HOLDER.validate_json(path.read_bytes(), strict=True)
    except (FileNotFoundError, ValidationError):
        return None


@lru_cache(maxsize=1)
def _system() -> str:
    """Text that differs between machines, between two starts of one machine, and between containers."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts) or platform.platform()


def _beginning(pid: int) -> float | None:
    """When a process began; None if it does not exist or has ended, and 0 if it exists and this cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The name of the program, in parentheses, may contain anything.
        values = text.rpartition(")")[2].split()
        # In ticks since the machine was started, which a corrected clock does not change.
        return None if values[0] in "ZX" else float(values[19])
    except (OSError, IndexError):
        pass
    if not psutil.pid_exists(pid):
        return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return 0.0
