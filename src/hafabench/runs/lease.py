"""The lease of a run: the right to write into its folder, which one process has at a time.

Without it, two trainings of one run could write into one folder: that of a killed driver, which still runs, and that
of the next driver; or that of a node which has lost contact, and that of the node which took over its job.

The folder may be on a shared file system on which locks do not work and whose machines have different clocks. A lease
is therefore a file ``lease-<number>.json`` in the folder of the run. It is made by a hard link, which fails if the
file exists, and never changed. The process renews it by setting its time. Times are only compared for equality: a
lease has expired if another process sees no new time for as many seconds of its own clock as the lease says. A
process that takes over a lease makes the file with the next number. The holder has lost its lease if there is a
higher number or its own file is gone, and looks for this before it writes.

By default a lease expires after `EXPIRES_S` seconds, which exceed the time for which NFS may answer from its cache
(60 s by default) by several renewals. The environment variable `EXPIRES` changes this. It may differ between two
processes, because every lease contains the value of its holder.
"""

from __future__ import annotations

import json
import math
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
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import Field, TypeAdapter, ValidationError

from hafabench.config.json_file import read_json_object
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.formatting.durations import format_duration
from hafabench.runs.paths import STATE_SUMMARY
from hafabench.runs.run import Run

EXPIRES_S = 180.0
EXPIRES = "HAFABENCH_LEASE_EXPIRES_SECONDS"
_MAX_EXPIRES_S = 86400.0
# How often a lease is renewed before it would expire.
_RENEWALS = 12
_LOOK_S = 5.0
# For how long a job of the workflow waits for a process that is known to run. In a Slurm job, other processes of the
# training wait for the first one, and give up after ten minutes.
PATIENCE_S, SLURM_PATIENCE_S = 24 * 3600.0, 300.0
# The words by which other modules find the sentence of `_say_waiting` in a log.
WAITS = "waits for the lease of"
_LEASE = re.compile(r"lease-(\d{1,9})\.json")
# Leases that a process was about to make when it was killed.
_UNLINKED = (".lease-*.tmp", "..lease-*.tmp")
# Matches the names of all files of leases.
LEASE_FILES = r"lease-\d{1,9}\.json|\.lease-.*\.tmp"
# A suspended machine must not take its lease for a fresh one, and this clock goes on meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Verb = Literal["train", "evaluate"]
_NOUNS = {"train": "a training", "evaluate": "an evaluation"}


def _never(_job: str) -> bool:
    return False


@dataclass(frozen=True)
class Holder:
    """The process that has, or had, a lease.

    Attributes:
        verb: What it does with the run.
        host: The name of its node in Slurm, or outside Slurm of its machine.
        pid: Its process id on this machine.
        began: When the process began, in a unit that depends on the operating system; a later process with the same
            id began at another time. None if it is unknown.
        system: The start of the operating system and the namespace in which the process id is valid.
        slurm_job: The id of its Slurm job; None outside Slurm.
        attempt: Number of this attempt at the training, from 1.
        restarts: How often Slurm has queued its Slurm job again.
        expires_s: The lease expires after so many seconds without a renewal.
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
    restarts: int = 0
    expires_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = EXPIRES_S
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
        return (self.host, self.system) == (_host(), _system())

    @property
    def runs(self) -> bool:
        """Whether the process still exists, if it is here."""
        began = _beginning(self.pid)
        return began is not None and (self.began is None or began in (self.began, 0.0))

    def precedes(self, other: Holder) -> bool:
        """Whether Slurm has queued the Slurm job of this process again, and ``other`` runs in the later attempt."""
        return self.slurm_job is not None and self.slurm_job == other.slurm_job and self.restarts < other.restarts


_HOLDER = TypeAdapter(Holder)


def this_process(verb: Verb, attempt: int = 1) -> Holder:
    """Return this process as the holder of a new lease.

    Args:
        verb: What it does with the run.
        attempt: Number of this attempt at the training.

    Raises:
        UserError: If the environment variable `EXPIRES` contains no number of seconds.
    """
    pid = os.getpid()
    slurm_job = os.environ.get("SLURM_JOB_ID") or None
    text = os.environ.get("SLURM_RESTART_COUNT", "")
    restarts = int(text) if text.isdecimal() else 0
    return Holder(verb, _host(), pid, _beginning(pid), _system(), slurm_job, attempt, restarts, _expires_s())


def _expires_s() -> float:
    text = os.environ.get(EXPIRES)
    if text is None:
        return EXPIRES_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= _MAX_EXPIRES_S:
        message = f"expected a number of seconds from 1 to {_MAX_EXPIRES_S:g}, found {text!r}"
        raise UserError(Problem("environment", EXPIRES, message))
    return seconds


class LeaseLost(UserError):
    """Another process has taken over the run of this process."""


class Lease:
    """A lease that this process has taken.

    Args:
        folder: The folder of the run.
        run_id: The run, for messages.
        number: The number of the lease.
        holder: This process.

    Attributes:
        waited: For how many seconds this process waited for the lease.
    """

    def __init__(self, folder: Path, run_id: str, number: int, holder: Holder):
        self.folder, self.run_id, self.holder = folder, run_id, holder
        self.waited = 0.0
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
def hold(
    run: Run,
    verb: Verb,
    *,
    patience: float = 0.0,
    has_ended: Callable[[str], bool] = _never,
    is_abandoned: Callable[[str], bool] = _never,
) -> Iterator[Lease | None]:
    """Hold the lease of a run while the context lasts. A context within another one of the same run shares it.

    If torchrun started several processes, only the first one writes into the folder. The others get None.

    Args:
        run: The run.
        verb: What this process does with it.
        patience, has_ended, is_abandoned: As for `take`.

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
    me = this_process(verb, _attempts(run) + 1)
    lease = take(run.folder, run.id, me, patience=patience, has_ended=has_ended, is_abandoned=is_abandoned)
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
    while not stop.wait(lease.holder.expires_s / _RENEWALS):
        lease.renew()


