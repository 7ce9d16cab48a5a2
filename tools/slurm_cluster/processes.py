"""Background processes that are identified by process id and start time, so that the right ones are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.waiting import NeverHappened, wait_until

# Every process and job of a cluster has this environment variable; its value is the cluster's folder.
MARK = "HAFABENCH_TEST_CLUSTER"


class Daemons:
    """Background processes, with their ids in ``folder/run`` and their output in ``folder/log``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], env: dict[str, str]) -> None:
        """Start ``command``, which must stay in the foreground, in a new session."""
        with (self.folder / f"log/{name}.out").open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[name] = child
        (self.folder / f"run/{name}").write_text(f"{child.pid} {_started(child.pid)}")

    def pid(self, name: str) -> int | None:
        """Return the process id of a running daemon, or None."""
        if name in self._children:
            # Collect the exit status of a child process, which would otherwise stay as a zombie.
            self._children[name].poll()
        try:
            pid, started = (self.folder / f"run/{name}").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def running(self) -> list[str]:
        """Return the names of the running daemons."""
        return [path.name for path in sorted((self.folder / "run").glob("*")) if self.pid(path.name)]

    def stop(self, name: str, *, number: signal.Signals = signal.SIGTERM, patience: float = 15) -> None:
        """Stop a running daemon with the signal ``number``, and with SIGKILL if that does not end it."""
        for attempt in (number, signal.SIGKILL):
            pid = self.pid(name)
            if pid is None:
                break
            os.kill(pid, attempt)
            try:
                wait_until(
                    lambda: self.pid(name) is None, f"{name} ends on {attempt.name}", timeout=patience, every=0.02
                )
            except NeverHappened:
                if attempt is signal.SIGKILL:
                    raise
        (self.folder / f"run/{name}").unlink(missing_ok=True)

    def output(self, lines: int = 15) -> str:
        """Return the last lines of every log, for error messages."""
        parts = []
        for path in sorted((self.folder / "log").glob("*")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            if tail:
                parts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(parts)


def marked_processes(folder: Path, **variables: str) -> list[int]:
    """Return the other processes whose environment names the cluster in ``folder`` and contains ``variables``."""
    wanted = {f"{name}={value}".encode() for name, value in {MARK: str(folder), **variables}.items()}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = set((path / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if wanted <= environment and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def kill_marked(folder: Path, **variables: str) -> None:
    """Kill the processes that `marked_processes` finds until there are none."""

    def none_left() -> bool:
        left = marked_processes(folder, **variables)
        kill(left)
        return not left

    wait_until(none_left, f"processes of {folder} end", timeout=20, every=0.05)


def kill(pids: Iterable[int]) -> None:
    """Kill processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """Stop a process until exit, as a terminal does with Ctrl-Z."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _started(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot, or None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
