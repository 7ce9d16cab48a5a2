"""The executor ``hafabench-slurm`` of Snakemake, which finds executors by the names of their packages."""

from hafabench.cluster.executor import Executor, ExecutorSettings, common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
