"""The states of jobs, from outputs, fingerprints and logs."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.files import write_text
from hafabench.results.record import read_record, write_record
from hafabench.runs.jobs import Job, JobList, job_id
from hafabench.runs.run import expand
from hafabench.runs.snakemake import slurm_log_folder
from hafabench.runs.state import JobState, has_own_history, job_states, run_state, store_configuration
from tests.support.experiments import evaluated, fixed_length
from tests.support.finished import finish

RUN = "classification/pvt_tiny/seed0"


@pytest.fixture
def digits(write_experiment, tmp_path, monkeypatch):
    """An experiment of one run with pictures of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def only_one(content):
        fixed_length(content)
        content["train"] = {"classification": ["pvt_tiny_hafa"]}
        content["overrides"] = [one for one in content["overrides"] if one["runs"].startswith("classification/*")]

    return load_experiment(write_experiment(only_one))


@pytest.fixture
def finished(digits):
    """The jobs of an experiment that has run completely."""
    jobs = finish(digits)
    for position, job in enumerate(jobs.values()):
        shift(job.outputs, position - len(jobs))
        shift(job.logs, position - len(jobs))
    return jobs


def shift(paths, seconds: float) -> None:
    """Set when files were modified, from now on."""
    for path in paths:
        os.utime(path, (time.time() + seconds, time.time() + seconds))


def states(jobs: JobList, **options: float) -> dict[str, str]:
    return {name: state.state for name, state in job_states(jobs, **options).items() if name in jobs}


def state_of(jobs: JobList, job: Job) -> JobState:
    return job_states(jobs)[job.id]


def test_every_job_of_a_finished_experiment_is_done(finished):
    assert set(states(finished).values()) == {"done"}
    assert "draw_pictures" in finished


def test_nothing_is_done_in_an_empty_folder(digits):
    assert set(states(JobList(digits)).values()) == {"to do"}


def test_an_old_success_is_no_failure_after_an_edit(finished, digits, write_experiment):
    def edit(content):
        fixed_length(content)
        content["train"] = {"classification": ["pvt_tiny_hafa"]}
        changed = {"runs": "classification/*", "why": "an edit", "set": {"lr": 5.0e-4}}
        content["overrides"] = [content["overrides"][-1], changed]
        content["complexity"]["num_classes"]["detection"] += 1

    found = states(JobList(load_experiment(write_experiment(edit))), fresh_s=0)
    run = "classification/pvt_tiny_hafa/seed0"
    assert found[f"train_run {run}"] == found[f"evaluate_run {run}"] == "stale"
    assert found["count_complexity detection"] == "stale"
    assert found["draw_pictures"] == found["collect_records"] == found["write_report"] == "stale"
    assert "failed" not in found.values()
    assert found["prepare_dataset classification"] == found["count_complexity classification"] == "done"


@pytest.mark.parametrize("rule", ["collect_records", "draw_pictures", "write_report", "count_conventions"])
def test_a_job_has_failed_if_its_last_attempt_left_no_outputs(finished, rule):
    job = finished[rule]
    job.outputs[0].unlink()
    write_text(job.log, "reading\nerror: no space left on device\n")
    state = state_of(finished, job)
    assert (state.state, state.log, state.last_line) == ("failed", job.log, "error: no space left on device")


def test_a_job_runs_while_its_log_grows(finished):
    job = finished["draw_pictures"]
    job.outputs[0].unlink()
    write_text(job.log, "1 of 4\n")
    assert state_of(finished, job).state == "running"
    # A log of an earlier version may be that of a success whose outputs were deleted.
    assert job_states(finished, fresh_s=0)[job.id].state == "to do"


def test_a_failure_before_the_inputs_were_made_again_counts_no_more(finished):
    job = finished["draw_pictures"]
    job.outputs[0].unlink()
    write_text(job.log, "error: cannot read the checkpoint\n")
    assert state_of(finished, job).state == "failed"
    shift(job.inputs, 5)
    assert state_of(finished, job).state == "to do"


