"""What a driver prints: a line per job, what runs during a long silence, and failures with reason and log."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from hafabench.config.experiment import load_experiment
from hafabench.runs.console import Console, label
from hafabench.runs.jobs import JobList
from hafabench.runs.log_handler import CONSOLE_VARIABLE, LogHandler
from hafabench.runs.time_left import TimeLeft, describe
from tests.support.experiments import EXAMPLE


@pytest.fixture(scope="module")
def jobs() -> JobList:
    return JobList(load_experiment(EXAMPLE))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A console that begins with some jobs, its clock, and the lines that it printed after the announcement."""

    def __init__(self, jobs: JobList, rules: tuple[str, ...], width: int | None = None):
        self.clock, self.stream = Clock(), io.StringIO()
        self.console = Console(self.stream, self.clock, width)
        self.console._start_ticker = lambda: None  # type: ignore[method-assign]
        self.console.knows(jobs)
        self.jobs = [job for job in (*jobs.values(), *jobs.optional.values()) if job.rule in rules]
        self.console.begin(self.jobs, [".snakemake/log/now.log"])
        self.announced = self.stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().removeprefix(self.announced).splitlines()

    def start(self, *numbers: int) -> None:
        for number in numbers:
            self.console.started(number, self.jobs[number].rule, self.jobs[number].wildcards)

    def finish(self, number: int, after: float) -> None:
        self.clock.now += after
        self.console.finished(number)


def test_every_rule_has_words_of_its_own(jobs):
    for job in (*jobs.values(), *jobs.optional.values()):
        assert job.rule not in label(job.rule, job.wildcards)
    assert label("train_run", {"task": "detection", "model": "m", "seed": "3"}) == "train detection m, seed 3"
    assert label("of_another_workflow", {"a": "1", "b": "x\ny"}) == "of_another_workflow 1, x y"


def test_a_job_is_one_line_with_number_duration_and_time_left(jobs):
    told = Told(jobs, ("prepare_dataset",))
    assert told.announced.splitlines()[0] == "3 jobs to run."
    assert "The driver's full log is .snakemake/log/now.log." in told.announced
    told.start(0, 1, 2)
    told.finish(1, 30.0)
    told.finish(0, 15.0)
    told.finish(2, 75.0)
    first, second, last = told.lines
    assert first.split() == ["[1/3]", "prepare", "data,", "segmentation", "30.0", "s", "about", "10", "s", "left"]
    assert second.startswith("[2/3] prepare data, classification") and "45.0 s" in second
    assert last.split() == ["[3/3]", "prepare", "data,", "detection", "2", "min"]


def test_the_goal_of_the_workflow_is_no_job(jobs):
    told = Told(jobs, ("prepare_dataset",))
    told.console.started(7, "all", {}, is_shown=False)
    told.finish(7, 1.0)
    assert told.lines == []


def test_a_failure_tells_the_reason_of_the_log_and_its_path(jobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = Told(jobs, ("train_run",))
    log = told.jobs[0].log
    log.parent.mkdir(parents=True)
    log.write_text("hafabench: begins train_run x, fingerprint 0, process 1 on n\nstep 1\nerror: no \x1b[31mimage\n")
    told.start(0, 1)
    told.clock.now += 61
    told.console.failed(0)
    told.console.failed(1, "Slurm job 5: out of memory.", ["logs/slurm/digits/5.log"])
    first, reason, path, _, other, own, slurm = told.lines
    assert first.startswith(f"failed {label(told.jobs[0].rule, told.jobs[0].wildcards)} ") and "1 min 1 s" in first
    assert (reason, path) == ("  error: no \\x1b[31mimage", f"  log: {log}")
    assert other == "  Slurm job 5: out of memory."
    assert (own, slurm) == (f"  log: {told.jobs[1].log}", "  log: logs/slurm/digits/5.log")
    # It may be started again and finish.
    told.start(0)
    told.finish(0, 1.0)
    assert told.lines[-1].startswith("[ 1/")


def test_a_file_gets_a_line_about_what_runs_only_after_minutes_of_silence(jobs):
    told = Told(jobs, ("train_run",))
    told.start(0, 1, 2, 3)
    for _ in range(70):
        told.clock.now += 10
        told.console.tick()
    assert len(told.lines) == 2, "after 3 minutes, and after 6 further minutes"
    assert "running: train classification " in told.lines[0] and told.lines[0].endswith("and 1 more")
    assert "(3 min)" in told.lines[0]
    assert "\r" not in told.stream.getvalue() and "\x1b" not in told.stream.getvalue()


def test_a_terminal_has_a_status_line_that_is_removed_before_every_line(jobs):
    told = Told(jobs, ("train_run",), width=40)
    told.start(0)
    told.console.tick()
    assert "running: train classification" in told.stream.getvalue()
    assert len(told.lines[-1].rpartition("\x1b[2K")[2]) <= 39
    told.finish(0, 5.0)
    assert "\r\x1b[2K[ 1/" in told.stream.getvalue()
    told.start(1)
    told.console.tick()
    told.console.close()
    assert told.stream.getvalue().endswith("\x1b[2K")


def test_nothing_disturbs_a_job_that_prints_its_result(jobs):
    told = Told(jobs, ("regression",), width=80)
    told.start(0)
    told.clock.now += 10_000
    told.console.tick()
    assert told.lines == []


def test_a_closed_pipe_does_not_end_the_driver(jobs):
    told = Told(jobs, ("train_run",))
    told.stream.close()
    told.start(0)
    told.finish(0, 1.0)


# -- the time left ----------------------------------------------


def test_no_time_is_told_before_a_training_has_finished(jobs):
    left = TimeLeft({job.id: job for job in jobs.values()})
    assert left.seconds({}, {}, 0.0) is None
    prepared = {job.id: 5.0 for job in jobs.values() if job.rule == "prepare_dataset"}
    assert left.seconds(prepared, {}, 15.0) is None


def test_equal_trainings_take_as_long_as_those_that_have_finished(jobs):
    model = next(job for job in jobs.values() if job.rule == "train_run")
    same = {str(number): model for number in range(5)}
    left = TimeLeft(same)
    # Two of five have taken 40 s each, two at a time; a third has run for 30 s.
    assert left.seconds({"0": 40.0, "1": 40.0}, {"2": 30.0}, 75.0) == pytest.approx((10 + 40 + 40) / (110 / 75))
    assert left.seconds({"0": 40.0, "1": 40.0}, {}, 80.0) == pytest.approx(3 * 40)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "about 10 s left"),
        (54, "about 50 s left"),
        (58, "about 1 min left"),
        (199, "about 3 min left"),
        (2 * 3600 + 500, "about 2 h 10 min left"),
    ],
)
def test_a_remaining_time_is_rounded(seconds, words):
    assert describe(seconds) == words


