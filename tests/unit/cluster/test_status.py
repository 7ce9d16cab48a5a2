"""Live jobs and the status of an experiment, with recorded outputs of Slurm's commands and without Slurm."""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hafabench.cluster.commands import CommandFailed
from hafabench.cluster.ends import End, StoredEnd, store_end
from hafabench.cluster.queue import live_jobs
from hafabench.cluster.status import JobStatus, Status, experiment_status, render, render_failed
from hafabench.config.experiment import load_experiment
from hafabench.files import write_text
from hafabench.results.record import read_record, write_record
from hafabench.runs.jobs import JobList
from hafabench.runs.lease import take, this_process
from hafabench.runs.run import expand
from hafabench.runs.snakemake import repeated_command
from tests.support.experiments import evaluated, fixed_length
from tests.support.slurm_commands import COMMENT, UUID, RecordedCommands, squeue, squeue_line

RUN = "classification/pvt_tiny/seed0"


@pytest.fixture
def digits(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment(fixed_length))


@pytest.fixture
def tiny(digits):
    return expand(digits)[RUN]


def begin(run, step: int = 32) -> None:
    """A training under its present configuration that has reported one step."""
    run.work.mkdir(parents=True)
    write_text(run.folder / "config.json", json.dumps(run.resolved()))
    entry = {"step": step, "loss": 2.0, "epoch": 1.0, "images_per_s": 41.52, "eta_s": 4000.0}
    run.history.write_text(json.dumps(entry) + "\n")
    old = time.time() - 3600
    os.utime(run.history, (old, old))


def states(experiment, answers) -> dict[str, tuple[str, str]]:
    found = experiment_status(experiment, runner=answers).jobs
    return {status.job.id: (status.state, status.detail) for status in found}


def test_live_jobs_are_the_workflows_of_this_folder(tmp_path):
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
    elsewhere.mkdir()
    link.symlink_to(tmp_path)
    answers = squeue(
        squeue_line(12, "PENDING", link, reason="Priority", node=""),
        squeue_line(9, "RUNNING", tmp_path),
        squeue_line(10, "RUNNING", elsewhere),
        squeue_line(11, "RUNNING", tmp_path, comment="(null)"),
        "",
    )
    jobs = live_jobs(tmp_path, answers)
    assert [(job.id, job.state, job.is_pending) for job in jobs] == [("9", "RUNNING", False), ("12", "PENDING", True)]
    assert "--me" in answers.calls[0]


@pytest.mark.parametrize(
    ("change", "state"),
    [({}, "running"), ({"began": 1.0}, "interrupted"), ({"verb": "evaluate"}, "interrupted")],
    ids=["it runs", "it has ended", "it is evaluated"],
)
def test_a_training_with_a_lease_runs_even_if_it_has_been_silent_for_long(digits, tiny, change, state):
    begin(tiny)
    holder = replace(this_process("train"), **change)
    take(tiny.folder, tiny.id, holder)
    (found,) = (one for one in experiment_status(digits, runner=squeue()).jobs if one.job.id == f"train_run {RUN}")
    assert found.state == state
    if state == "running":
        assert found.node == f"process {os.getpid()} on {holder.host}"


def test_running_and_queued_jobs(digits, tiny, tmp_path):
    begin(tiny)
    other = "rule_train_run_wildcards_classification_resnet18_0"
    found = states(
        digits,
        squeue(
            squeue_line(7, "RUNNING", tmp_path),
            squeue_line(8, "PENDING", tmp_path, other, reason="QOSMaxGRESPerUser", node=""),
        ),
    )
    assert found[f"train_run {RUN}"] == ("running", "epoch 1.0 of 4, step 32 of 128, 41.5 images/s, 1 h 7 min left")
    assert found["train_run classification/resnet18/seed0"] == ("queued", "QOSMaxGRESPerUser")
    assert found["train_run classification/swin_tiny/seed0"] == ("to do", "")


