"""A real Slurm on this machine: a controller, virtual nodes with GPU devices, and optionally accounting.

It listens on loopback only and has its own state folder, munge key and socket, so that an existing installation is
not touched. `packages.sh` installs the Debian packages. `python -m tools.slurm_cluster` starts and stops a cluster.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tools.slurm_cluster import configuration
from tools.slurm_cluster.configuration import ACCOUNT, CGROUP_ROOT, CLUSTER, Settings
from tools.slurm_cluster.machine import (
    HELD,
    PREFIX,
    SYSTEM_CONF,
    ClusterUnavailable,
    MachineLock,
    can_make_cgroup,
    free_ports,
    linked_folder,
    remove_traces,
    short_folder,
    slurm_cgroups,
    stop_daemons,
    why_unavailable,
)
from tools.slurm_cluster.processes import MARK, Daemons, kill, kill_marked, paused
from tools.waiting import NeverHappened, wait_until

UP = ("idle", "mixed", "allocated", "completing", "planned")


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it."""

    id: str
    state: str
    reason: str
    partition: str
    node: str
    comment: str
    folder: str
    time_limit: str


class SlurmCluster:
    """A cluster of ``nodes`` virtual nodes. As a context manager, it starts and stops the cluster.

    Partitions: ``gpu`` (default) and ``cpu`` up to 24 h, ``short`` up to 5 min, and two whose jobs make way when the
    others need resources: those of ``preemptible`` are requeued, those of ``cancelled`` are cancelled. Nodes have the
    features ``fast`` and ``only_node1``, ``only_node2``, ...

    Args:
        nodes: Number of virtual nodes.
        gpus, cpus, memory_mb: Resources of each node, independent of the machine.
        accounting: Whether to run slurmdbd and a data base; the start takes some seconds more.
        patience: Seconds to wait for the end of another session's cluster.
    """

    def __init__(
        self,
        *,
        nodes: int = 2,
        gpus: int = 2,
        cpus: int = 8,
        memory_mb: int = 16000,
        accounting: bool = False,
        patience: float = 0,
    ):
        self._wanted = {"nodes": nodes, "gpus": gpus, "cpus": cpus, "memory_mb": memory_mb, "accounting": accounting}
        self._patience = patience
        self._lock = MachineLock()
        self._cgroups_before: set[Path] = set()
        self.settings: Settings
        self.daemons: Daemons

    def __enter__(self) -> SlurmCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- starting and stopping ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and wait until every node is idle.

        Raises:
            ClusterUnavailable: If this machine cannot run it or it does not come up; nothing is left behind.
        """
        reason = why_unavailable(accounting=self._wanted["accounting"])
        if reason:
            raise ClusterUnavailable(reason)
        self._wait_for_machine()
        leftover = linked_folder()
        if leftover:
            remove_traces(leftover, set())
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=short_folder()))
        self.daemons = Daemons(folder)
        hierarchies = frozenset(name for name in ("freezer", "memory") if can_make_cgroup(CGROUP_ROOT / name))
        host = socket.gethostname().split(".")[0]
        port = free_ports(self._wanted["nodes"] + 2)
        self.settings = Settings(folder=folder, host=host, port=port, cgroups=hierarchies, **self._wanted)
        self._cgroups_before = slurm_cgroups()
        try:
            self._write_files()
            self._start_munge()
            SYSTEM_CONF.parent.mkdir(exist_ok=True)
            SYSTEM_CONF.symlink_to(self.settings.slurm_conf)
            if self.settings.accounting:
                self._create_accounting()
            self.start_controller()
            for node in self.settings.node_names:
                self._start_node(node)
            self._wait_for_nodes(self.settings.node_names)
        except (OSError, subprocess.SubprocessError, NeverHappened) as error:
            message = f"the test cluster did not come up: {error}\n{self.daemons.output()}"
            self.stop()
            raise ClusterUnavailable(message) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop jobs and daemons and remove all files. Does nothing if nothing runs."""
        try:
            if hasattr(self, "settings"):
                stop_daemons(self.daemons)
                remove_traces(self.settings.folder, self._cgroups_before)
        finally:
            self._lock.release()

    def _wait_for_machine(self) -> None:
        deadline = time.monotonic() + self._patience
        while reason := self._other_cluster():
            if time.monotonic() >= deadline:
                raise ClusterUnavailable(reason)
            time.sleep(0.5)

    def _other_cluster(self) -> str | None:
        """Take the lock of the machine, or return which other cluster holds it."""
        if not self._lock.take():
            return HELD
        folder = linked_folder()
        if folder and Daemons(folder).running():
            self._lock.release()
            return f"a test cluster runs in {folder}; `python -m tools.slurm_cluster down` stops it"
        return None

    def _write_files(self) -> None:
        settings, folder = self.settings, self.settings.folder
        for name in ("log", "run", "state", "munge", "devices", *(f"spool.{node}" for node in settings.node_names)):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # munged refuses a socket in a folder that other users cannot enter.
        folder.chmod(0o755)
        settings.slurm_conf.write_text(configuration.slurm_conf(settings))
        (folder / "gres.conf").write_text(configuration.gres_conf(settings))
        settings.task_prolog.write_text(configuration.task_prolog(settings))
        settings.task_prolog.chmod(0o755)
        (folder / "cgroup.conf").write_text(configuration.cgroup_conf(settings))
        for node in settings.node_names:
            for gpu in range(settings.gpus):
                # These are the device numbers of /dev/null, which every machine has.
                os.mknod(settings.device(node, gpu), stat.S_IFCHR | 0o600, os.makedev(1, 3))

    def _start_munge(self) -> None:
        folder, where = self.settings.folder, self.settings.munge_socket
        key = folder / "munge/key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        command = ["munged", "--foreground", "--force", "--num-threads=4"]
        command += [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "seed", "log")]
        self.daemons.start("munged", [*command, f"--socket={where}"], self.env)
        self._wait_for("munge answers", "munge", "--no-input", f"--socket={where}")

    def _create_accounting(self) -> None:
        folder, settings = self.settings.folder, self.settings
        data = folder / "database"
        data.mkdir()
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
        self.run(*install, "--auth-root-authentication-method=socket", timeout=120)
        command = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-networking"]
        command += [f"--socket={settings.database_socket}", "--innodb-buffer-pool-size=128M", "--skip-log-bin"]
        command += ["--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"]
        self.daemons.start("mariadbd", [*command, f"--log-error={folder}/log/mariadbd.log"], self.env)
        self._wait_for(
            "the data base answers", "mariadb-admin", "--no-defaults", f"--socket={settings.database_socket}", "ping"
        )
        conf = folder / "slurmdbd.conf"
        conf.touch(0o600)
        conf.write_text(configuration.slurmdbd_conf(settings))
        self.start_accounting()
        self.run("sacctmgr", "--immediate", "add", "cluster", CLUSTER)
        self.run("sacctmgr", "--immediate", "add", "account", ACCOUNT, "description=tests", "organization=tests")
        self.run("sacctmgr", "--immediate", "add", "user", "root", f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}")

    def _start_node(self, node: str) -> None:
        # The variable marks slurmd, its step managers and its jobs as those of one node.
        self.daemons.start(node, ["slurmd", "-D", "-N", node], {**self.env, "SLURMD_NODENAME": node})

    def _wait_for(self, what: str, *command: str) -> None:
        def answers() -> bool:
            done = subprocess.run(command, env=self.env, capture_output=True, check=False, timeout=20)
            return done.returncode == 0

        wait_until(answers, what, timeout=60, every=0.1)

    def _wait_for_nodes(self, names: list[str]) -> None:
        def ready() -> bool:
            return all(self.nodes()[name] in UP for name in names)

        wait_until(ready, lambda: f"nodes are up ({self.nodes()})", timeout=60)

    # -- using it ----------------------------------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """Environment variables for commands of this cluster, with the variable that marks its processes."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
        path = os.pathsep.join([kept.get("PATH", os.defpath), "/usr/sbin"])
        folder = self.settings.folder
        return {**kept, "PATH": path, "SLURM_CONF": str(self.settings.slurm_conf), MARK: str(folder)}

    def run(self, *command: str, timeout: float = 30) -> str:
        """Run a command in the cluster's environment and return its standard output.

        Raises:
            subprocess.SubprocessError: If the command fails, with its standard error.
        """
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise subprocess.SubprocessError(
                f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def sbatch(self, script: str, *options: str) -> str:
        """Submit a shell command and return the job's id."""
        return self.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}").strip()

    def jobs(self, *, live: bool = True) -> list[Job]:
        """Return the pending and running jobs; with ``live=False`` also those that ended within the last minutes."""
        states = [] if live else ["--states=all"]
        lines = self.run("squeue", "--noheader", *states, "--format=%i|%T|%r|%P|%N|%k|%Z|%l").splitlines()
        return [Job(*(field.strip() for field in line.split("|"))) for line in lines]

    def job(self, job_id: str) -> Job:
        """Return a job that is pending, running or ended."""
        return next(job for job in self.jobs(live=False) if job.id == job_id)

    def details(self, job_id: str) -> dict[str, str]:
        """Return the fields of ``scontrol show job`` (``Restarts``, ``ExitCode``, ``TRES``, ...)."""
        words = self.run("scontrol", "--oneliner", "show", "job", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def sacct(self, *fields: str, jobs: str | None = None) -> list[dict[str, str]]:
        """Return the accounting rows of all attempts and steps, which appear after some seconds."""
        options = ["--jobs", jobs] if jobs else ["--starttime=now-1hour"]
        command = ["sacct", "--parsable2", "--noheader", "--duplicates", f"--format={','.join(fields)}", *options]
        return [dict(zip(fields, line.split("|"), strict=True)) for line in self.run(*command).splitlines()]

    def nodes(self) -> dict[str, str]:
        """Return the state of every node (``idle``, ``mixed``, ``down``, ...) without Slurm's suffixes."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=gpu", "--format=%N|%T").splitlines()
        return {name: state.rstrip("*~#!%$@^-") for name, state in (line.split("|") for line in lines)}

    def scancel(self, *arguments: str) -> None:
        self.run("scancel", *arguments)

    def cancel_all(self) -> None:
        """Cancel every job and wait until none is left."""
        for job in self.jobs():
            self.scancel(job.id)
        wait_until(lambda: not self.jobs(), lambda: f"no job is left ({self.jobs()})", timeout=60)

    def node_down(self, name: str, *, announce: bool = True) -> None:
        """Kill a node: its daemon and everything that runs on it.

        Args:
            name: Name of the node.
            announce: Whether to set the node down in the controller, which otherwise notices after half a minute.
        """
        self.daemons.stop(name, number=signal.SIGKILL)
        kill_marked(self.settings.folder, SLURMD_NODENAME=name)
        for group in slurm_cgroups(name):
            kill(map(int, (group / "cgroup.procs").read_text().split()))
        if announce:
            self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=died")
        wait_until(lambda: self.nodes()[name] == "down", lambda: f"{name} is down ({self.nodes()})", timeout=90)

    def lose_contact(self, name: str) -> None:
        """Kill only the daemon of a node, and set the node down. The processes of its jobs continue."""
        self.daemons.stop(name, number=signal.SIGKILL)
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=silent")
        wait_until(lambda: self.nodes()[name] == "down", lambda: f"{name} is down ({self.nodes()})", timeout=90)

    def node_up(self, name: str) -> None:
        """Bring a killed node back into service. Does nothing for a running node."""
        if self.daemons.pid(name) is None:
            self._start_node(name)

        def in_service() -> bool:
            if self.nodes()[name] in UP:
                return True
            # Slurm refuses to resume a node that is just registering and comes back by itself.
            with suppress(subprocess.SubprocessError):
                self.run("scontrol", "update", f"nodename={name}", "state=resume")
            return False

        wait_until(in_service, lambda: f"{name} is up ({self.nodes()})", timeout=60)

    def restart_controller(self) -> None:
        """Restart slurmctld. Jobs continue meanwhile."""
        self.stop_controller()
        self.start_controller()

    def stop_controller(self) -> None:
        """Stop slurmctld. Jobs continue, and no command gets an answer about them, except from the accounting."""
        self.daemons.stop("slurmctld")

    def start_controller(self) -> None:
        """Start slurmctld, unless it runs, and wait until it answers."""
        if self.daemons.pid("slurmctld") is None:
            self.daemons.start("slurmctld", ["slurmctld", "-D"], self.env)
        self._wait_for("slurmctld answers", "scontrol", "ping")

    @contextmanager
    def paused_controller(self) -> Iterator[None]:
        """Let slurmctld do nothing until exit. It then serves the requests that reached it, late."""
        pid = self.daemons.pid("slurmctld")
        if pid is None:
            raise ValueError("slurmctld does not run")
        with paused(pid):
            yield

    def stop_accounting(self) -> None:
        """Stop slurmdbd. The controller keeps what it has to report until `start_accounting`."""
        self.daemons.stop("slurmdbd")

    def start_accounting(self) -> None:
        """Start slurmdbd, unless it runs, and wait until it answers."""
        if self.daemons.pid("slurmdbd") is None:
            env = {**self.env, "MYSQL_UNIX_PORT": str(self.settings.database_socket)}
            self.daemons.start("slurmdbd", ["slurmdbd", "-D"], env)
        self._wait_for("slurmdbd answers", "sacctmgr", "--noheader", "show", "cluster")

    @contextmanager
    def configure(self, **values: object) -> Iterator[None]:
        """Change parameters of slurm.conf, and put them back on exit. Running jobs continue."""
        before = self.settings.slurm_conf.read_text()
        kept = [line for line in before.splitlines() if line.partition("=")[0] not in values]
        changed = [f"{name}={value}" for name, value in values.items()]
        try:
            self._reconfigure("\n".join([*changed, *kept, ""]))
            yield
        finally:
            self._reconfigure(before)

    def _reconfigure(self, text: str) -> None:
        self.settings.slurm_conf.write_text(text)
        self.run("scontrol", "reconfigure")
        # A running controller keeps the interval at which it forgets old jobs, and it does not change all parameters.
        self.restart_controller()

    @contextmanager
    def limit(self, **limits: int) -> Iterator[None]:
        """Set limits of the tests' user, for example ``MaxSubmitJobs=2``, and remove them on exit.

        A limit whose name ends in ``PerUser`` is one of the default quality of service, others of the association.
        """
        try:
            for name, value in limits.items():
                self._set_limit(name, value)
            yield
        finally:
            for name in limits:
                self._set_limit(name, -1)

    def _set_limit(self, name: str, value: int) -> None:
        entity = ("qos", "where", "name=normal") if name.endswith("PerUser") else ("user", "where", "name=root")
        self.run("sacctmgr", "--immediate", "modify", *entity, "set", f"{name}={value}")