def patience_of_job() -> float:
    """For how many seconds a job of the workflow waits for a process that is known to have the lease."""
    return SLURM_PATIENCE_S if os.environ.get("SLURM_JOB_ID") else PATIENCE_S


def take(
    folder: Path,
    run_id: str,
    me: Holder,
    *,
    patience: float = 0.0,
    has_ended: Callable[[str], bool] = _never,
    is_abandoned: Callable[[str], bool] = _never,
    clock: Callable[[], float] = lambda: time.clock_gettime(_CLOCK),
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Take the lease of a run; `hold` also renews it and gives it back.

    The lease of another process is taken over at once if this process is known to have ended, and otherwise after it
    has expired. It takes up to the time of its expiry to find this out about a process of another machine. If Slurm
    has given up the Slurm job of the holder, because its node lost contact, its lease is taken over after the same
    time even if it is renewed. The holder notices this before it writes.

    Args:
        folder: The folder of the run. It is made if it does not exist.
        run_id: The run, for messages.
        me: This process.
        patience: For how many seconds to wait for the end of a process that is known to run.
        has_ended: Tells whether the processes of a Slurm job are known to have ended, given its id.
        is_abandoned: Tells whether a Slurm job has ended for Slurm although its processes may run, given its id.
        clock: Returns the time in seconds, from any beginning.
        sleep: Waits for a number of seconds.

    Raises:
        UserError: If another process has the lease and still runs, or the folder cannot be written.
    """
    began = clock()
    watch: _Watch | None = None
    has_waited = False
    while True:
        seen = _holders(folder)
        last = max(seen, default=0)
        look = _look(folder, last)
        if look is not None and not _is_over(look[0], has_ended):
            now = clock()
            if watch is None or watch.holder != look[0]:
                watch = _Watch(look[0], look[1], now, me, is_abandoned)
            watch.look(look[1], now)
            if watch.runs and now - began >= patience and not watch.is_abandoned:
                raise _refusal(folder, run_id, watch.holder)
            if not watch.may_be_replaced(now):
                if not has_waited:
                    _say_waiting(run_id, watch.holder, patience)
                has_waited = True
                sleep(min(_LOOK_S, watch.expires_s / _RENEWALS))
                continue
        lease = _claim(folder, run_id, last + 1, me, seen)
        if lease is not None:
            lease.waited = clock() - began
            if has_waited:
                print(f"{run_id}: has the lease after {lease.waited:.0f} s", file=sys.stderr, flush=True)
            return lease
        watch = None


class _Watch:
    """What a process that wants a lease has seen of its holder.

    Args:
        holder: The holder; None if the lease cannot be read.
        time: The time of its file.
        now: The time on the clock of this process.
        me: This process.
        is_abandoned: As for `take`.
    """

    def __init__(self, holder: Holder | None, time: int, now: float, me: Holder, is_abandoned: Callable[[str], bool]):
        self.holder = holder
        self.expires_s = holder.expires_s if holder is not None else EXPIRES_S
        self._time, self._first, self._renewed = time, now, now
        self._me, self._asks = me, is_abandoned

    def look(self, time: int, now: float) -> None:
        """Compare the time of the file with that of the last look."""
        if time != self._time:
            self._time, self._renewed = time, now

    @property
    def runs(self) -> bool:
        """Whether the holder is known to run: it is here and has not ended, or has renewed the lease."""
        return self._is_here or self._renewed != self._first

    @cached_property
    def is_abandoned(self) -> bool:
        """Whether Slurm has given the Slurm job of the holder up."""
        job = self.holder.slurm_job if self.holder is not None else None
        return job is not None and self.holder is not None and (self.holder.precedes(self._me) or self._asks(job))

    def may_be_replaced(self, now: float) -> bool:
        """Whether the lease has expired or has been renewed for long enough by a process that was given up."""
        if now - self._first < self.expires_s:
            return False
        has_expired = now - self._renewed >= self.expires_s and not self._is_here
        return has_expired or self.is_abandoned

    @property
    def _is_here(self) -> bool:
        return self.holder is not None and self.holder.is_here


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

    It is certain for processes of this machine. Those of other machines seem to run until their lease expires, if the
    clock of the file system agrees with that of this machine.

    Args:
        run: The run.
        verb: What the process does.
    """
    found = holder_of(run.folder)
    return found is not None and found[0].verb == verb and _seems_to_run(*found)


def is_in_use(folder: Path) -> bool:
    """Return whether a process holds a lease in the folder of a run and seems to run, as in `is_held`."""
    found = holder_of(folder)
    return found is not None and _seems_to_run(*found)


def _seems_to_run(holder: Holder, renewed: float) -> bool:
    return holder.runs if holder.is_here else abs(time.time() - renewed) < holder.expires_s


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


def _say_waiting(run_id: str, holder: Holder | None, patience: float) -> None:
    who = str(holder) if holder is not None else "another process"
    expires = f"{holder.expires_s if holder is not None else EXPIRES_S:.0f} s"
    if patience:
        until = f"until it has ended or has not renewed the lease for {expires}, and for at most"
        until = f"{until} {format_duration(patience)} while it runs"
    else:
        until = f"for up to {expires}, to see whether it still runs"
    print(f"{run_id}: {WAITS} {who}, {until}", file=sys.stderr, flush=True)


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


def _host() -> str:
    """The name of this machine as people know it. Several nodes of a test cluster may be one machine."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


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
