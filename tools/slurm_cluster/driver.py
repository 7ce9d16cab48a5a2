"""Snakemake in the background, started as a user does on a login node: ``snakemake --profile slurm ...``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from hafabench.runs.log_handler import CONSOLE_VARIABLE
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.processes import paused
from tools.waiting import wait_until

BIN = Path(sys.executable).parent
# Only the polling intervals differ from those of the profile, with which a short job would mostly wait.
QUICK = (
    "--hafabench-slurm-init-seconds-before-status-checks=1",
    "--hafabench-slurm-max-seconds-between-status-checks=4",
    "--latency-wait=5",
)
SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\d+)")


class Driver:
    """A Snakemake process and its output. As a context manager, it kills the process on exit.

    Args:
        cluster: Cluster whose environment variables are used.
        folder: Working directory; the output is written to ``driver.log`` in it.
        arguments: Arguments of snakemake, with the profile.
        env: Additional environment variables.
    """

    def __init__(self, cluster: SlurmCluster, folder: Path, *arguments: str, env: dict[str, str] | None = None):
        self.log = folder / "driver.log"
        environment = {key: value for key, value in cluster.env.items() if not key.startswith("SNAKEMAKE")}
        path = os.pathsep.join([str(BIN), environment["PATH"]])
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(BIN / "snakemake"), *arguments],
                cwd=folder,
                # Tests read Snakemake's own messages.
                env={**environment, "PATH": path, CONSOLE_VARIABLE: "off", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def submitted(self) -> list[str]:
        """Return the Slurm ids of the submitted jobs, in order."""
        return [slurm for _, slurm in SUBMITTED.findall(self.output)]

    def finished(self, timeout: float) -> int:
        """Wait for the end of the process and return its exit code."""
        code = wait_until(
            lambda: [] if self.process.poll() is None else [self.process.returncode],
            lambda: f"snakemake ends; its output:\n{self.output[-4000:]}",
            timeout=timeout,
        )
        return code[0]

    def succeeds(self, timeout: float) -> str:
        """Wait until the process succeeds and return its output."""
        code = self.finished(timeout)
        assert code == 0, self.output[-6000:]
        return self.output

    def interrupt(self) -> None:
        """Send SIGINT to Snakemake, as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def paused(self) -> AbstractContextManager[None]:
        """Stop Snakemake until exit, as the suspension of a laptop does."""
        return paused(self.process.pid)

    def kill(self) -> None:
        """Kill Snakemake and all processes that it started outside Slurm."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
