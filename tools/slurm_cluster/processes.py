"""Daemons that are surely stopped again: each is known by its process id and the moment it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tools.waiting import NeverHappened, wait_until

# Every process of a cluster has this variable, jobs included; its value is the cluster's folder.
MARK = "HAFABENCH_TEST_CLUSTER"


class Daemons:
    """Processes that run in the background, with their records in ``folder/run`` and output in ``folder/log``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], env: dict[str, str]) -> None:
        """Start ``command`` in a session of its own; it must stay in the foreground of it."""
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
        """Process id of a running daemon, else None."""
        if name in self._children:
            # Collects the exit of our own child, which would else stay as a zombie.
            self._children[name].poll()
        try:
            pid, started = (self.folder / f"run/{name}").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def running(self) -> list[str]:
        """Names of the daemons that run."""
        return [path.name for path in sorted((self.folder / "run").glob("*")) if self.pid(path.name)]

    def stop(self, name: str, *, number: signal.Signals = signal.SIGTERM, patience: float = 15) -> None:
        """Stop a daemon if it runs: by ``number``, and by SIGKILL where that does not help."""
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
        """The last lines of every log, for error messages."""
        parts = []
        for path in sorted((self.folder / "log").glob("*")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            if tail:
                parts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(parts)


def marked_processes(folder: Path, **variables: str) -> list[int]:
    """Processes whose environment names the cluster in ``folder`` and holds ``variables``; never this one."""
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
    """SIGKILL the processes that `marked_processes` finds, until there are none."""

    def none_left() -> bool:
        left = marked_processes(folder, **variables)
        kill(left)
        return not left

    wait_until(none_left, f"processes of {folder} end", timeout=20, every=0.05)


def kill(pids: Iterable[int]) -> None:
    """SIGKILL processes, some of which may be gone by now."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _started(pid: int) -> str | None:
    """When a process started (clock ticks since boot); None for one that is gone or only waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
