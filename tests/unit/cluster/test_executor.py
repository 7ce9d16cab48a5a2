"""The executor of the workflow: which jobs it watches, submits again, and reports. Slurm's answers are recorded."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from hafabench.runs import growth
from hafabench.runs.growth import NONE, Growth, growth_of
from tests.support.slurm_commands import UUID, squeue_line
from tests.support.slurm_executor import RETRIES, FakeDriver, FakeJob, with_path
from tools.waiting import wait_until

LIMIT = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
ACCOUNT = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes a driver, which is shut down at the end of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", with_path(tmp_path))
    monkeypatch.setattr("hafabench.cluster.executor._SETTLED_AFTER_S", 0.02)
    monkeypatch.setattr(growth, "_counted", {})
    monkeypatch.delenv(growth.VARIABLE, raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    made = []

    def make(**settings) -> FakeDriver:
        made.append(FakeDriver(tmp_path, **settings))
        return made[-1]

    yield make
    for driver in made:
        driver.executor.shutdown()


@pytest.fixture
def driver(make) -> FakeDriver:
    return make()


@pytest.fixture
def job(tmp_path) -> FakeJob:
    return FakeJob("train_run", tmp_path / "checkpoint.pth", ["classification", "pvt_tiny", "0"])


def submit(driver, job, name="8"):
    driver.submit(job)
    driver.wait_submitted(name)


def soon(condition):
    wait_until(condition, "the executor acts", timeout=10, every=0.01)


# -- the ends of jobs


def test_a_finished_job_is_reported_and_a_running_one_is_kept(driver, job):
    submit(driver, job)
    driver.slurm.answers["squeue"] = "8|RUNNING|node1|c"
    assert driver.poll() == ["8"]
    driver.slurm.answers["squeue"] = "8|COMPLETED|node1|c"
    assert driver.poll() == []
    assert driver.scheduler.finished == [job]


def test_no_answer_keeps_every_job_and_is_told_once(driver, job, monkeypatch):
    monkeypatch.setattr("hafabench.cluster.executor._SILENCE_S", 0.0)
    submit(driver, job)
    driver.slurm.away()
    for _ in range(4):
        assert driver.poll() == ["8"]
    driver.slurm.answers.update(squeue="", sacct=f"8|CANCELLED by 0|0:15|node1|{driver.executor.run_uuid}")
    assert driver.poll() == []
    assert driver.scheduler.failed == [job]
    told = driver.logger.text()
    assert told.count("Slurm does not answer: Unable to contact slurm controller") == 1
    assert told.count("Slurm answers again") == 1


def test_an_error_while_polling_keeps_every_job(driver, job, monkeypatch):
    submit(driver, job)
    monkeypatch.setattr("hafabench.cluster.executor.parse_squeue", lambda text: 1 / 0)
    assert driver.poll() == ["8"]
    assert "ZeroDivisionError" in driver.logger.text()


def test_an_error_while_reporting_ends_the_job(driver, job, monkeypatch):
    submit(driver, job)
    monkeypatch.setattr(job, "log_error", lambda *_, **__: 1 / 0)
    driver.slurm.answers["squeue"] = "8|FAILED|node1|c"
    assert driver.poll() == []
    assert driver.scheduler.failed == [job]


@pytest.mark.parametrize("made", [True, False])
def test_a_lost_job_has_succeeded_if_its_outputs_are_new(driver, job, tmp_path, made):
    old = tmp_path / "checkpoint.pth"
    old.write_text("of an earlier run")
    submit(driver, job)
    assert driver.poll() == ["8"], "it may appear later"
    if made:
        new = tmp_path / "new"
        new.write_text("of this run")
        new.replace(old)
    time.sleep(driver.settings.grace_seconds)
    assert driver.poll() == []
    assert (driver.scheduler.finished, driver.scheduler.failed) == (([job], []) if made else ([], [job]))
    if not made:
        assert "Slurm job 8: Slurm no longer knows it" in job.errors[0]


def test_a_forgotten_job_waits_for_an_answer_of_accounting_unless_its_outputs_are_new(driver, job, tmp_path):
    submit(driver, job)
    driver.slurm.away("sacct", words="Problem talking to the database: Connection refused")
    assert driver.poll() == ["8"]
    time.sleep(driver.settings.grace_seconds)
    assert driver.poll() == ["8"]
    (tmp_path / "checkpoint.pth").touch()
    assert driver.poll() == []
    assert driver.scheduler.finished == [job]


def test_a_forgotten_job_has_failed_if_accounting_never_answers(driver, job):
    submit(driver, job)
    driver.slurm.away("sacct", words="Problem talking to the database: Connection refused")
    assert driver.poll() == ["8"]
    time.sleep(driver.settings.grace_seconds)
    assert driver.poll() == ["8"]
    assert driver.poll() == ["8"]
    time.sleep(10 * driver.settings.grace_seconds)
    assert driver.poll() == []
    assert driver.scheduler.failed == [job]
    words = "The accounting of Slurm does not answer: Problem talking to the database: Connection refused. Slurm jobs"
    assert driver.logger.text().count(words) == 1


def test_accounting_that_hangs_is_asked_once_about_all_failed_jobs(driver, tmp_path):
    jobs = [FakeJob(f"rule{number}", tmp_path / f"{number}.out", jobid=number) for number in (8, 9, 10)]
    for count, one in enumerate(jobs, start=1):
        driver.submit(one)
        driver.wait_submitted(*("8", "9", "10")[:count])
    driver.slurm.answers["squeue"] = "8|FAILED|node1|c\n9|FAILED|node1|c\n10|FAILED|node1|c"
    driver.slurm.away("sacct", words="no answer within 60 s")
    assert driver.poll() == []
    assert len(driver.scheduler.failed) == 3
    assert len(driver.slurm.called("sacct")) == 1


def test_a_controller_that_hangs_is_told_after_its_first_query_and_asked_again_soon(driver, job, monkeypatch):
    monkeypatch.setattr("hafabench.cluster.executor._SILENCE_S", 5)
    submit(driver, job)
    driver.executor._quiet_polls = 10
    driver.slurm.away("squeue", words="no answer within 60 s")
    assert driver.poll() == ["8"]
    assert driver.executor.next_seconds_between_status_checks == 5
    assert "does not answer" not in driver.logger.text()

    def hang(arguments, timeout):
        time.sleep(0.05)
        return driver.slurm(arguments, timeout)

    monkeypatch.setattr("hafabench.cluster.executor._SILENCE_S", 0.05)
    monkeypatch.setattr(driver.executor, "_silent_since", None)
    monkeypatch.setattr(driver.executor, "runner", hang)
    assert driver.poll() == ["8"]
    assert driver.logger.text().count("Slurm does not answer: no answer within 60 s") == 1


def test_a_cluster_without_accounting_is_asked_once(driver, job):
    submit(driver, job)
    driver.slurm.away("sacct", words="Slurm accounting storage is disabled")
    assert driver.poll() == ["8"]
    time.sleep(driver.settings.grace_seconds)
    assert driver.poll() == []
    assert driver.scheduler.failed == [job]
    assert len(driver.slurm.called("sacct")) == 1


@pytest.mark.parametrize(
    ("state", "counted"),
    [
        ("OUT_OF_MEMORY", Growth(memory=1)),
        ("TIMEOUT", Growth(time=1)),
        *((state, NONE) for state in ("FAILED", "CANCELLED", "DEADLINE", "BOOT_FAIL")),
    ],
)
def test_a_request_grows_only_after_too_little_memory_or_time(driver, job, state, counted):
    submit(driver, job)
    driver.slurm.answers["squeue"] = f"8|{state}|node1|c"
    assert driver.poll() == []
    assert driver.scheduler.failed == [job]
    assert growth_of(job.name, job.wildcards) == counted
    told = driver.executor.get_job_exec_prefix(job)
    assert told == ("" if counted == NONE else f"export HAFABENCH_GROWTH={counted.text}")


def test_the_time_between_polls_is_shorter_than_slurm_remembers(driver, job):
    submit(driver, job)
    driver.slurm.answers["squeue"] = "8|RUNNING|node1|c"
    driver.executor._min_job_age = 30
    intervals = [driver.poll() and driver.executor.next_seconds_between_status_checks for _ in range(4)]
    assert intervals == [15, 15, 15, 15]
    driver.executor._min_job_age = 300
    driver.slurm.answers["squeue"] = "8|COMPLETED|node1|c"
    assert driver.poll() == []
    assert driver.executor.next_seconds_between_status_checks == 20


# -- submission


def test_the_account_of_the_site_file_is_used_and_no_other_is_looked_for(driver, job):
    submit(driver, job)
    assert " -A " not in driver.submissions[0]
    assert " -p " not in driver.submissions[0]
    job.resources.update(slurm_account="vision", slurm_partition="a100")
    driver.submit(job)
    driver.wait_submitted("8", "9")
    assert " -A vision " in driver.submissions[1]
    assert " -p a100 " in driver.submissions[1]
    assert {call[0] for call in driver.slurm.calls} <= {"squeue"}


@pytest.mark.parametrize("answers", [True, False])
def test_a_job_waits_for_that_of_an_earlier_driver(driver, job, tmp_path, answers):
    name = f"{driver.settings.jobname_prefix}_{UUID}"
    driver.slurm.answers["squeue"] = squeue_line(7, "RUNNING", tmp_path, name=name)
    if not answers:
        driver.slurm.away("squeue")
    submit(driver, job)
    assert (" --dependency=afterany:7 " in f"{driver.submissions[0]} ") is answers
    assert ("begins after Slurm job 7, which does the same, has ended" in driver.logger.text()) is answers


def test_a_repetition_does_not_wait_for_the_ended_slurm_job_of_its_driver(driver, job, tmp_path):
    name = f"{driver.settings.jobname_prefix}_{UUID}"
    submit(driver, job)
    driver.slurm.answers["squeue"] = squeue_line(8, "RUNNING", tmp_path, name=name)
    driver.executor._earlier.ask_again()
    assert driver.executor.extra_options(job)
    driver.slurm.answers["squeue"] = "8|FAILED|node1|c"
    assert driver.poll() == []
    assert driver.executor.extra_options(job) == []


@pytest.mark.parametrize("declares", [True, False])
def test_the_log_of_a_job_tells_the_reason_even_if_its_rule_declares_none(driver, job, tmp_path, declares):
    log = tmp_path / "train.log"
    log.write_text("error: r: its images are missing\n")
    job.log, job.params = ([log], {}) if declares else ([], {"log": str(log)})
    submit(driver, job)
    driver.slurm.answers["squeue"] = "8|FAILED|node1|c"
    assert driver.poll() == []
    assert "its images are missing" in job.errors[0]


def test_options_of_one_submission_reach_sbatch(driver, job, monkeypatch):
    monkeypatch.setattr(driver.executor, "extra_options", lambda job: ["--dependency=afterany:7"])
    submit(driver, job)
    assert " --dependency=afterany:7 " in driver.submissions[0]


def test_a_job_that_is_refused_for_now_is_submitted_again_with_the_same_request(driver, job):
    driver.refuse(LIMIT)
    driver.submit(job)
    soon(lambda: len(driver.submissions) == 3)
    driver.accept(8)
    driver.wait_submitted("8")
    assert len(set(driver.submissions)) == 1
    assert job.attempt == 1
    assert driver.scheduler.failed == []
    assert job.errors == []
    assert driver.logger.text().count("QOSMaxSubmitJobPerUserLimit. 1 job waits") == 1


def test_many_refused_jobs_are_tried_one_for_all(make, tmp_path, monkeypatch):
    monkeypatch.setattr("hafabench.cluster.executor._TICK_S", 0.02)
    driver = make(resubmission_seconds=0.5, max_resubmission_seconds=0.5)
    driver.refuse(LIMIT)
    jobs = [FakeJob("train_run", tmp_path / str(number), [str(number)]) for number in range(9)]
    driver.submit(*jobs)
    soon(lambda: len(driver.executor._waiting) == 9)
    assert len(driver.submissions) <= 3, "the others wait without a try"
    driver.accept(8)
    wait_until(lambda: len(driver.submitted()) == 9, driver.submitted, timeout=30)
    assert "9 jobs wait" in driver.logger.text()


def test_a_job_that_is_refused_for_good_is_not_tried_again(driver, job):
    driver.refuse(ACCOUNT)
    driver.submit(job)
    soon(lambda: driver.scheduler.ended_without_removal)
    assert driver.scheduler.ended_without_removal == [job]
    assert job.attempt == RETRIES + 1, "Snakemake makes no further attempt"
    assert "Invalid account or account/partition combination specified" in job.errors[0]
    assert "sbatch --parsable" not in job.errors[0]
    time.sleep(0.3)
    assert len(driver.submissions) == 1


def test_a_job_whose_submission_seemed_to_fail_is_not_submitted_twice(driver, job):
    driver.refuse(AWAY)
    driver.slurm.away("squeue")
    driver.submit(job)
    soon(lambda: len(driver.asked_for_states()) >= 2)
    assert len(driver.submissions) == 1, "it is not submitted while nobody knows whether Slurm has it"
    wanted = "rule_train_run_wildcards_classification_pvt_tiny_0"
    driver.slurm.answers["squeue"] = f"3|RUNNING|node1|another\n4|PENDING||{wanted}\n"
    driver.wait_submitted("4")
    assert len(driver.submissions) == 1
    (info,) = driver.executor.active_jobs
    assert info.aux["slurm_logfile"].name == "4.log"
    assert "Job 1 has been submitted with SLURM jobid 4" in driver.logger.text()


def test_a_submission_that_appears_after_the_first_answer_is_not_repeated(driver, job, monkeypatch):
    monkeypatch.setattr("hafabench.cluster.executor._SETTLED_AFTER_S", 0.3)
    driver.refuse(AWAY)
    driver.submit(job)
    soon(lambda: driver.asked_for_states())
    driver.slurm.answers["squeue"] = "4|PENDING||rule_train_run_wildcards_classification_pvt_tiny_0"
    driver.wait_submitted("4")
    assert len(driver.submissions) == 1


def test_jobs_that_sbatch_was_not_called_for_are_not_looked_for(driver, job, tmp_path):
    driver.refuse(AWAY)
    driver.submit(job)
    soon(lambda: len(driver.executor._waiting) == 1)
    driver.submit(another := FakeJob("evaluate_run", tmp_path / "evaluate.json"))
    soon(lambda: len(driver.executor._waiting) == 2)
    driver.accept(8)
    driver.slurm.answers["squeue"] = "4|RUNNING|node1|rule_evaluate_run"
    driver.wait_submitted("8", "9")
    assert another.external_jobid == "9"


def test_the_slurm_job_of_an_earlier_attempt_is_not_adopted(driver, job):
    submit(driver, job)
    driver.slurm.answers["squeue"] = f"8|FAILED|node1|{driver.executor._comment(job)}"
    assert driver.poll() == []
    driver.refuse(AWAY)
    driver.submit(job)
    soon(lambda: len(driver.submissions) == 2)
    driver.accept(9)
    driver.wait_submitted("9")


def test_a_full_disk_for_the_logs_is_a_refusal_for_now(driver, job, tmp_path, monkeypatch):
    (tmp_path / "logs").write_text("no folder")
    driver.executor.slurm_logdir = tmp_path / "logs"
    driver.submit(job)
    soon(lambda: len(driver.executor._waiting) == 1)
    assert driver.submissions == []
    (tmp_path / "logs").unlink()
    driver.wait_submitted("8")


@pytest.mark.parametrize("method", ["_kind", "_find_submitted"])
def test_an_error_of_a_submission_ends_the_attempt(driver, job, monkeypatch, method):
    driver.refuse(AWAY)
    monkeypatch.setattr(driver.executor, method, lambda job: 1 / 0)
    driver.submit(job)
    soon(lambda: driver.scheduler.failed)
    assert driver.scheduler.failed == [job]
    assert "ZeroDivisionError" in job.errors[0]
    assert len(driver.executor._waiting) == 0


def test_array_jobs_are_refused_in_one_sentence(make):
    with pytest.raises(WorkflowError, match="array jobs are not supported, because all tasks of an array"):
        make(array_jobs="train_run")


def test_immediate_submission_is_refused_in_one_sentence(make):
    with pytest.raises(WorkflowError, match="--immediate-submit is not supported, because a Slurm job would not"):
        make(immediate_submit=True)


def test_the_message_of_a_group_is_printed(driver, job, monkeypatch):
    monkeypatch.setattr(job, "is_group", lambda: True)
    driver.refuse(ACCOUNT)
    driver.submit(job)
    soon(lambda: driver.scheduler.ended_without_removal)
    told = "Error in group train_run: Slurm refuses this job, and it is not submitted again: "
    assert [text for text in driver.logger.messages if text.startswith(told) and "Invalid account" in text]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_settings_are_positive(make, value):
    with pytest.raises(WorkflowError, match="hafabench-slurm-grace-seconds: expected a positive number"):
        make(grace_seconds=value)


# -- the end of the driver


def test_an_interrupt_cancels_all_jobs_and_submits_no_others(driver, job, tmp_path):
    submit(driver, job)
    driver.refuse(LIMIT)
    driver.submit(FakeJob("evaluate_run", tmp_path / "evaluate.json"))
    soon(lambda: len(driver.executor._waiting) == 1)
    driver.executor.active_jobs.clear()  # as during a poll
    begin = time.monotonic()
    driver.executor.cancel()
    assert time.monotonic() - begin < 5
    assert driver.slurm.called("scancel") == [["scancel", f"--name={driver.executor.run_uuid}"]]
    count = len(driver.submissions)
    time.sleep(0.3)
    assert len(driver.submissions) == count


def test_an_interrupt_waits_for_a_submission_before_it_cancels(driver, job):
    driver.sbatch("sleep 0.3; echo 8; touch accepted")
    driver.submit(job)
    soon(lambda: driver.submissions)
    accepted = []
    driver.executor.runner = lambda *_: accepted.append(Path("accepted").exists()) or ""
    driver.executor.cancel()
    assert accepted == [True]


def test_jobs_that_cannot_be_cancelled_are_named_with_the_command(driver, job, monkeypatch):
    monkeypatch.setattr("hafabench.cluster.executor._CANCEL_TRIES", 1)
    submit(driver, job)
    driver.slurm.away("scancel")
    driver.executor.cancel()
    assert f"run: scancel --name={driver.executor.run_uuid}" in driver.logger.text()


@pytest.mark.parametrize("method", ["_stop_submitting", "runner", "shutdown"])
def test_a_second_ctrl_c_ends_the_driver_and_names_the_command_unless_the_jobs_are_cancelled(
    driver, job, monkeypatch, method
):
    submit(driver, job)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(driver.executor, method, interrupted)
        driver.executor.cancel()
    told = "could not be cancelled: Ctrl-C was pressed again. They continue. When Slurm answers again, run: scancel"
    assert (told in driver.logger.text()) is (method != "shutdown")


def test_a_driver_that_submitted_nothing_cancels_nothing(driver):
    driver.executor.cancel()
    assert driver.slurm.calls == []


def test_sigterm_lets_running_jobs_finish_and_leaves_the_waiting_ones_out(driver, job, tmp_path):
    submit(driver, job)
    driver.refuse(LIMIT)
    waiting = FakeJob("evaluate_run", tmp_path / "evaluate.json")
    driver.submit(waiting)
    soon(lambda: len(driver.executor._waiting) == 1)
    driver.scheduler._user_kill = "graceful"
    soon(lambda: driver.scheduler.ended_without_removal)
    driver.submit(another := FakeJob("evaluate_run", tmp_path / "another.json"))
    soon(lambda: len(driver.scheduler.ended_without_removal) == 2)
    assert driver.scheduler.ended_without_removal == [waiting, another]
    assert driver.submitted() == ["8"]
    assert driver.slurm.called("scancel") == []


def test_the_driver_does_not_wait_for_its_next_poll_to_end(driver):
    driver.executor.next_seconds_between_status_checks = 600
    ending = threading.Thread(target=driver.executor.shutdown)
    ending.start()
    ending.join(5)
    assert not ending.is_alive()
