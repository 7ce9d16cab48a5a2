"""What a test cluster occupies on its machine: a lock, a link in /etc/slurm, control groups and ports."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import IO

from tools.slurm_cluster.configuration import CGROUP_ROOT
from tools.slurm_cluster.processes import Daemons, kill, kill_marked
from tools.waiting import wait_until

PREFIX = "hafabench-slurm-"
# Snakemake's plugin runs a job in a step without any SLURM_* variable. Without SLURM_CONF, Slurm reads this file.
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")
LOCK = Path("/tmp/hafabench-slurm.lock")
HELD = "another session's test cluster runs on this machine"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db")


class ClusterUnavailable(Exception):
    """This machine cannot run the test cluster; the message gives the reason."""


def why_unavailable(*, accounting: bool = False) -> str | None:
    """Return why no test cluster can be started on this machine, or None."""
    if os.geteuid() != 0:
        return "a test cluster needs root, because its daemons start jobs"
    programs = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; `sh tools/slurm_cluster/packages.sh install` installs them"
    if os.path.lexists(SYSTEM_CONF) and linked_folder() is None:
        return f"{SYSTEM_CONF} exists: this machine has its own Slurm, which is not touched"
    return None


def linked_folder() -> Path | None:
    """Return the folder of the test cluster that runs here or was not stopped properly, or None."""
    if not SYSTEM_CONF.is_symlink() or not SYSTEM_CONF.readlink().parent.name.startswith(PREFIX):
        return None
    return SYSTEM_CONF.readlink().parent


class MachineLock:
    """A lock that is held while a cluster starts, runs and stops, because a machine can run only one.

    It is released when its process ends for any reason.
    """

    def __init__(self) -> None:
        self._handle: IO[bytes] | None = None

    def take(self) -> bool:
        """Take the lock, or return False if another session holds it."""
        if self._handle is not None:
            return True
        handle = LOCK.open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def stop_daemons(daemons: Daemons) -> None:
    """Kill the nodes first, which ends their jobs, then stop each daemon before those that it depends on."""
    last = ("slurmctld", "slurmdbd", "mariadbd", "munged")
    for name in daemons.running():
        if name not in last:
            daemons.stop(name, number=signal.SIGKILL)
    for name in last:
        daemons.stop(name)


def remove_traces(folder: Path, cgroups_before: set[Path]) -> None:
    """End the remaining processes of the cluster in ``folder`` and remove its link, control groups and files."""
    kill_marked(folder)
    if linked_folder() == folder:
        SYSTEM_CONF.unlink()
    for group in sorted(slurm_cgroups() - cgroups_before, reverse=True):
        # Child groups sort after their parents.
        wait_until(partial(_remove_cgroup, group), f"control group {group} is empty", timeout=10, every=0.05)
    shutil.rmtree(folder, ignore_errors=True)


def slurm_cgroups(node: str = "node[0-9]*") -> set[Path]:
    """Return the control groups of test nodes in all hierarchies."""
    tops = (top for name in ("freezer", "memory") for top in (CGROUP_ROOT / name).glob(f"slurm_{node}"))
    return {path for top in tops for path in (top, *(p for p in top.rglob("*") if p.is_dir()))}


def _remove_cgroup(group: Path) -> bool:
    """Remove a control group of the cluster, and kill the processes that are still in it."""
    try:
        kill(map(int, (group / "cgroup.procs").read_text().split()))
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def short_folder() -> str:
    """Return the folder for temporary files, or /tmp if its path is too long for Slurm's socket names."""
    temporary = tempfile.gettempdir()
    return temporary if len(temporary) < 40 else "/tmp"


def can_make_cgroup(hierarchy: Path) -> bool:
    """Return whether control groups can be created in this hierarchy."""
    probe = hierarchy / f"hafabench.{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def free_ports(count: int) -> int:
    """Return the first of ``count`` consecutive TCP ports that are free on loopback, below the ephemeral ports."""
    for base in range(16800, 30000, count):
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise ClusterUnavailable(f"no {count} consecutive free ports between 16800 and 30000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