def test_of_two_slurm_jobs_for_one_job_the_running_one_is_shown(digits, tmp_path):
    pending, running = squeue_line(7, "PENDING", tmp_path, node=""), squeue_line(6, "RUNNING", tmp_path)
    for lines in ((pending, running), (running, pending)):
        assert states(digits, squeue(*lines))[f"train_run {RUN}"] == ("running", "no step reported yet")


def test_slurm_jobs_of_another_experiment_in_the_folder_are_not_shown(digits, tmp_path):
    other = squeue_line(7, "RUNNING", tmp_path, name=f"hafabench-paper_{UUID}")
    longer = squeue_line(8, "RUNNING", tmp_path, name=f"hafabench-digits_study_{UUID}")
    assert states(digits, squeue(other, longer))[f"train_run {RUN}"] == ("to do", "")
    own = squeue_line(9, "RUNNING", tmp_path)
    assert states(digits, squeue(other, own, longer))[f"train_run {RUN}"][0] == "running"


@pytest.mark.parametrize(
    ("submission", "state"),
    [
        ("7|sbatch --wrap=python \\\n-m snakemake --configfiles {own} --mode remote\n", "running"),
        ("7|sbatch --wrap=python \\\n-m snakemake --configfiles paper.yaml --mode remote\n", "to do"),
        ("", "running"),
        (None, "running"),
    ],
    ids=["own", "another", "not stored yet", "no accounting"],
)
def test_the_submission_tells_the_experiment_of_a_job_with_an_earlier_name(digits, tmp_path, submission, state):
    answers = squeue(squeue_line(7, "RUNNING", tmp_path, name=f"hafabench_{UUID}"))
    if submission is not None:
        answers.outputs["sacct"] = submission.replace("{own}", str(digits.file))
    assert states(digits, answers)[f"train_run {RUN}"][0] == state


def test_a_job_waits_whatever_the_log_of_another_experiment_says(digits, tmp_path):
    for folder in ("rule_train_run", "paper/rule_train_run"):
        write_text(Path("logs/slurm", folder, "classification_pvt_tiny_0/10.log"), "error: no GPU here\n")
    assert states(digits, squeue())[f"train_run {RUN}"] == ("to do", "")
    write_text(Path("logs/slurm/digits/rule_train_run/classification_pvt_tiny_0/10.log"), "error: no GPU here\n")
    assert states(digits, squeue())[f"train_run {RUN}"] == ("failed", "error: no GPU here")


def test_done_jobs(digits, tiny):
    evaluated(tiny)
    found = states(digits, squeue())
    assert found[f"train_run {RUN}"] == found[f"evaluate_run {RUN}"] == ("done", "")


def test_failed_jobs_show_the_reason_and_the_command_to_repeat(digits, tiny):
    begin(tiny)
    (tiny.folder / "train.log").write_text("32/128 loss 2\nerror: data/digits: no such folder\nTraining ended\n")
    status = experiment_status(digits, runner=squeue())
    job = next(one for one in status.jobs if one.job.id == f"train_run {RUN}")
    assert (job.state, job.detail) == ("failed", "error: data/digits: no such folder")
    text = render(status)
    assert f"log: {tiny.folder}/train.log" in text
    assert f"again: hafabench train {RUN} --experiment {digits.file}" in text


def test_the_end_of_a_job_is_read_from_slurms_log(digits, tiny):
    begin(tiny)
    (tiny.folder / "train.log").write_text(f"{RUN} 32/128 loss 2\n")
    folder = Path("logs/slurm/digits/rule_train_run/classification_pvt_tiny_0")
    folder.mkdir(parents=True)
    (folder / "9.log").write_text("slurmstepd: error: *** JOB 9 ON node1 CANCELLED AT noon DUE TO PREEMPTION ***\n")
    last = "slurmstepd: error: *** JOB 10 ON node1 CANCELLED AT noon DUE TO TIME LIMIT ***"
    (folder / "10.log").write_text(f"started\n{last}\n")
    assert states(digits, squeue())[f"train_run {RUN}"] == ("failed", last)


