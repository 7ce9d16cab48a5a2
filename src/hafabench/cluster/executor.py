"""The executor of the workflow on Slurm: Snakemake's official Slurm executor, with as little changed as possible.

It submits jobs as the official executor does, with three differences. Its own query decides whether a job has ended
(`hafabench.cluster.polling`). Jobs that Slurm refuses for now wait and are submitted again, without using up an
attempt (`hafabench.cluster.refusals`). A request grows only after an attempt that ran out of memory or time.

Every job on a node imports this module when Snakemake starts there, so it imports nothing large.
"""

from __future__ import annotations

import asyncio
import math
import re
import shlex
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_executor_plugin_slurm import Executor as SlurmExecutor
from snakemake_executor_plugin_slurm import ExecutorSettings as SlurmExecutorSettings
from snakemake_executor_plugin_slurm import common_settings
from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age
from snakemake_executor_plugin_slurm.utils import get_job_wildcards
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from hafabench.cluster.commands import CommandFailed, Runner, run
from hafabench.cluster.polling import (
    LONGEST_PAUSE_S,
    SACCT,
    SQUEUE,
    UNCLEAR_GRACES,
    Answers,
    Doubt,
    Said,
    judge,
    parse_sacct,
    parse_squeue,
    seconds_to_next_poll,
)
from hafabench.cluster.refusals import Refusal, classify
from hafabench.cluster.waiting_jobs import WaitingJobs

if TYPE_CHECKING:
    from hafabench.cluster.earlier_jobs import EarlierJobs

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

# Seconds that squeue, sacct and scancel may take. A controller under load answers late.
_TIMEOUT_S = 60.0
# Ids of jobs in one command line of sacct.
_IDS_AT_ONCE = 500
# A silence of Slurm is reported after this time.
_SILENCE_S = 30.0
# Seconds between two looks at the jobs that wait for their submission.
_TICK_S = 0.2
_CANCEL_TRIES = 3
# Seconds after the first answer of Slurm at which a submission that seemed to fail must be in the queue.
_SETTLED_AFTER_S = 2.0
_SBATCH_SAYS = re.compile(r"The error message was '(?P<words>.*?)'\.\n\s*sbatch call:", re.DOTALL)
_NO_ACCOUNTING = re.compile(r"accounting storage is disabled|not found; this machine|SlurmDBD.*not (active|running)")
_OWN_SETTINGS = (
    "grace_seconds",
    "max_seconds_between_status_checks",
    "resubmission_seconds",
    "max_resubmission_seconds",
)
_Stamps = tuple[tuple[int, int, int] | None, ...]


def _setting(default: float, text: str) -> Any:
    return field(default=default, metadata={"help": text, "env_var": False, "required": False, "type": float})


@dataclass
class ExecutorSettings(SlurmExecutorSettings):
    """The settings of the official Slurm executor, with further ones.

    The official setting ``status_command`` has no effect: both squeue and sacct are asked.
    """

    status_command: str | None = field(
        default=None, metadata={"help": "Has no effect here.", "env_var": False, "required": False, "type": str}
    )
    grace_seconds: float = _setting(
        120, "Seconds after which a job has ended that Slurm has forgotten, or preempted without queueing it again."
    )
    max_seconds_between_status_checks: float = _setting(
        LONGEST_PAUSE_S, "Longest time between two queries of all jobs."
    )
    resubmission_seconds: float = _setting(
        10, "Pause before a job that Slurm refused for now is submitted again. Each further pause is twice as long."
    )
    max_resubmission_seconds: float = _setting(300, "Longest pause before a refused job is submitted again.")


@dataclass
class _Submitted:
    """A Slurm job that this driver has submitted and not yet seen ending.

    Attributes:
        info: The job.
        before: The outputs at its submission.
        doubt: What the last polls did not understand about it.
    """

    info: SubmittedJobInfo
    before: _Stamps
    doubt: Doubt | None = None


