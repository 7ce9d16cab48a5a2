"""Snakemake as a user starts it on a login node: ``snakemake --profile slurm ...``, in the background."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tools.slurm_cluster.cluster import SlurmCluster
from tools.waiting import wait_until

BIN = Path(sys.executable).parent
# Only the polling differs from what a user gets: with the profile's own intervals a short job would mostly wait.
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")
SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\d+)")


class Driver:
    """One Snakemake process with its output; a context manager that never leaves it behind.

    Args:
        cluster: whose environment it gets.
        folder: where it runs; its output goes to ``driver.log`` there.
        arguments: of snakemake, the profile included.
        env: more environment variables.
    """

    def __init__(self, cluster: SlurmCluster, folder: Path, *arguments: str, env: dict[str, str] | None = None):
        self.log = folder / "driver.log"
        environment = {key: value for key, value in cluster.env.items() if not key.startswith("SNAKEMAKE")}
        path = os.pathsep.join([str(BIN), environment["PATH"]])
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(BIN / "snakemake"), *arguments],
                cwd=folder,
                env={**environment, "PATH": path, **(env or {})},
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
        """Slurm ids of the jobs that it submitted, in order."""
        return [slurm for _, slurm in SUBMITTED.findall(self.output)]

    def finished(self, timeout: float) -> int:
        """Wait for its end; returns the exit code."""
        code = wait_until(
            lambda: [] if self.process.poll() is None else [self.process.returncode],
            lambda: f"snakemake ends; it said:\n{self.output[-4000:]}",
            timeout=timeout,
        )
        return code[0]

    def succeeds(self, timeout: float) -> str:
        """Wait for its end, which must be good; returns its output."""
        code = self.finished(timeout)
        assert code == 0, self.output[-6000:]
        return self.output

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to Snakemake."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL it, with all processes that it started on this side of Slurm."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