def test_a_killed_training_is_interrupted_not_failed(digits, tiny):
    begin(tiny)
    (tiny.folder / "train.log").write_text(f"{RUN} 32/128 loss 2\n")
    assert states(digits, squeue())[f"train_run {RUN}"][0] == "interrupted"


def test_a_log_that_grows_without_a_slurm_job_is_of_a_running_job(digits, tiny):
    begin(tiny)
    tiny.checkpoint.touch()
    log = tiny.folder / "evaluate.log"
    begins = f"hafabench: begins evaluate_run {RUN}, fingerprint {tiny.fingerprint}, process 7 on another_host\n"
    log.write_text(f"{begins}{RUN}: evaluated 16 of 40 images\n")
    comment = COMMENT.replace("train_run", "evaluate_run")
    as_job = states(digits, squeue(squeue_line(7, "RUNNING", Path.cwd(), comment)))
    assert as_job[f"evaluate_run {RUN}"] == ("running", f"{RUN}: evaluated 16 of 40 images")
    found = {one.job.id: one for one in experiment_status(digits, runner=squeue()).jobs}
    job = found[f"evaluate_run {RUN}"]
    assert (job.state, job.detail) == ("running", f"{RUN}: evaluated 16 of 40 images")
    ended = {one.job.id: one for one in experiment_status(digits, runner=squeue(), fresh_s=0).jobs}
    killed = ended[f"evaluate_run {RUN}"]
    assert (killed.state, killed.detail) == ("interrupted", "it ended without an error message")


def test_failed_jobs_are_named_with_its_log_and_its_command(digits, tiny):
    assert render_failed(experiment_status(digits, runner=squeue(), fresh_s=0)) == "no job has failed"
    begin(tiny)
    (tiny.folder / "train.log").write_text(f"{RUN} 32/128 loss 2\n")
    for name in ("data/detection.log", "complexity/detection.log"):
        write_text(digits.results / name, "error: something is wrong\n")
    said = render_failed(experiment_status(digits, runner=squeue(), fresh_s=0)).splitlines()
    assert said[0] == "3 failed or interrupted"
    commands = [line.removeprefix("    again: hafabench ") for line in said if "again: " in line]
    option = f"--experiment {digits.file}"
    # By reason: errors come before what nothing explains.
    assert commands == [
        f"data prepare detection {option}",
        f"complexity --task detection --format record {option}",
        f"train {RUN} {option}",
    ]
    assert [said.index(heading) for heading in ("error (2)", "no reason known (1)")] == [2, 10]
    profile = "--profile workflow/profiles/local"
    assert said[-1] == f"  snakemake all {profile} --configfile {digits.file}"
    assert f"    log: {tiny.folder / 'train.log'}" in said
    assert sum("error: something is wrong" in line for line in said) == 2


def store(digits, kind: str, slurm_id: str | None, attempt: int = 1, **changes) -> None:
    stored = StoredEnd(COMMENT, slurm_id, End(kind, f"the reason is {kind}"), attempt, 6, time.time())
    store_end(replace(stored, **changes), digits.name)


def only(status: Status) -> JobStatus:
    (job,) = (one for one in status.jobs if one.job.id == f"train_run {RUN}")
    return job


def begins(tiny, slurm_job: int, host: str = "node1") -> str:
    where = f"process 7 on {host}, Slurm job {slurm_job}"
    return f"hafabench: begins train_run {RUN}, fingerprint {tiny.fingerprint}, {where}\n"