class Executor(SlurmExecutor):
    """Submits jobs to Slurm and waits for their ends."""

    # Runs squeue, sacct and scancel. Tests replace it by recorded answers.
    runner: Runner = staticmethod(run)

    def __init__(self, workflow: Any, logger: Any):
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        # By Slurm's id.
        self._submitted: dict[str, _Submitted] = {}
        self._known_ids: set[str] = set()
        # By id() of a Snakemake job that sbatch was called for: its outputs at that time.
        self._outputs_before: dict[int, _Stamps] = {}
        self._resubmitter: threading.Thread | None = None
        self._min_job_age: float | None = None
        self._earlier: EarlierJobs | None = None
        self._has_accounting = True
        self._quiet_polls = 0
        self._silent_since: float | None = None
        self._silence_is_told = False
        self._accounting_says = ""
        self._unclear_is_told = False
        self._has_submitted = False
        self._cancelling_is_over = False
        settings = workflow.executor_settings
        for name in _OWN_SETTINGS:
            if not 0 < getattr(settings, name) < math.inf:
                option = f"hafabench-slurm-{name.replace('_', '-')}"
                raise WorkflowError(f"{option}: expected a positive number, found {getattr(settings, name):g}")
        self._waiting: WaitingJobs[Any] = WaitingJobs(
            settings.resubmission_seconds, settings.max_resubmission_seconds
        )
        super().__init__(workflow, logger)

    def __post_init__(self, test_mode: bool = False) -> None:
        super().__post_init__(test_mode)
        if self.array_jobs:
            raise WorkflowError(
                "array jobs are not supported, because all tasks of an array have the comment of the first one, by "
                "which Slurm jobs are assigned to the jobs of the workflow"
            )
        if self.workflow.remote_execution_settings.immediate_submit:
            raise WorkflowError(
                "--immediate-submit is not supported, because a Slurm job would not wait for those that make its "
                "inputs"
            )
        self._min_job_age = get_min_job_age()

    # -- submission --------------------------------------------------------------------------------------------------

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
        from hafabench.cluster.earlier_jobs import EarlierJobs, dependency

        with self._guard:
            if self._earlier is None:
                prefix = self.workflow.executor_settings.jobname_prefix or ""
                self._earlier = EarlierJobs(Path(self.workflow.workdir_init), prefix, self.runner)
        ids = self._earlier.ids(self._comment(job))
        if ids:
            others = ", ".join(ids)
            self.logger.info(f"Job {job.jobid} begins after Slurm job {others}, which does the same, has ended.")
        return dependency(ids)

    def get_job_exec_prefix(self, job: Any) -> str:
        """Tell a job on a node how much its request has grown, because its rule computes other values from it."""
        from hafabench.runs.growth import NONE, VARIABLE

        growth = self._growth(job)
        return "" if growth == NONE else f"export {VARIABLE}={growth.text}"

    def run_job(self, job: Any) -> None:
        """Submit a job, unless jobs like it wait because Slurm refuses them for now."""
        try:
            self._run_job(job)
        except Exception as error:
            self._fail(job, error)

    def _run_job(self, job: Any) -> None:
        if self._is_ending():
            self._drop([job])
            return
        if self._waiting.hold_back(job, self._kind(job)):
            return
        try:
            self._log_folder(job).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._refused(job, classify(f"{error.filename}: {error.strerror}"))
            return
        with self._guard:
            self._outputs_before[id(job)] = _stamps(job)
        self._has_submitted = True
        super().run_job(job)

    def _report_job_submission_threadsafe(self, job_info: SubmittedJobInfo) -> None:
        assert job_info.external_jobid is not None
        with self._guard:
            before = self._outputs_before.pop(id(job_info.job), ())
            self._submitted[job_info.external_jobid] = _Submitted(job_info, before)
            self._known_ids.add(job_info.external_jobid)
        super()._report_job_submission_threadsafe(job_info)
        self._tell(self._waiting.leave(job_info.job, time.monotonic()))

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        """The official executor calls this only if a submission has failed."""
        told = _SBATCH_SAYS.search(msg)
        refusal = classify(told["words"] if told else msg)
        try:
            self._refused(job_info.job, refusal)
        except Exception as error:
            # The official executor would report an error of this method to this method.
            self._fail(job_info.job, error)

    def _refused(self, job: Any, refusal: Refusal) -> None:
        """Let a refused job wait, or end it if Slurm will never accept it."""
        if refusal.kind == "good":
            self._tell(self._waiting.leave(job, time.monotonic(), accepted=False))
            self._fail_for_good(job, refusal)
            return
        for other in self._waiting.refuse(job, self._kind(job), refusal, time.monotonic()):
            self._fail_for_good(other, refusal)
        with self._guard:
            if self._resubmitter is None and not self._stopping.is_set():
                self._resubmitter = threading.Thread(target=self._resubmit, name="resubmit", daemon=True)
                self._resubmitter.start()

    def _fail_for_good(self, job: Any, refusal: Refusal) -> None:
        from hafabench.cluster.ends import refused

        end = refused(refusal.words)
        # A repetition would be refused again.
        job.attempt = job.restart_times + 1
        try:
            self._store(job, None, end)
            message = f"Slurm refuses this job, and it is not submitted again: {end.sentence}. "
            self.print_job_error(SubmittedJobInfo(job), message)
        finally:
            self._end_without_removing(job)

    def _fail(self, job: Any, error: Exception) -> None:
        """End an attempt whose submission met an error of this program. The driver would wait for it for ever."""
        self._waiting.leave(job, time.monotonic(), accepted=False)
        try:
            self._report_error(SubmittedJobInfo(job), f"This job could not be submitted: {error!r}. ")
        except Exception as second:
            self.logger.error(f"Job {job.jobid} could not be submitted: {error!r}; {second!r}")
            self.workflow.scheduler.error_callback(job)

    def _resubmit(self) -> None:
        """Submit waiting jobs again when their time has come, until the driver ends."""
        while not self._stopping.wait(_TICK_S):
            try:
                self._resubmit_once()
            except Exception as error:
                self.logger.warning(f"Jobs that wait for their submission could not be looked at: {error!r}")
                self._stopping.wait(10)

    def _resubmit_once(self) -> None:
        if self._is_ending():
            self._drop(self._waiting.clear())
            return
        now = time.monotonic()
        for message in self._waiting.messages(now):
            self._tell(message)
        for job, refusal in self._waiting.due(now):
            try:
                self._job_submission_executor.submit(self._try_again, job, refusal)
            except RuntimeError:
                # The driver ends.
                return

    def _try_again(self, job: Any, refusal: Refusal) -> None:
        try:
            if not self._adopt(job, refusal):
                self.run_job(job)
        except Exception as error:
            self._fail(job, error)

    def _adopt(self, job: Any, refusal: Refusal) -> bool:
        """Watch the Slurm job of a submission that seemed to fail. Return whether the job needs no submission now."""
        if refusal.may_have_submitted and id(job) in self._outputs_before:
            try:
                adopted = self._find_submitted(job)
                if adopted is None:
                    # A slow controller may answer before it has worked on the submission.
                    self._stopping.wait(_SETTLED_AFTER_S)
                    adopted = self._find_submitted(job)
            except CommandFailed as error:
                # While Slurm does not answer, nobody knows whether it has the job.
                self._refused(job, refusal if refusal.kind == "now" else _no_answer(error.message))
                return True
            if adopted is not None:
                log = self._log_folder(job) / f"{adopted}.log"
                self.logger.info(
                    f"Job {job.jobid} has been submitted with SLURM jobid {adopted} (log: {log}), "
                    "although sbatch failed."
                )
                self._report_job_submission_threadsafe(
                    SubmittedJobInfo(job, external_jobid=adopted, aux={"slurm_logfile": log})
                )
                return True
        return False

    def _find_submitted(self, job: Any) -> str | None:
        """Return Slurm's id of a job whose submission seemed to fail, if Slurm has accepted it nevertheless."""
        queue = parse_squeue(self.runner([*SQUEUE, f"--name={self.run_uuid}"], _TIMEOUT_S))
        wanted = self._comment(job)
        with self._guard:
            found = [name for name, said in queue.items() if said.comment == wanted and name not in self._known_ids]
        return max(found, key=_number, default=None)

    # -- the ends of jobs --------------------------------------------------------------------------------------------

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Report the jobs that have ended, and yield the others. An error here would leave all jobs unwatched."""
        try:
            verdicts = self._poll(active_jobs)
        except Exception as error:
            self.logger.warning(f"The states of Slurm jobs could not be read: {error!r}")
            verdicts = {}
        any_ended = False
        for info in active_jobs:
            verdict, said = verdicts.get(str(info.external_jobid), ("lives", None))
            if verdict not in ("succeeded", "failed", "lost"):
                yield info
                continue
            any_ended = True
            with self._guard:
                self._submitted.pop(str(info.external_jobid), None)
            try:
                self._report_end(info, succeeded=verdict == "succeeded", said=said)
            except Exception as error:
                self.logger.warning(f"The end of Slurm job {info.external_jobid} could not be reported: {error!r}")
                self.workflow.scheduler.error_callback(info.job)
        if any_ended:
            self._waiting.make_room(time.monotonic())
            if self._earlier is not None:
                self._earlier.ask_again()
        self._quiet_polls = 0 if any_ended or not active_jobs else self._quiet_polls + 1
        longest = self.workflow.executor_settings.max_seconds_between_status_checks
        self.next_seconds_between_status_checks = seconds_to_next_poll(
            self.workflow.executor_settings.init_seconds_before_status_checks,
            self._quiet_polls,
            self._min_job_age,
            longest if self._silent_since is None else min(longest, _SILENCE_S),
        )

    def _poll(self, active_jobs: Sequence[SubmittedJobInfo]) -> dict[str, tuple[str, Said | None]]:
        """Ask Slurm about all jobs, and return a verdict by id; an empty dictionary if Slurm does not answer."""
        if not active_jobs or self._stopping.is_set():
            return {}
        begin = time.monotonic()
        try:
            queue = parse_squeue(self.runner([*SQUEUE, f"--name={self.run_uuid}"], _TIMEOUT_S))
        except CommandFailed as error:
            self._note_silence(error.message, len(active_jobs), begin)
            return {}
        self._note_answer()
        if self._min_job_age is None:
            # Slurm did not answer when the driver started.
            self._min_job_age = get_min_job_age()
        ids = [str(info.external_jobid) for info in active_jobs]
        answers = Answers(queue, self._ask_accounting([name for name in ids if name not in queue]))
        found: dict[str, tuple[str, Said | None]] = {}
        for info, name in zip(active_jobs, ids, strict=True):
            with self._guard:
                submitted = self._submitted.setdefault(name, _Submitted(info, _stamps(info.job)))
            verdict, said, submitted.doubt = judge(
                name,
                answers,
                submitted.doubt,
                now=time.monotonic(),
                grace=self.workflow.executor_settings.grace_seconds,
            )
            if verdict in ("lost", "unclear") and _are_made(_stamps(info.job), submitted.before):
                # Outputs are written as a whole, and a job removes those of an earlier attempt before it begins.
                verdict = "succeeded"
            found[name] = (verdict, said)
        self._note_unclear(sum(verdict == "unclear" for verdict, _ in found.values()))
        if answers.accounting is not None:
            # squeue prints no exit codes. All jobs are asked about at once, because accounting may hang.
            failed = [name for name, (verdict, said) in found.items() if verdict == "failed" and _lacks_code(said)]
            for name, accounted in (self._ask_accounting(failed) or {}).items():
                _, said = found.get(name, ("failed", None))
                if said is not None and accounted.state.split()[:1] == said.state.split()[:1]:
                    found[name] = ("failed", accounted)
        return found

    def _ask_accounting(self, jobs: Sequence[str]) -> dict[str, Said] | None:
        """What accounting says about jobs; None if it does not answer, and nothing if the cluster has none."""
        found: dict[str, Said] = {}
        if not self._has_accounting:
            return found
        for start in range(0, len(jobs), _IDS_AT_ONCE):
            words = [*SACCT, f"--jobs={','.join(jobs[start : start + _IDS_AT_ONCE])}"]
            try:
                found |= parse_sacct(self.runner(words, _TIMEOUT_S), self.run_uuid)
            except CommandFailed as error:
                if _NO_ACCOUNTING.search(str(error)):
                    self._has_accounting = False
                    return {}
                self._accounting_says = error.message
                return None
        return found

    def _note_unclear(self, count: int) -> None:
        """Say once that accounting has to tell how jobs ended, and does not answer."""
        if count and not self._unclear_is_told:
            minutes = UNCLEAR_GRACES * self.workflow.executor_settings.grace_seconds / 60
            self.logger.warning(
                f"The accounting of Slurm does not answer: {self._accounting_says.rstrip('.')}. Slurm jobs that have "
                f"ended unnoticed and whose outputs are not made: {count}. They count as failed if accounting does "
                f"not answer within {minutes:.0f} min."
            )
        self._unclear_is_told = count > 0

    def _note_silence(self, words: str, count: int, begin: float) -> None:
        if self._silent_since is None:
            self._silent_since = begin
        if time.monotonic() - self._silent_since >= _SILENCE_S and not self._silence_is_told:
            self._silence_is_told = True
            self.logger.warning(
                f"Slurm does not answer: {words}. "
                f"The states of {count} Slurm jobs are unknown. They are still watched."
            )

    def _note_answer(self) -> None:
        if self._silence_is_told and self._silent_since is not None:
            seconds = time.monotonic() - self._silent_since
            self.logger.info(f"Slurm answers again, after {seconds:.0f} s.")
        self._silent_since, self._silence_is_told = None, False

    def _report_end(self, info: SubmittedJobInfo, *, succeeded: bool, said: Said | None) -> None:
        if succeeded:
            self.report_job_success(info)
            return
        from hafabench.cluster.ends import how_it_ended
        from hafabench.runs.growth import count

        name = str(info.external_jobid)
        log = (info.aux or {}).get("slurm_logfile")
        end = how_it_ended(
            state=said.state if said else "",
            exit_code=(said.exit_code or "") if said else "",
            node=said.node if said else "",
            slurm_log=Path(log) if log else None,
            job_log=_own_log(info.job),
            slurm_id=name,
        )
        if end.kind == "memory":
            count("memory", *self._key(info.job))
        elif end.kind in ("time", "stopped"):
            count("time", *self._key(info.job))
        self._store(info.job, name, end)
        self._report_error(info, f"Slurm job {name}: {end.sentence}. ", [str(log)] if log else [])

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        """Print an error, and the message of a group of jobs, which Snakemake leaves out."""
        if msg and job_info.job.is_group():
            self.logger.error(f"Error in group {job_info.job.name}: {msg.rstrip()}")
        super().print_job_error(job_info, msg=msg, **kwargs)

    def _report_error(self, info: SubmittedJobInfo, message: str, logs: Sequence[str] = ()) -> None:
        super().report_job_error(info, msg=message, **({"aux_logs": list(logs)} if logs else {}))

    def _store(self, job: Any, slurm_id: str | None, end: Any) -> None:
        """Store how an attempt ended, for `hafabench status`."""
        from hafabench.cluster.ends import StoredEnd, store_end
        from hafabench.runs.snakemake import SLURM_LOGS

        folder = self.workflow.executor_settings.logdir
        if folder is None or Path(folder).parent != SLURM_LOGS:
            # The workflow of a test, without an experiment.
            return
        try:
            store_end(
                StoredEnd(
                    comment=self._comment(job),
                    slurm_id=slurm_id,
                    end=end,
                    attempt=job.attempt,
                    attempts=job.restart_times + 1,
                    time=time.time(),
                    fingerprint=_fingerprint(job),
                ),
                Path(folder).name,
            )
        except OSError as error:
            self.logger.warning(f"The end of a job could not be stored: {error}")

    # -- the end of the driver ---------------------------------------------------------------------------------------

    async def sleep(self) -> None:
        """Wait until the next poll, or until the driver ends."""
        if self._stopping.wait(self.next_seconds_between_status_checks):
            await asyncio.sleep(_TICK_S)

    def cancel(self) -> None:
        """Cancel all Slurm jobs of this driver, also those that are being submitted. A second Ctrl-C ends this."""
        try:
            self._stop_submitting()
            super().cancel()
        except KeyboardInterrupt:
            if self._has_submitted and not self._cancelling_is_over:
                self._report_uncancelled("Ctrl-C was pressed again")

    def cancel_jobs(self, active_jobs: Iterable[SubmittedJobInfo]) -> None:
        """Cancel the Slurm jobs of this driver by their name, which no other driver shares.

        The list of active jobs is empty while their states are read, and sbatch may have failed after a submission.
        """
        if not self._has_submitted:
            return
        words = ""
        for tries in range(_CANCEL_TRIES):
            if tries:
                self._tell(
                    f"The Slurm jobs of this driver are not cancelled yet: {words.rstrip('.')}. This is tried again; "
                    "Ctrl-C ends the driver without it."
                )
                time.sleep(2)
            try:
                self.runner(self._cancel_command, _TIMEOUT_S)
                self._cancelling_is_over = True
                return
            except CommandFailed as error:
                words = error.message
        self._report_uncancelled(words)

    @property
    def _cancel_command(self) -> list[str]:
        return ["scancel", f"--name={self.run_uuid}"]

    def _report_uncancelled(self, words: str) -> None:
        self._cancelling_is_over = True
        self.logger.error(
            f"The Slurm jobs of this driver could not be cancelled: {words.rstrip('.')}. They continue. "
            f"When Slurm answers again, run: {shlex.join(self._cancel_command)}"
        )

    def shutdown(self) -> None:
        """End the threads. Jobs that are not submitted yet are left out."""
        self._stop_submitting()
        super().shutdown()

    def _stop_submitting(self) -> None:
        self._stopping.set()
        self._waiting.clear()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)

    def _is_ending(self) -> bool:
        """Whether the driver submits no more jobs: it ends, or waits for its running jobs after SIGTERM."""
        return self._stopping.is_set() or bool(getattr(self.workflow.scheduler, "_user_kill", None))

    def _drop(self, jobs: Sequence[Any]) -> None:
        """Let the driver end without jobs that it has not submitted."""
        if jobs and not self._stopping.is_set():
            self._tell(f"Jobs that were not submitted, because the driver was asked to end: {len(jobs)}.")
            for job in jobs:
                job.attempt = job.restart_times + 1
                self._end_without_removing(job)

    def _end_without_removing(self, job: Any) -> None:
        """End a job that never began. The usual way would remove its outputs, which are those of an earlier run."""
        scheduler = self.workflow.scheduler
        with scheduler._lock:
            scheduler._handle_error(job, postprocess_job=False)
            scheduler._open_jobs.release()

    # -- names -------------------------------------------------------------------------------------------------------

    def _tell(self, message: str | None) -> None:
        if message:
            self.logger.warning(message)

    def _log_folder(self, job: Any) -> Path:
        """The folder in which the official executor stores the output of a job's Slurm jobs."""
        kind = "group" if job.is_group() else "rule"
        return Path(self.slurm_logdir) / f"{kind}_{job.name}" / get_job_wildcards(job)

    def _comment(self, job: Any) -> str:
        """The comment that the official executor gives to a job's Slurm jobs."""
        from hafabench.runs.snakemake import comment

        wildcards = get_job_wildcards(job)
        return comment(job.name, [wildcards] if wildcards else [])

    def _key(self, job: Any) -> tuple[str, tuple[str, ...]]:
        return job.name, () if job.is_group() else tuple(job.wildcards)

    def _growth(self, job: Any) -> Any:
        from hafabench.runs.growth import growth_of

        return growth_of(*self._key(job))

    def _kind(self, job: Any) -> str:
        """Jobs of one kind make similar requests: those of a rule in a partition."""
        return f"{job.name} {job.resources.get('slurm_partition')}"


