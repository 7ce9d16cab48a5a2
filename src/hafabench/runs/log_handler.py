"""The logger of the workflow's profiles: turns the messages of Snakemake into those of `hafabench.runs.console`.

All messages of Snakemake are in its log file, whose path is printed. Snakemake prints them itself if it is called
with ``--verbose``, ``--quiet``, ``--printshellcmds``, ``--debug-dag`` or ``--dry-run``, or if the environment
variable ``HAFABENCH_CONSOLE`` is ``off``.

Every process of Snakemake imports this module, also in folders of other workflows, so it imports nothing large.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from hafabench.runs.console import Console

if TYPE_CHECKING:
    from hafabench.runs.jobs import Job, JobList

# With the value ``off``, Snakemake prints its messages itself.
CONSOLE_VARIABLE = "HAFABENCH_CONSOLE"
# What Snakemake and its executors say about their own work. The log file contains it.
_CHATTER = (
    *("Building DAG of jobs", "Using shell:", "Select jobs to execute", "Assuming unrestricted shared filesystem"),
    *("Exiting because a job execution failed", "Removing output files of failed job", "Elapsed time:", "host:"),
    *("Shutting down, this might take some time", "Storing output in storage", "Conda environments:"),
    *("Singularity containers:", "Group jobs: inactive", "Touching output file", "Processed ", "Raising priority"),
    *("SLURM run ID:", "Removing temporary output", "Will exit after finishing"),
)
_SUBMITTED = "has been submitted with SLURM jobid"
_NOTHING_TO_DO = "Nothing to be done"
_RESTART = "Trying to restart job "
# Exceptions about which another message follows, with the job that failed.
_OF_JOBS = {"CalledProcessError", "RuleException", "SpawnedJobError"}


class LogHandler(LogHandlerBase):
    """Prints the messages of a driver. It prints nothing if Snakemake prints them itself."""

    def __post_init__(self) -> None:
        self.console: Console | None = None
        if _is_wanted(self.common_settings):
            self.console = Console(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Print what matters about a message."""
        if self.console is None:
            return
        try:
            _tell(self.console, record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Print nothing more."""
        if self.console is not None:
            self.console.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """Whether Snakemake prints nothing itself."""
        return self.console is not None

    @property
    def writes_to_file(self) -> bool:
        """Whether messages are written to a file."""
        return False

    @property
    def has_filter(self) -> bool:
        """Whether this handler decides which messages it ignores."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Whether this handler formats messages."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """Whether Snakemake has to send the graph of the rules."""
        return False


def console_of(workflow: Any, jobs: JobList) -> Console | None:
    """Return the console of a driver, which knows the jobs of its experiment; None if Snakemake prints itself.

    Args:
        workflow: Snakemake's workflow.
        jobs: The jobs of the experiment.
    """
    if not workflow.is_main_process:
        return None
    for handler in workflow.logger_manager.get_log_handlers():
        # Snakemake may have imported this module under the name of the plugin as well.
        console = getattr(handler, "console", None)
        if isinstance(console, Console):
            console.knows(jobs)
            return console
    return None


def jobs_to_run(workflow: Any, jobs: JobList) -> list[Job]:
    """Return the jobs of an experiment that a driver runs.

    Args:
        workflow: Snakemake's workflow with a complete graph.
        jobs: The jobs of the experiment.
    """
    planned = workflow.dag.needrun_jobs()
    return [jobs.find(job.rule.name, job.wildcards) for job in planned if job.rule.name in jobs.rules]


def _is_wanted(settings: Any) -> bool:
    if os.environ.get(CONSOLE_VARIABLE) == "off":
        return False
    own = (settings.verbose, settings.quiet, settings.printshellcmds, settings.debug_dag, settings.dryrun)
    return not any(own)


def _tell(console: Console, record: Any) -> None:
    event = getattr(record, "event", None)
    if event == LogEvent.JOB_INFO:
        wildcards = {name: str(value) for name, value in (record.wildcards or {}).items()}
        # A job without a command is the goal of the workflow.
        console.started(record.jobid, record.rule_name, wildcards, is_shown=bool(record.shellcmd))
    elif event == LogEvent.JOB_FINISHED:
        console.finished(record.job_id)
    elif event == LogEvent.JOB_ERROR:
        console.failed(record.jobid, record.rule_msg or "", [str(path) for path in record.log or ()])
    elif event in (None, LogEvent.ERROR, LogEvent.GROUP_ERROR):
        _pass_on(console, record)


def _pass_on(console: Console, record: Any) -> None:
    """Print a message that is none about a job, unless it is about Snakemake's own work."""
    text = str(record.getMessage() or "").strip()
    is_about_job = getattr(record, "exception", None) in _OF_JOBS
    if not text or text == "None" or is_about_job or record.levelno < logging.INFO:
        return
    if text.startswith(_NOTHING_TO_DO):
        console.nothing_to_do(text)
    elif text.startswith(_RESTART):
        console.say("  This job is started again.")
    elif record.levelno >= logging.WARNING or not (text.startswith(_CHATTER) or _SUBMITTED in text):
        console.say(text)