def test_a_slurm_job_that_left_the_queue_has_ended_however_fresh_its_files_are(digits, tiny, tmp_path):
    begin(tiny)
    tiny.history.touch()
    write_text(tiny.folder / "train.log", begins(tiny, 7) + f"{RUN} 32/128 loss 2\n")
    assert only(experiment_status(digits, runner=squeue(squeue_line(7, "RUNNING", tmp_path)))).state == "running"
    # The next attempt waits.
    assert only(experiment_status(digits, runner=squeue(squeue_line(8, "PENDING", tmp_path)))).state == "queued"
    ended = only(experiment_status(digits, runner=squeue()))
    assert (ended.state, ended.node) == ("interrupted", "")
    # If Slurm does not answer, the age of the files decides.
    assert only(experiment_status(digits, runner=RecordedCommands({}))).state == "running"


def test_a_process_of_this_machine_that_has_ended_does_not_run_however_fresh_its_files_are(digits, tiny):
    begin(tiny)
    tiny.history.touch()
    assert only(experiment_status(digits, runner=squeue())).state == "running"
    # A killed process leaves its lease.
    take(tiny.folder, tiny.id, replace(this_process("train"), began=1.0))
    assert only(experiment_status(digits, runner=squeue())).state == "interrupted"


@pytest.mark.parametrize(
    ("accounting", "kind", "detail"),
    [
        ("7|NODE_FAIL|0:0|node1\n7.batch|CANCELLED||node1\n", "node", "its node failed or lost contact on node1"),
        ("7|FAILED|1:0|node1\n7.0|OUT_OF_MEMORY|0:125|node1\n", "memory", "more memory than it requested on node1"),
        ("7|CANCELLED by 0|0:0|node1\n", "cancelled", "it was cancelled by root on node1"),
        ("7|RUNNING|0:0|node1\n", "unknown", "step 32 of 128"),
        (None, "unknown", "step 32 of 128"),
    ],
    ids=["node", "memory", "cancelled", "the accounting is late", "no accounting"],
)
def test_the_accounting_tells_what_the_logs_do_not(digits, tiny, accounting, kind, detail):
    begin(tiny)
    write_text(tiny.folder / "train.log", begins(tiny, 7) + f"{RUN} 32/128 loss 2\n")
    answers = squeue()
    if accounting is not None:
        answers.outputs["sacct"] = accounting
    job = only(experiment_status(digits, runner=answers))
    assert (job.state, job.kind) == ("interrupted" if kind == "unknown" else "failed", kind)
    assert detail in job.detail
    assert "step 32 of 128" in job.detail or kind != "unknown"


@pytest.mark.parametrize("kind", ["refused", "folder"])
def test_a_job_that_never_ran_has_failed_if_the_executor_says_so(digits, kind):
    store(digits, kind, None if kind == "refused" else "7")
    job = only(experiment_status(digits, runner=squeue(), fresh_s=0))
    assert (job.state, job.kind, job.detail, job.log) == ("failed", kind, f"the reason is {kind}", None)
    text = render_failed(experiment_status(digits, runner=squeue(), fresh_s=0))
    assert f"again: hafabench train {RUN}" in text and "log: " not in text
    assert text.endswith(f"  snakemake all --profile slurm --configfile {digits.file}")
    # A later attempt that succeeded.
    assert states(digits, squeue())["evaluate_run " + RUN] == ("to do", "")


