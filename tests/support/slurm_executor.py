"""The executor of the workflow without Snakemake and Slurm: recorded answers, and a shell script as `sbatch`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from snakemake_interface_executor_plugins.settings import SharedFSUsage

from hafabench.cluster.commands import CommandFailed
from hafabench.cluster.executor import Executor, ExecutorSettings, common_settings
from tools.waiting import wait_until

RETRIES = 5


class FakeJob:
    """A job of Snakemake, as far as an executor uses it."""

    def __init__(self, name: str, output: Path, wildcards: Sequence[str] = (), jobid: int = 1):
        self.name, self.jobid = name, jobid
        self.rule = SimpleNamespace(name=name)
        self.wildcards = list(wildcards)
        self.output, self.log = [str(output)], [str(output.with_suffix(".log"))]
        self.resources: dict[str, Any] = Resources(mem_mb=300, runtime=5)
        self.params: dict[str, Any] = {}
        self.threads, self.attempt, self.restart_times = 1, 1, RETRIES
        self.is_local = False
        self.errors: list[str] = []

    def is_group(self) -> bool:
        return False

    def log_info(self) -> None:
        pass

    def log_error(self, message: str, **_: object) -> None:
        self.errors.append(message)

    def register(self, external_jobid: str) -> None:
        self.external_jobid = external_jobid


class Resources(dict):
    """Resources whose values are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class FakeScheduler:
    """Notes what an executor reports."""

    finished: list[FakeJob] = field(default_factory=list)
    failed: list[FakeJob] = field(default_factory=list)
    ended_without_removal: list[FakeJob] = field(default_factory=list)
    _user_kill: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open_jobs: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def submit_callback(self, job: FakeJob) -> None:
        pass

    def finish_callback(self, job: FakeJob) -> None:
        self.finished.append(job)

    def error_callback(self, job: FakeJob) -> None:
        self.failed.append(job)

    def _handle_error(self, job: FakeJob, postprocess_job: bool = True) -> None:
        assert self._lock.locked()
        assert not postprocess_job
        self.ended_without_removal.append(job)


@dataclass
class FakeLogger:
    """Keeps messages."""

    messages: list[str] = field(default_factory=list)

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level == "debug":
            return lambda *_, **__: None
        return lambda message, **_: self.messages.append(str(message))

    def text(self) -> str:
        return "\n".join(self.messages)


class FakeSlurm:
    """Answers squeue, sacct and scancel; texts or errors, which tests change. `calls` contains the command lines."""

    def __init__(self) -> None:
        self.answers: dict[str, str | Exception] = {"squeue": "", "sacct": "", "scancel": ""}
        self.calls: list[list[str]] = []

    def __call__(self, arguments: Sequence[str], timeout: float) -> str:
        self.calls.append(list(arguments))
        answer = self.answers[arguments[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def away(self, *commands: str, words: str = "Unable to contact slurm controller (connect failure)") -> None:
        for command in commands or self.answers:
            self.answers[command] = CommandFailed(f"{command}: {words}", words)

    def called(self, program: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == program]


class FakeDriver:
    """An executor in a folder, with jobs that a test submits and polls by hand.

    Args:
        folder: Working folder, which contains the stand-in of sbatch.
        immediate_submit: The option `--immediate-submit` of Snakemake.
        settings: Settings of the executor that differ from the defaults.
    """

    def __init__(self, folder: Path, *, immediate_submit: bool = False, **settings: Any):
        self.folder, self.scheduler, self.logger, self.slurm = folder, FakeScheduler(), FakeLogger(), FakeSlurm()
        quick = {"grace_seconds": 0.05, "resubmission_seconds": 0.05, "max_resubmission_seconds": 0.1}
        self.settings = ExecutorSettings(
            **{**quick, "init_seconds_before_status_checks": 20, "keep_successful_logs": True, **settings}
        )
        (folder / ".snakemake").mkdir(exist_ok=True)
        bin_folder = folder / "bin"
        bin_folder.mkdir(exist_ok=True)
        self._sbatch = bin_folder / "sbatch"
        workflow = SimpleNamespace(
            executor_settings=self.settings,
            executor_plugin=SimpleNamespace(common_settings=common_settings),
            remote_execution_settings=SimpleNamespace(
                max_status_checks_per_second=10,
                jobname="job.{jobid}",
                jobscript=None,
                seconds_between_status_checks=1,
                immediate_submit=immediate_submit,
            ),
            storage_settings=SimpleNamespace(shared_fs_usage=SharedFSUsage.all()),
            dag=None,
            main_snakefile=str(folder / "Snakefile"),
            scheduler=self.scheduler,
            workdir_init=str(folder),
        )
        self.executor = Executor(workflow, self.logger)
        self.executor.runner = self.slurm
        self.executor.format_job_exec = lambda job: f"run {job.name}"
        self.accept(8)

    def sbatch(self, script: str) -> None:
        """Make sbatch run this shell script. Its arguments are appended to the file `submissions`."""
        self._sbatch.unlink(missing_ok=True)
        self._sbatch.write_text(f'#!/bin/sh\necho "$*" >> {self.folder}/submissions\n{script}\n')
        self._sbatch.chmod(0o755)

    def accept(self, first: int) -> None:
        """Make sbatch accept jobs with ids from ``first`` on."""
        counter = self.folder / "next"
        counter.write_text(str(first))
        self.sbatch(f"cat {counter}; echo $(($(cat {counter}) + 1)) > {counter}.new; mv {counter}.new {counter}")

    def refuse(self, words: str) -> None:
        """Make sbatch refuse jobs."""
        self.sbatch(f"echo '{words}' >&2; exit 1")

    @property
    def submissions(self) -> list[str]:
        path = self.folder / "submissions"
        return path.read_text().splitlines() if path.exists() else []

    def submit(self, *jobs: FakeJob) -> None:
        self.executor.run_jobs(list(jobs))

    def asked_for_states(self) -> list[list[str]]:
        """Return the queries of the Slurm jobs of this driver."""
        return [call for call in self.slurm.called("squeue") if f"--name={self.executor.run_uuid}" in call]

    def submitted(self) -> list[str]:
        """Return the ids of the jobs that the executor watches."""
        return [info.external_jobid for info in self.executor.active_jobs]

    def wait_submitted(self, *ids: str) -> None:
        wait_until(
            lambda: self.submitted() == list(ids),
            lambda: f"{self.submitted()} are {ids}\n{self.logger.text()}",
            timeout=10,
            every=0.01,
        )

    def poll(self) -> list[str]:
        """Ask Slurm once, and return the ids of the jobs that live on."""

        async def check() -> list[Any]:
            active = list(self.executor.active_jobs)
            return [info async for info in self.executor.check_active_jobs(active)]

        self.executor.active_jobs = asyncio.run(check())
        return self.submitted()


def with_path(folder: Path) -> str:
    """The search path with the stand-in of sbatch in front."""
    return os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