def test_a_report_on_older_records_is_stale(finished):
    record = finished[job_id("count_complexity", "detection")].outputs[0]
    shift([record], 0)
    assert states(finished)["collect_records"] == "done"
    record.write_text(record.read_text() + "\n")
    shift([record], -1000)
    found = job_states(finished)
    assert found["collect_records"].changes == (f"changed: {record}",)
    assert found["collect_records"].state == found["write_report"].state == "stale"
    assert found["draw_pictures"].state == "done"


def test_a_training_repeated_under_the_present_configuration_is_not_stale(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = expand(load_experiment(write_experiment(fixed_length)))[RUN]
    evaluated(run)
    write_record(run.record, read_record(run.record).model_copy(update={"fingerprint": "0" * 12}))
    assert run_state(run).state == "trained"
    run.checkpoint.unlink()
    run.work.mkdir()
    run.history.write_text('{"step": 96, "loss": 2.0}\n')
    state = run_state(run)
    assert (state.state, state.steps, state.record is not None) == ("interrupted", 96, True)


def test_the_gate_is_never_up_to_date(finished):
    gate = finished.optional["regression"]
    write_text(Path(gate.log), "# Regression\n")
    assert state_of(finished, gate).state == "to do"


# The last attempt, as the log marks it.


def begins(job: Job, *, pid: int | None = None, fingerprint: str | None = None, slurm: int | None = None) -> str:
    where = f"process {os.getpid() if pid is None else pid} on {platform.node()}"
    where += f", Slurm job {slurm}" if slurm else ""
    return f"hafabench: begins {job.id}, fingerprint {fingerprint or job.fingerprint or 'none'}, {where}\n"


RULES = ("prepare_dataset", "evaluate_run", "count_complexity", "measure_latency", "collect_records", "draw_pictures")


@pytest.mark.parametrize("rule", [*RULES, "write_report", "train_run"])
@pytest.mark.parametrize(
    ("rest", "state"),
    [
        ("drawn\nhafabench: finished {id}\n", "to do"),
        ("warning: error: a word of a warning\nhafabench: finished {id}\n", "to do"),
        ("error: no space left on device\n", "failed"),
        ("Traceback (most recent call last):\nRuntimeError: out of luck\n", "failed"),
        ("1 of 4\n", "interrupted"),
        ("", "interrupted"),
    ],
)
def test_a_job_without_outputs_is_in_the_state_of_its_last_attempt(finished, rule, rest, state):
    job = next(job for job in finished.values() if job.rule == rule)
    for path in job.outputs:
        path.unlink()
    if rule == "train_run":
        job.run.record.unlink()
    # The process of the attempt exists no more.
    write_text(job.log, begins(job, pid=2**22 + 1) + rest.format(id=job.id))
    shift([job.log], 1)
    assert state_of(finished, job).state == state


@pytest.mark.parametrize("rule", RULES)
def test_a_failure_under_an_earlier_fingerprint_counts_no_more(finished, rule):
    job = next(job for job in finished.values() if job.rule == rule)
    job.outputs[0].unlink()
    write_text(job.log, begins(job, fingerprint="0" * 12) + "error: no space left on device\n")
    shift([job.log], 1)
    assert state_of(finished, job).state == "to do"
    write_text(job.log, begins(job) + "error: no space left on device\n")
    shift([job.log], 1)
    assert state_of(finished, job).state == "failed"


def test_a_running_attempt_needs_its_process(finished):
    job = finished["draw_pictures"]
    job.outputs[0].unlink()
    write_text(job.log, begins(job) + "1 of 4\n")
    assert state_of(finished, job).state == "running"
    write_text(job.log, begins(job, pid=2**22 + 1) + "1 of 4\n")
    assert state_of(finished, job).state == "interrupted"


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_log_with_a_wrong_clock_is_not_of_a_running_job(finished, hours):
    job = finished["draw_pictures"]
    job.outputs[0].unlink()
    write_text(job.log, begins(job) + "1 of 4\n")
    shift([*job.inputs, job.log], 3600 * hours)
    assert state_of(finished, job).state == "interrupted"


def test_copied_files_with_new_times_keep_their_states(finished):
    """A copy without the times of the originals: every file is new, in any order."""
    draw, count = finished["draw_pictures"], finished[job_id("count_complexity", "detection")]
    draw.outputs[0].unlink()
    count.outputs[0].unlink()
    write_text(draw.log, begins(draw, pid=2**22 + 1) + f"hafabench: finished {draw.id}\n")
    write_text(count.log, begins(count, pid=2**22 + 1) + "error: no space left on device\n")
    for path in Path.cwd().rglob("*"):
        shift([path], 0)
    found = states(finished)
    assert (found[draw.id], found[count.id]) == ("to do", "failed")
    assert "running" not in found.values()


def test_the_log_of_a_later_slurm_job_counts(finished):
    job = finished["draw_pictures"]
    job.outputs[0].unlink()
    write_text(job.log, begins(job, slurm=7) + "error: no space left on device\n")
    folder = Path("logs/slurm", finished.experiment.name, "rule_draw_pictures")
    write_text(folder / "7.log", "Error in rule draw_pictures:\n")
    assert state_of(finished, job).last_line == "error: no space left on device"
    last = "slurmstepd: error: *** JOB 8 ON node1 CANCELLED AT noon DUE TO TIME LIMIT ***"
    write_text(folder / "8.log", f"{last}\n")
    assert (state_of(finished, job).state, state_of(finished, job).last_line) == ("failed", last)


# Trainings.


@pytest.fixture
def begun(write_experiment, tmp_path, monkeypatch):
    """A training that was evaluated under one learning rate, and began under another one."""
    monkeypatch.chdir(tmp_path)
    before = expand(load_experiment(write_experiment(fixed_length)))[RUN]
    evaluated(before)
    before.checkpoint.unlink()
    before.work.mkdir()
    write_text(before.work / "state.json", json.dumps({"fingerprint": before.fingerprint, "step": 96}))
    before.history.write_text('{"step": 96, "loss": 2.0}\n')

    def edit(content):
        fixed_length(content)
        content["overrides"].append({"runs": "classification/*", "why": "an edit", "set": {"lr": 5.0e-4}})

    return expand(load_experiment(write_experiment(edit)))[RUN]


def test_a_training_that_begins_again_has_no_progress_of_an_earlier_one(begun):
    assert run_state(begun).state == "stale"
    store_configuration(begun)
    state = run_state(begun)
    assert (state.state, state.steps, state.is_begun, has_own_history(begun)) == ("missing", 0, False, False)
    write_text(begun.work / "state.json", json.dumps({"fingerprint": begun.fingerprint, "step": 32}))
    begun.history.write_text('{"step": 32, "loss": 2.0}\n')
    assert (run_state(begun).state, run_state(begun).steps) == ("interrupted", 32)
    # The same configuration keeps its history.
    store_configuration(begun)
    assert run_state(begun).steps == 32


def test_a_finished_training_whose_files_were_deleted_is_to_do(finished):
    (run,) = finished.runs.values()
    run.history.write_text(json.dumps({"step": run_state(run).total, "loss": 2.0}) + "\n")
    run.checkpoint.unlink()
    run.record.unlink()
    assert states(finished, fresh_s=0)[f"train_run {run.id}"] == "to do"


def test_a_training_that_stopped_in_time_is_interrupted(finished):
    (run,) = finished.runs.values()
    job = finished[f"train_run {run.id}"]
    run.checkpoint.unlink()
    run.record.unlink()
    write_text(run.work / "state.json", json.dumps({"fingerprint": run.fingerprint, "step": 32}))
    run.history.write_text('{"step": 32, "loss": 2.0}\n')
    stopped = f"{run.id}: stopped after step 32 of 128; the state is saved in work, the same command resumes it\n"
    write_text(job.log, begins(job, slurm=7) + stopped)
    log = slurm_log_folder(finished.experiment.name, job) / "7.log"
    write_text(log, f"{stopped}Error in rule train_run:\n")
    shift([run.history, job.log], -3600)
    assert states(finished)[job.id] == "interrupted"