def test_the_end_of_the_last_attempt_counts(digits, tiny):
    begin(tiny)
    log = tiny.folder / "train.log"
    write_text(log, begins(tiny, 7) + "error: of attempt 7\n")
    store(digits, "memory", "6")
    assert only(experiment_status(digits, runner=squeue())).detail == "error: of attempt 7"
    store(digits, "unknown", "7")
    assert only(experiment_status(digits, runner=squeue())).detail == "error: of attempt 7"
    store(digits, "memory", "7")
    assert only(experiment_status(digits, runner=squeue())).detail == "the reason is memory"
    store(digits, "refused", None, time=time.time() + 5)
    assert only(experiment_status(digits, runner=squeue())).detail == "the reason is refused"
    # A command that was started by hand afterwards.
    by_hand = begins(tiny, 7).replace(", Slurm job 7", "")
    write_text(log, by_hand + "error: by hand\n")
    later = time.time() + 10
    os.utime(log, (later, later))
    assert only(experiment_status(digits, runner=squeue())).detail == "error: by hand"
    store(digits, "memory", "8", time=later + 1, fingerprint="of another configuration")
    assert only(experiment_status(digits, runner=squeue())).detail == "error: by hand"


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (2, "the driver runs it again, attempt 3 of 6"),
        (6, "no attempt is left of 6; the driver does not run it again"),
        (None, "the driver runs it again when it notices the end, if an attempt is left"),
    ],
)
def test_what_the_driver_does_next(digits, tiny, monkeypatch, attempt, sentence):
    if attempt is not None:
        store(digits, "node", "7", attempt)
    else:
        write_text(tiny.folder / "train.log", "error: no GPU\n")
    command = (
        f"  snakemake all --profile {'slurm' if attempt else 'workflow/profiles/local'} --configfile {digits.file}"
    )
    assert render(experiment_status(digits, runner=squeue())).splitlines()[-1] == command
    monkeypatch.setattr("hafabench.cluster.status.experiments_of_drivers", lambda _folder: {7: None})
    lines = render(experiment_status(digits, runner=squeue())).splitlines()
    assert f"    next: {sentence}" in lines and command not in lines


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_driver_that_was_started_after_the_attempt_runs_the_job_again(digits, tiny, monkeypatch, is_stored):
    if is_stored:
        store(digits, "node", "7", 6)
    else:
        write_text(tiny.folder / "train.log", "error: no GPU\n")
    monkeypatch.setattr("hafabench.cluster.status.experiments_of_drivers", lambda _folder: {7: None})
    monkeypatch.setattr("psutil.Process", lambda _pid: SimpleNamespace(create_time=lambda: time.time() + 5))
    text = render(experiment_status(digits, runner=squeue()))
    assert "next: this was before the driver was started, which runs it again if " in text


@pytest.mark.parametrize(
    ("line", "kind", "sentence"),
    [
        ("error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T01:43:14 ***", "cancelled", "it was cancelled: "),
        ("error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***", "time", "it reached its time limit: "),
        ("error: Detected 1 oom_kill event in StepId=7.", "memory", "it used more memory than it requested: "),
    ],
    ids=["cancelled", "time", "memory"],
)
def test_without_slurm_a_reason_from_a_log_is_a_sentence(digits, line, kind, sentence):
    log = Path("logs/slurm", digits.name, COMMENT.replace("_wildcards_", "/"), "7.log")
    write_text(log, f"slurmstepd: {line}\n")

    def absent(arguments, timeout):
        raise CommandFailed("squeue: not found; this machine has no Slurm commands")

    found = only(experiment_status(digits, runner=absent, fresh_s=0))
    assert (found.state, found.kind) == ("failed", kind)
    assert found.detail == f"{sentence}slurmstepd: {line}"


def test_the_summary_names_forced_jobs_that_failed_although_they_were_done(digits, tiny):
    evaluated(tiny)
    store(digits, "refused", None, 6)
    status = experiment_status(digits, runner=squeue(), fresh_s=0, given_up=[f"train_run {RUN}"])
    text = render_failed(status).splitlines()
    assert (text[0], text[2]) == ("1 failed or interrupted", "refused by Slurm (1)")
    assert only(status).detail == "the reason is refused; its earlier outputs are kept"
    assert "--forcerun" in text[-1]


def test_a_refused_job_has_no_further_attempt(digits, monkeypatch):
    store(digits, "refused", None, 6)
    monkeypatch.setattr("hafabench.cluster.status.experiments_of_drivers", lambda _folder: {7: None})
    text = render(experiment_status(digits, runner=squeue()))
    assert "next: Slurm would refuse it again; the driver does not submit it again" in text