def _no_answer(words: str) -> Refusal:
    """The refusal by a Slurm that does not answer."""
    return Refusal(words, "now", may_have_submitted=True)


def _lacks_code(said: Said | None) -> bool:
    return said is not None and said.exit_code is None


def _stamps(job: Any) -> _Stamps:
    """The state of every output of a job; None for one that does not exist."""
    found: list[tuple[int, int, int] | None] = []
    for path in () if job.is_group() else job.output:
        try:
            status = Path(path).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _are_made(now: _Stamps, before: _Stamps) -> bool:
    """Whether all outputs exist and none is the one from before the submission."""
    return bool(now) and all(stamp is not None and stamp not in before for stamp in now)


def _own_log(job: Any) -> Path | None:
    """The log of a job, which trainings and evaluations do not declare, because Snakemake would delete it."""
    if job.is_group():
        return None
    declared = next(iter(job.log or ()), None)
    try:
        path = declared or job.params.get("log")
    except Exception:  # Snakemake evaluates functions of the workflow here, which may raise anything.
        return None
    return Path(path) if path else None


def _fingerprint(job: Any) -> str | None:
    try:
        found = job.params.get("fingerprint")
    except Exception:  # As above.
        return None
    return found if isinstance(found, str) else None


def _number(job: str) -> int:
    """The number at the beginning of Slurm's id of a job, without the task of an array; 0 if there is none."""
    found = re.match(r"\d+", job)
    return int(found[0]) if found else 0
