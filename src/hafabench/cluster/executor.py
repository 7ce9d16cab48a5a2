"""The executor of the workflow on Slurm: Snakemake's official Slurm executor, with as little changed as possible.

Every job on a node imports this module when Snakemake starts there, so it imports nothing large.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from snakemake_executor_plugin_slurm import Executor as SlurmExecutor
from snakemake_executor_plugin_slurm import ExecutorSettings as SlurmExecutorSettings
from snakemake_executor_plugin_slurm import common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]


@dataclass
class ExecutorSettings(SlurmExecutorSettings):
    """The settings of the official Slurm executor, with further ones."""


class Executor(SlurmExecutor):
    """Submits jobs to Slurm and waits for their ends."""

    def get_account_arg(self, job: Any) -> Generator[str, None, None]:
        """Name the account of the site file, or none. Slurm itself refuses an account that it does not know."""
        account = job.resources.get("slurm_account")
        yield f" -A {shlex.quote(str(account))}" if account else ""

    def get_partition_arg(self, job: Any) -> str:
        """Name the partition of the site file, or none. The options of this submission are added."""
        named = job.resources.get("slurm_partition") or self._partitions
        partition = super().get_partition_arg(job) if named else ""
        return f"{partition} {shlex.join(self.extra_options(job))}"

    def extra_options(self, job: Any) -> Sequence[str]:
        """Return further options of sbatch for one submission of a job; called just before each submission.

        Args:
            job: A job of Snakemake.
        """
        return ()