def test_a_locked_folder_is_recovered_before_the_command_that_repeats_jobs(digits, tiny, tmp_path):
    write_text(tiny.folder / "train.log", "error: no GPU\n")
    write_text(tmp_path / ".snakemake/locks/0.output.lock", "")
    status = experiment_status(digits, runner=squeue(), fresh_s=0)
    recover = f"`hafabench cluster recover --experiment {digits.file}`"
    assert recover in status.driver
    for text in (render(status), render_failed(status)):
        assert text.splitlines()[-2].startswith(f"After {recover} has unlocked the folder, ")


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["all", "--profile", "slurm"], "configs/paper.yaml"),
        (["all", "--profile=slurm", "--configfile", "old.yaml", "a b'c.yaml", "-n"], "a b'c.yaml"),
        (["--configfiles=other.yaml", "all"], "other.yaml"),
        (["all", "--cores", "2"], "configs/digits.yaml"),
    ],
)
def test_a_driver_of_another_experiment_does_nothing_for_this_one(digits, tiny, tmp_path, monkeypatch, words, file):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits.yaml").touch()
    write_text(tmp_path / "slurm/config.yaml", "configfile: configs/paper.yaml")
    write_text(tiny.folder / "train.log", "error: no GPU\n")

    def process(*more: str) -> SimpleNamespace:
        about = {"cmdline": ["python", "/venv/bin/snakemake", *words, *more], "cwd": str(tmp_path), "ppid": 6}
        return SimpleNamespace(pid=7, info=about)

    wrapped = process()
    wrapper = SimpleNamespace(
        pid=6, info={**wrapped.info, "cmdline": ["timeout", "9", "snakemake", *words], "ppid": 1}
    )
    monkeypatch.setattr("psutil.process_iter", lambda _names: [wrapper, wrapped])
    status = experiment_status(digits, runner=squeue())
    assert status.driver == f"no driver of this experiment runs here; process 7 is one of {file}"
    assert "next:" not in render(status) and status.command in render(status)
    monkeypatch.setattr("psutil.process_iter", lambda _names: [process("--configfile", str(digits.file))])
    status = experiment_status(digits, runner=squeue())
    assert (status.driver, status.is_driven) == ("the driver runs here, process 7", True)


def test_the_summary_names_jobs_that_the_driver_gave_up_without_a_log(digits):
    given_up = (f"train_run {RUN}", "no such job")
    status = experiment_status(digits, runner=squeue(), fresh_s=0, given_up=given_up, command="snakemake x --cores 2")
    text = render_failed(status).splitlines()
    assert text[0] == "1 failed or interrupted" and text[2] == "no reason known (1)"
    assert text[-1] == "  snakemake x --cores 2"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("all --profile slurm --configfile 'a b.yaml'", "snakemake all --profile slurm --configfile 'a b.yaml'"),
        ("a b --cores 2 -F", "snakemake a b --cores 2"),
        ("-R train_run x --profile slurm all", "snakemake --profile slurm all"),
        ("all --forcerun=x --profile slurm --forceall -f", "snakemake all --profile slurm"),
    ],
)
def test_the_command_of_the_driver_is_repeated_without_forced_jobs(words, command):
    assert repeated_command(["/venv/bin/snakemake", *shlex.split(words)], {}) == command


def test_the_repeated_command_selects_the_same_site_and_profile():
    environment = {"HAFABENCH_SITE": "my site's.yaml", "SNAKEMAKE_PROFILE": "slurm", "PATH": "/bin"}
    command = repeated_command(["snakemake", "all", "--jobs", "2"], environment)
    assert shlex.split(command) == [
        *("HAFABENCH_SITE=my site's.yaml", "SNAKEMAKE_PROFILE=slurm"),
        *("snakemake", "all", "--jobs", "2"),
    ]
    # A shell takes a word for an assignment only if the name is not quoted.
    assert command.startswith("HAFABENCH_SITE=")


