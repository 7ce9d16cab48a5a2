"""The logger ``hafabench`` of Snakemake, which finds loggers by the names of their packages."""

from hafabench.runs.log_handler import LogHandler

__all__ = ["LogHandler"]