# -- messages of Snakemake ----------------------------------------------


def settings(**changes: object) -> SimpleNamespace:
    given = {"verbose": False, "quiet": None, "printshellcmds": False, "debug_dag": False, "dryrun": False}
    return SimpleNamespace(**given | changes)


def record(text: str | None, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("snakemake.logging", level, "", 0, text, None, None)
    made.__dict__.update(extra)
    return made


@pytest.fixture
def handler(monkeypatch) -> LogHandler:
    monkeypatch.delenv(CONSOLE_VARIABLE, raising=False)
    return LogHandler(settings(), None)


@pytest.mark.parametrize("option", ["verbose", "printshellcmds", "debug_dag", "dryrun"])
def test_snakemake_prints_itself_if_the_user_asks_for_its_messages(option, handler):
    assert handler.writes_to_stream
    assert not LogHandler(settings(**{option: True}), None).writes_to_stream
    assert not LogHandler(settings(quiet={"rules"}), None).writes_to_stream


def test_a_variable_lets_snakemake_print_itself(monkeypatch):
    monkeypatch.setenv(CONSOLE_VARIABLE, "off")
    assert not LogHandler(settings(), None).writes_to_stream


def test_messages_about_jobs_become_lines_and_chatter_is_left_out(handler):
    stream = io.StringIO()
    handler.console = Console(stream)
    about = {"wildcards": {"task": "detection"}, "log": [], "shellcmd": "x", "rule_msg": None}
    for told in (
        record("Building DAG of jobs..."),
        record("None", event=LogEvent.PROGRESS, done=1, total=2),
        record("x", event=LogEvent.JOB_INFO, jobid=4, rule_name="prepare_dataset", **about),
        record("Job 4 has been submitted with SLURM jobid 12 (log: x)."),
        record("Finished jobid: 4", event=LogEvent.JOB_FINISHED, job_id=4),
        record("x", event=LogEvent.JOB_INFO, jobid=5, rule_name="prepare_dataset", **about),
        record("CalledProcessError in ...", logging.ERROR, event=LogEvent.ERROR, exception="CalledProcessError"),
        record("Error in rule", logging.ERROR, event=LogEvent.JOB_ERROR, jobid=5, **about | {"rule_msg": "why"}),
        record("Trying to restart job 5."),
        record("squeue does not answer.", logging.WARNING),
        record("Slurm answers again, after 40 s."),
        record("WorkflowError:\nno job started", logging.ERROR, event=LogEvent.ERROR, exception="WorkflowError"),
        record("Nothing to be done (all requested files are present and up to date)."),
    ):
        handler.emit(told)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("[1/?] prepare data, detection ")
    assert lines[1].startswith("failed prepare data, detection ")
    assert lines[2:] == [
        "  why",
        "  This job is started again.",
        "squeue does not answer.",
        "Slurm answers again, after 40 s.",
        "WorkflowError:",
        "no job started",
        "Nothing to be done (all requested files are present and up to date).",
    ]