def test_an_evaluation_fails_only_after_its_training(digits, tiny):
    begin(tiny)
    (tiny.folder / "evaluate.log").write_text("error: cannot read images\n")
    assert states(digits, squeue())[f"evaluate_run {RUN}"] == ("to do", "")
    # The weights are newer than the log: no attempt has been made with them.
    tiny.checkpoint.touch()
    later = time.time() + 1
    os.utime(tiny.checkpoint, (later, later))
    assert states(digits, squeue())[f"evaluate_run {RUN}"] == ("to do", "")
    os.utime(tiny.folder / "evaluate.log", (later + 1, later + 1))
    assert states(digits, squeue())[f"evaluate_run {RUN}"] == ("failed", "error: cannot read images")


def test_stale_jobs(digits, tiny):
    evaluated(tiny)
    evaluated_before = read_record(tiny.record).model_copy(update={"fingerprint": "0" * 12})
    write_record(tiny.record, evaluated_before)
    config = json.loads((tiny.folder / "config.json").read_text())
    config["recipe"]["lr"] = 7.0
    (tiny.folder / "config.json").write_text(json.dumps(config | {"fingerprint": "0" * 12}))
    found = states(digits, squeue())
    assert found[f"train_run {RUN}"] == ("stale", "recipe.lr: 7.0 -> 0.001")
    assert found[f"evaluate_run {RUN}"][0] == "stale"


def test_without_slurm_files_are_looked_at(digits, tiny):
    begin(tiny)
    status = experiment_status(digits, runner=RecordedCommands({}))
    assert "the queue is not shown: squeue failed: not found" in render(status)
    assert next(one for one in status.jobs if one.job.id == f"train_run {RUN}").state == "interrupted"
    tiny.history.touch()
    status = experiment_status(digits, runner=RecordedCommands({}))
    job = next(one for one in status.jobs if one.job.id == f"train_run {RUN}")
    assert (job.state, job.node) == ("running", "without a Slurm job")


def test_a_queue_that_cannot_be_read_is_one_short_sentence(digits, tmp_path, monkeypatch):
    command = tmp_path / "bin/squeue"
    errors = ["error: fetch_config: DNS SRV lookup failed", "fatal: Could not establish a configuration source"]
    write_text(command, "#!/bin/sh\n" + "".join(f"echo 'squeue: {error}' >&2\n" for error in errors) + "exit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    status = experiment_status(digits)
    assert status.slurm == "squeue failed: Could not establish a configuration source"


def test_every_job_is_shown_on_request(digits):
    status = experiment_status(digits, runner=squeue())
    known = len(JobList(digits))
    assert render(status).splitlines()[0] == f"{known} to do"
    assert len(render(status, everything=True).splitlines()) == 2 + 2 + known
    assert {one.job.id for one in status.jobs} == set(JobList(digits))


def test_a_job_that_waits_for_the_lease_of_its_run_says_so(digits, tiny, tmp_path):
    begin(tiny)
    waits = "waits for the lease of process 7 on n017, Slurm job 7, until it has ended"
    log = tmp_path / f"logs/slurm/{digits.name}/rule_train_run/classification_pvt_tiny_0/8.log"
    write_text(log, f"Building DAG of jobs...\n{RUN}: {waits}\n")
    answers = squeue(squeue_line(8, "RUNNING", tmp_path))
    assert states(digits, answers)[f"train_run {RUN}"] == ("running", waits)
    write_text(log, f"{log.read_text()}{RUN}: has the lease after 9 s\nhafabench: begins train_run {RUN}, ...\n")
    assert "step 32" in states(digits, answers)[f"train_run {RUN}"][1]


def test_of_two_waiting_jobs_that_one_is_shown_for_which_the_other_waits(digits, tmp_path):
    answers = squeue(
        squeue_line(8, "PENDING", tmp_path, reason="Resources", node=""),
        squeue_line(9, "PENDING", tmp_path, reason="Dependency", node=""),
    )
    assert states(digits, answers)[f"train_run {RUN}"] == ("queued", "Resources")
