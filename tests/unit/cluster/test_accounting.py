"""Accounting from recorded sacct lines and from replacements of pyslurm's two interfaces, and costs per job."""

from __future__ import annotations

import json
import re
import sys
import types
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest

from hafabench.cluster import accounting
from hafabench.cluster.accounting import Sacct, gpus_of_tres, known, parse_sacct
from hafabench.cluster.commands import IDS_PER_COMMAND, CommandFailed, release_of, run
from hafabench.cluster.costs import (
    COLUMNS,
    accounting_file,
    assign,
    complete_accounting,
    cost_markdown,
    cost_rows,
    read_accounting,
    update_accounting,
    write_costs,
)
from hafabench.cluster.pyslurm_backend import PySlurm, choose_accounting, pyslurm_problem
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.runs.jobs import JobList
from hafabench.runs.snakemake import (
    comment,
    experiment_label,
    experiment_of,
    is_submitted_for,
    job_name_prefix,
    jobs_by_comment,
)
from tests.support.slurm_commands import UUID, RecordedCommands

# Recorded from Slurm 22.05.8: a job requeued once and cancelled, one of the workflow (its submission line shortened
# and broken over two lines), a running one whose comment the data base does not know yet, one whose step ran out of
# memory, and one that never started.
SACCT = """\
1|REQUEUED|0:0|10|billing=1,cpu=1,gres/gpu=2,mem=512000K,node=1|1|00:00.004|||node1|2026-11-23T15:37:32|2026-11-23T15:37:33|2026-11-23T15:37:43|hafabench_x|rule_train_run_wildcards_classification_pvt_tiny_0|/home/ann|sbatch --gpus=2 --configfiles /home/ann/digits.yaml
1.batch|CANCELLED|0:15|11|cpu=1,gres/gpu=2,mem=512000K,node=1|1|00:00.004|3192K|cpu=00:00:00,energy=0,mem=3192K|node1|2026-11-23T15:37:33|2026-11-23T15:37:33|2026-11-23T15:37:44|batch|||
1|CANCELLED by 0|0:0|20|billing=1,cpu=1,gres/gpu=2,mem=512000K,node=1|1|00:05.000|||node2|2026-11-23T15:37:36|2026-11-23T15:38:42|2026-11-23T15:39:02|hafabench_x|rule_train_run_wildcards_classification_pvt_tiny_0|/home/ann|sbatch --gpus=2 --configfiles /home/ann/digits.yaml
1.batch|CANCELLED|0:15|20|cpu=1,gres/gpu=2|1|00:05.000|2000000K|cpu=00:00:05,gres/gpuutil=40,mem=3248K|node2|2026-11-23T15:37:42|2026-11-23T15:38:42|2026-11-23T15:39:02|batch|||
2|COMPLETED|0:0|3600|billing=1,cpu=4,gres/gpu:fake=1,mem=614400K,node=1|4|02:00:00|||node1|2026-11-23T15:38:12|2026-11-23T16:00:00|2026-11-23T17:00:00|hafabench_y|rule_train_run_wildcards_classification_pvt_tiny_0|/home/ann|sbatch --parsable --comment rule_train_run_wildcards_classification_pvt_tiny_0 --gpus=fake:1 --wrap=python3 -m snakemake --cores 'all'
 --configfiles /home/ann/digits.yaml --default-resources x --mode 'remote'
2.batch|COMPLETED|0:0|3600|cpu=4,gres/gpu:fake=1|4|00:01.471|176836K|cpu=00:00:01,mem=176836K|node1|2026-11-23T16:00:00|2026-11-23T16:00:00|2026-11-23T17:00:00|batch|||
2.0|COMPLETED|0:0|3596|cpu=4,gres/gpu:fake=1|4|01:59:58|293448K|cpu=00:00:02,gres/gpuutil=80,mem=293448K|node1|2026-11-23T16:00:04|2026-11-23T16:00:04|2026-11-23T17:00:00|python3|||srun -n1
3|RUNNING|0:0|30|billing=1,cpu=1,mem=512000K,node=1|1|00:00:00|||node1|2026-11-23T18:00:00|2026-11-23T18:00:01|Unknown|hafabench_y||/home/ann|sbatch --comment rule_evaluate_run_wildcards_classification_pvt_tiny_0 --configfiles /home/ann/digits.yaml
4|FAILED|1:0|5|cpu=1,mem=512000K,node=1|1|00:01.000|||node1|2026-11-23T18:00:00|2026-11-23T18:00:02|2026-11-23T18:00:07|hafabench_y|rule_count_complexity_wildcards_detection|/home/ann|sbatch
4.0|OUT_OF_MEMORY|0:125|4|cpu=1|1|00:01.000|511000K||node1|2026-11-23T18:00:03|2026-11-23T18:00:03|2026-11-23T18:00:07|python3|||srun -n1
5|PENDING|0:0|0||1|00:00:00|||None assigned|2026-11-23T18:00:00|Unknown|Unknown|hafabench_y||/home/ann|sbatch
6|COMPLETED|0:0|7|cpu=1,node=1|1|00:01.000|||node1|2026-11-23T18:00:00|2026-11-23T18:00:02|2026-11-23T18:00:09|other|rule_write_report|/home/ann|sbatch --configfiles /home/ann/paper.yaml
7|COMPLETED|0:0|7|cpu=1,node=1|1|1-00:00:01|||node1|2026-11-23T18:00:00|2026-11-23T18:00:02|2026-11-23T18:00:09|other|rule_write_report|/elsewhere|sbatch
"""  # noqa: E501 (recorded lines)
SINCE = datetime(2026, 11, 1)
END = "2026-11-23T18:01:00"
TRAINING = "rule_train_run_wildcards_classification_pvt_tiny_0"


@pytest.fixture
def digits(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment())


# -- sacct ----------------------------------------------


def test_sacct_is_asked_for_duplicates_and_named_fields():
    answers = RecordedCommands({"sacct": ""})
    assert Sacct(answers).attempts(SINCE) == []
    (command,) = answers.calls
    assert {"--duplicates", "--parsable2", "--noheader", "--starttime=2026-11-01T00:00:00"} <= set(command)
    assert any(word.startswith("--format=JobIDRaw,State,") for word in command)


def test_attempts_of_recorded_lines():
    attempts = parse_sacct(SACCT)
    assert [(a.job_id, a.state) for a in attempts] == [
        ("1", "REQUEUED"),
        ("1", "CANCELLED"),
        ("2", "COMPLETED"),
        ("3", "RUNNING"),
        ("4", "OUT_OF_MEMORY"),
        ("6", "COMPLETED"),
        ("7", "COMPLETED"),
    ]
    first, second, third, running, killed, *_ = attempts
    assert (first.elapsed_s, first.gpus, first.nodes) == (10, 2, "node1")
    assert second.gpu_hours == pytest.approx(2 * 20 / 3600)
    # Most memory over the steps, in units of 10^6 bytes.
    assert second.peak_memory_mb == pytest.approx(2048)
    assert third.peak_memory_mb == pytest.approx(300.5, abs=0.1)
    assert (third.gpus, third.cpus, third.cpu_s, third.gpu_use) == (1, 4, 7200, 0.8)
    assert "--configfiles /home/ann/digits.yaml" in third.submit_line
    assert (running.comment, running.ended, running.cpu_s) == (
        "rule_evaluate_run_wildcards_classification_pvt_tiny_0",
        None,
        None,
    )
    assert (killed.exit_code, killed.peak_memory_mb) == (1, pytest.approx(523.3, abs=0.1))
    assert attempts[-1].cpu_s == 24 * 3600 + 1


def test_lines_of_other_fields_are_refused():
    with pytest.raises(CommandFailed, match="expected 17 fields, found 3"):
        parse_sacct("12|COMPLETED|0:0\n")


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("cpu=8,gres/gpu:a100=4,gres/gpu=4", 4),
        ("cpu=8,gres/gpu:a100=4,gres/gpu:v100=2", 6),
        ("cpu=8,gres/gpu=3", 3),
        ("cpu=8,gres/gpumem=3", 0),
        ("billing=1,cpu=1,mem=1G,node=1", 0),
        ("", None),
    ],
)
def test_gpus_of_trackable_resources(text, gpus):
    assert gpus_of_tres(text) == gpus


# Recorded from Slurm 22.05.8 (names and folders replaced): the options are those of the submissions.
GPU_JOBS = """\
1|COMPLETED|0:0|9|billing=1,cpu=1,gres/gpu=2,mem=307200K,node=1|1|00:02.121|||node1|2026-11-29T00:33:53|2026-11-29T00:33:53|2026-11-29T00:34:02|hafabench_x|rule_x|/home/ann|sbatch --gres=gpu:2
1.0|COMPLETED|0:0|8|cpu=1,gres/gpu=2,mem=307200K,node=1|1|00:02.097|13428K|cpu=00:00:01,energy=0,mem=13428K|node1|2026-11-29T00:33:53|2026-11-29T00:33:53|2026-11-29T00:34:01|python3|||srun
2|COMPLETED|0:0|9|billing=2,cpu=2,gres/gpu=2,mem=614400K,node=2|2|00:02.107|||node[2-3]|2026-11-29T00:33:53|2026-11-29T00:33:53|2026-11-29T00:34:02|hafabench_x|rule_x|/home/ann|sbatch --gres=gpu:fake:1 --nodes=2
3|COMPLETED|0:0|9|billing=2,cpu=2,gres/gpu=2,mem=614400K,node=2|2|00:02.111|||node[2-3]|2026-11-29T00:33:53|2026-11-29T00:33:53|2026-11-29T00:34:02|hafabench_x|rule_x|/home/ann|sbatch --gpus-per-node=1 --nodes=2
4|COMPLETED|0:0|9|billing=2,cpu=2,gres/gpu=2,mem=307200K,node=1|2|00:02.102|||node4|2026-11-29T00:33:53|2026-11-29T00:33:53|2026-11-29T00:34:02|hafabench_x|rule_x|/home/ann|sbatch --gpus-per-task=1 --ntasks=2
5|COMPLETED|0:0|10|billing=8,cpu=8,gres/gpu=2,mem=307200K,node=1|8|00:02.096|||node1|2026-11-29T00:33:53|2026-11-29T00:34:02|2026-11-29T00:34:12|hafabench_x|rule_x|/home/ann|sbatch --exclusive
7|COMPLETED|0:0|11|billing=1,cpu=1,gres/gpu=2,mem=307200K,node=1|1|00:02.103|||node3|2026-11-29T00:33:53|2026-11-29T00:34:02|2026-11-29T00:34:13|hafabench_x|rule_x|/home/ann|sbatch --gpus=2
9|COMPLETED|0:0|11|billing=1,cpu=1,gres/gpu=1,mem=307200K,node=1|1|00:02.097|||node4|2026-11-29T00:33:53|2026-11-29T00:34:02|2026-11-29T00:34:13|hafabench_x|rule_x|/home/ann|sbatch --array=0-1 --gpus=1
8|COMPLETED|0:0|10|billing=1,cpu=1,gres/gpu=1,mem=307200K,node=1|1|00:02.114|||node4|2026-11-29T00:33:53|2026-11-29T00:34:02|2026-11-29T00:34:12|hafabench_x|rule_x|/home/ann|sbatch --array=0-1 --gpus=1
"""  # noqa: E501 (recorded lines)


class Slurm:
    """A `sacct` that knows every job it is asked for, and refuses arguments that Linux would refuse."""

    def __init__(self, line: str):
        self.line, self.calls = line, []

    def __call__(self, arguments, timeout):
        assert timeout > 0
        assert max(map(len, arguments)) < 2**17, "Linux limits the length of one argument"
        (ids,) = (word.removeprefix("--jobs=").split(",") for word in arguments if word.startswith("--jobs="))
        self.calls.append(ids)
        return "".join(self.line.format(id=one) for one in ids)


ONE_JOB = (
    "{id}|COMPLETED|0:0|3600|cpu=1,gres/gpu=1|1|00:01.000|||n|2026-11-23T15:38:12|2026-11-23T16:00:00|"
    f"2026-11-23T17:00:00|x|{TRAINING}|/home/ann|sbatch\n"
)


def test_very_many_jobs_are_asked_for_in_several_commands():
    sacct, ids = Slurm(ONE_JOB), [str(10**9 + number) for number in range(4500)]
    assert [attempt.job_id for attempt in Sacct(sacct).of_jobs(ids)] == ids
    assert [len(call) for call in sacct.calls] == [*[IDS_PER_COMMAND] * 4, 500]


def test_very_many_jobs_have_one_time_limit(monkeypatch):
    now = iter(range(0, 10_000, 250))
    monkeypatch.setattr(accounting.time, "monotonic", lambda: next(now))
    with pytest.raises(CommandFailed, match=r"sacct: only 2,000 of 17,000 jobs were read within 600 s"):
        Sacct(Slurm(ONE_JOB)).of_jobs([str(number) for number in range(1, 17_001)])


def test_a_command_that_is_too_long_is_one_short_message():
    with pytest.raises(CommandFailed, match="Argument list too long") as caught:
        run(["true", "1," * 2**17], 5)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), -1, 2**32 - 2, 2**32 - 1, 2**63, 2**64 - 2, 2**64 - 1]
)
def test_numbers_that_stand_for_unknown_values(value):
    assert known(value) is None


def test_numbers_that_sacct_does_not_know_are_unknown():
    job, step = (line for line in SACCT.splitlines() if line.startswith(("4|", "4.0|")))
    job = job.replace("|1:0|5|cpu=1,mem=512000K,node=1|1|00:01.000|", "|:|4294967294|||INVALID|")
    step = step.replace("|511000K||", "|18446744073709551614|cpu=0,gres/gpuutil=18446744073709551614|")
    (found,) = parse_sacct(f"{job}\n{step}\n")
    assert (found.exit_code, found.elapsed_s, found.gpus, found.cpus) == (0, 0, None, 0)
    assert (found.cpu_s, found.peak_memory_mb, found.gpu_use) == (None, None, None)


# -- which Slurm job is which job ----------------------------------------------


def test_comments_equal_those_of_the_executor(digits):
    found = jobs_by_comment(JobList(digits))
    assert found[TRAINING].subject == "classification/pvt_tiny/seed0"
    # Recorded from the executor: `rule_<name>_wildcards_<wildcards joined by underscores>`.
    assert comment("train_run", ["classification", "pvt_tiny", "0"]) == TRAINING
    assert comment("write_report", []) == "rule_write_report"
    assert "rule_train_run_wildcards_classification_pvt_tiny_1" not in found
    assert len(found) == 49 + len(JobList(digits).optional)
    assert (
        found["rule_measure_latency_wildcards_table4"].command
        == f"hafabench latency table4 --experiment {digits.file}"
    )


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("sbatch --wrap=snakemake --configfiles /a/b.yaml --default-resources x", "/a/b.yaml"),
        ("sbatch --wrap=snakemake --configfiles 'a.yaml' 'b.yaml' --mode remote", "b.yaml"),
        ("sbatch --wrap=snakemake --configfile a.yaml", "a.yaml"),
        ("sbatch --wrap=snakemake --configfiles '/a b/it'\"'\"'s.yaml' --mode remote", "/a b/it's.yaml"),
        ('sbatch --wrap=snakemake --configfiles "/a b/ü.yaml" --mode remote', "/a b/ü.yaml"),
        ("sbatch --wrap=snakemake", None),
        ("", None),
    ],
)
def test_the_experiment_of_a_submission(line, file):
    assert experiment_of(line) == file


def named(experiment, name: str):
    return replace(experiment, config=experiment.config.model_copy(update={"experiment": name}))


@pytest.mark.parametrize(
    "names",
    [("paper", "paper_2", "Paper"), ("a.b", "a-b", "a_b"), ("x" * 100, "x" * 99, "x" * 40, "x" * 41)],
    ids=["similar", "with characters that the executor refuses", "long"],
)
def test_job_names_distinguish_experiments(digits, tmp_path, names):
    for name in names:
        prefix = job_name_prefix(name)
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,50}", prefix)
        own = f"{prefix}_{UUID}"
        wanted = [is_submitted_for(named(digits, other), own, "", tmp_path) for other in names]
        assert wanted == [other == name for other in names]
        # The folder of the logs has the full name.
        (tmp_path / "logs/slurm" / name).mkdir(parents=True)
        assert experiment_label(own, tmp_path) == name
    assert experiment_label(f"hafabench_{UUID}", tmp_path) is None


def test_attempts_of_another_experiment_are_left_out_by_name(digits, tmp_path):
    attempt = parse_sacct(SACCT)[0].model_copy(update={"folder": str(tmp_path), "comment": TRAINING})
    jobs = jobs_by_comment(JobList(digits))
    for name, file, is_own in (
        ("hafabench-digits", "moved.yaml", True),
        ("hafabench-paper", digits.file, False),
        ("hafabench", digits.file, True),
        ("hafabench", "moved.yaml", False),
    ):
        line = f"sbatch --wrap=snakemake --configfiles {file}"
        one = attempt.model_copy(update={"name": f"{name}_{UUID}", "submit_line": line})
        assert bool(assign(digits, jobs, [one], tmp_path)) == is_own, (name, file)


# -- costs ----------------------------------------------


def here(text: str, folder: Path) -> str:
    """Recorded lines as if they came from ``folder``."""
    return text.replace("/home/ann", str(folder))


def test_costs_sum_over_attempts_and_requeues(digits, tmp_path):
    record = update_accounting(digits, Sacct(RecordedCommands({"sacct": here(SACCT, tmp_path)})), SINCE)
    # Job 6 belongs to another experiment of the same folder, job 7 to another folder.
    assert [job.id for job in record.jobs] == [
        "train_run classification/pvt_tiny/seed0",
        "evaluate_run classification/pvt_tiny/seed0",
        "count_complexity detection",
    ]
    training = record.jobs[0]
    assert (training.submissions, training.requeues, training.state) == (2, 1, "COMPLETED")
    assert training.gpu_hours == pytest.approx((2 * 10 + 2 * 20 + 3600) / 3600)
    assert training.elapsed_h == pytest.approx(3630 / 3600)
    assert training.nodes == ["node1", "node2"]
    assert training.peak_memory_mb == pytest.approx(2048)
    assert training.cpu_use == pytest.approx((0.004 + 5 + 7200) / (10 + 20 + 4 * 3600))
    assert training.gpu_use == pytest.approx((0.4 * 2 * 20 + 0.8 * 3600) / (2 * 20 + 3600))
    assert record.jobs[1].gpu_use is None
    assert record.gpu_hours == training.gpu_hours
    assert read_accounting(accounting_file(digits)) == record


def test_purged_accounting_is_kept_in_the_file(digits, tmp_path):
    lines = here(SACCT, tmp_path).splitlines(keepends=True)
    full = update_accounting(digits, Sacct(RecordedCommands({"sacct": "".join(lines)})), SINCE)
    later = update_accounting(digits, Sacct(RecordedCommands({"sacct": "".join(lines[4:])})), SINCE)
    assert later.jobs == full.jobs
    assert update_accounting(digits, Sacct(RecordedCommands({"sacct": ""})), SINCE).jobs == full.jobs


def test_the_ends_of_jobs_that_left_the_queue_are_waited_for(digits, tmp_path):
    lines = here(SACCT, tmp_path).splitlines(keepends=True)
    running = next(number for number, line in enumerate(lines) if line.startswith("3|RUNNING|"))
    ended = [*lines[:running], lines[running].replace("|RUNNING|", "|COMPLETED|").replace("|Unknown|", f"|{END}|")]

    def settled(queue: str, *answers: list[str], wait_s: float = 60) -> tuple[str | None, int]:
        """Return the last known end of job 3, and how often the accounting was read."""
        said = ["".join(answer) for answer in answers]
        sacct = RecordedCommands({"sacct": said[0]})

        def asked(arguments, timeout):
            sacct.outputs["sacct"] = said[min(len(sacct.calls), len(said) - 1)]
            return sacct(arguments, timeout)

        squeue = RecordedCommands({"squeue": queue})
        record = complete_accounting(digits, Sacct(asked), SINCE, wait_s, squeue, every_s=0)
        (attempt,) = (attempt for job in record.jobs for attempt in job.attempts if attempt.job_id == "3")
        accounting_file(digits).unlink()
        return attempt.ended, len(sacct.calls)

    assert settled("", lines, lines, ended) == (END, 3)
    queued = f"3|x|RUNNING|None|node1|1:00|2:00|rule_evaluate_run_wildcards_classification_pvt_tiny_0|{tmp_path}\n"
    assert settled(queued, lines, ended) == (None, 1), "a job that runs is not waited for"
    assert settled("", lines, ended, wait_s=0) == (None, 1)


def test_cost_tables(digits, tmp_path):
    record = update_accounting(digits, Sacct(RecordedCommands({"sacct": here(SACCT, tmp_path)})), SINCE)
    assert all(len(row) == len(COLUMNS) for row in cost_rows(record))
    markdown, csv = write_costs(record, tmp_path)
    assert "1.0 GPU-hours over all attempts and requeues, by sacct" in markdown.read_text()
    line = csv.read_text().splitlines()[1]
    assert line == "train_run,classification/pvt_tiny/seed0,COMPLETED,2,1,1.008,1,1.017,2048,50,80,node1 node2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, "no such file"), ("{", "not valid JSON"), ('{"schema": "other"}', "schema")],
)
def test_a_bad_accounting_file_is_refused(tmp_path, text, expected):
    path = tmp_path / "accounting.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=expected):
        read_accounting(path)


# -- pyslurm ----------------------------------------------
# Stand-ins with the attributes and types that pyslurm documents for its database classes; pyslurm itself builds only
# against its own release of Slurm.


@dataclass
class StepStatistics:
    max_resident_memory: int
    total_cpu_time: int


@dataclass
class JobStep:
    id: int | str
    state: str
    stats: StepStatistics


@dataclass
class JobStatistics:
    total_cpu_time: int


@dataclass
class GPU:
    count: int
    type: str | None = None


@dataclass
class Job22:
    """`pyslurm.db.Job` of 22.x: no GPUs, no count of requeues."""

    id: int
    name: str
    state: str
    exit_code: int
    elapsed_time: int
    cpus: int
    comment: str | None
    nodelist: str | None
    submit_time: int
    start_time: int | None
    end_time: int | None
    submit_command: str
    working_directory: str
    steps: dict[int | str, JobStep]
    stats: JobStatistics


@dataclass
class CountedJob22(Job22):
    """A job without GPUs of a release that counts requeues."""

    requeue_count: int = 0


@dataclass
class Job2511(Job22):
    """`pyslurm.db.Job` of 25.11."""

    requeue_count: int = 0
    gpus: dict[str, GPU] = field(default_factory=dict)


class RPCError(Exception):
    pass


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def job(kind: type, **changes):
    # Release 22.5.3, live: the sum of the job is 0, and its steps have milliseconds.
    unit, total = (1, 7200) if kind is Job2511 else (1000, 0)
    steps = {
        "batch": JobStep("batch", "COMPLETED", StepStatistics(181_080_064, 2 * unit)),
        0: JobStep(0, "COMPLETED", StepStatistics(300_490_752, 7198 * unit)),
    }
    values = {
        "id": 2,
        "name": "hafabench_y",
        "state": "COMPLETED",
        "exit_code": 0,
        "elapsed_time": 3600,
        "cpus": 4,
        "comment": TRAINING,
        "nodelist": "node1",
        "submit_time": moment("2026-11-23T15:38:12"),
        "start_time": moment("2026-11-23T16:00:00"),
        "end_time": moment("2026-11-23T17:00:00"),
        "submit_command": "sbatch --parsable --gpus=fake:1 --configfiles /home/ann/digits.yaml",
        "working_directory": "/home/ann",
        "steps": steps,
        "stats": JobStatistics(total),
    }
    return kind(**(values | changes))


def stand_in(version: str, filter_name: str, jobs, asked: list | None = None) -> types.ModuleType:
    """A module with pyslurm's interface: ``db.Jobs.load(filter)`` gives ``jobs``."""

    @dataclass
    class JobFilter:
        users: list[str]
        start_time: int

    class Jobs:
        @staticmethod
        def load(db_filter=None):
            if asked is not None:
                asked.append(db_filter)
            if isinstance(jobs, Exception):
                raise jobs
            return jobs

    module = types.ModuleType("pyslurm")
    module.__version__ = version
    module.RPCError = RPCError
    module.db = types.SimpleNamespace(Jobs=Jobs, **{filter_name: JobFilter})
    return module


@pytest.mark.parametrize(
    ("version", "filter_name", "loaded"),
    [
        ("22.5.3", "JobSearchFilter", {2: job(Job22)}),
        ("22.5.3", "JobFilter", [job(Job22)]),
        ("25.11.2", "JobFilter", {2: job(Job2511, gpus={"gpu:fake": GPU(1, "fake"), "gpu": GPU(1)})}),
    ],
)
def test_both_interfaces_equal_sacct(version, filter_name, loaded):
    asked: list = []
    lines = "".join(line for line in SACCT.splitlines(keepends=True) if line.startswith(("2|", "2.", " --conf")))
    (found,) = PySlurm(stand_in(version, filter_name, loaded, asked), RecordedCommands({"sacct": lines})).attempts(
        SINCE
    )
    by_sacct = next(attempt for attempt in parse_sacct(SACCT) if attempt.job_id == "2")
    for name in (
        *("job_id", "state", "exit_code", "elapsed_s", "gpus", "cpus", "cpu_s", "nodes", "submitted", "started"),
        *("ended", "comment", "folder"),
    ):
        assert getattr(found, name) == getattr(by_sacct, name), name
    assert found.peak_memory_mb == pytest.approx(by_sacct.peak_memory_mb, abs=0.1)
    assert asked[0].start_time == SINCE.timestamp()


@pytest.mark.parametrize("kind", [Job22, Job2511])
def test_earlier_attempts_of_requeued_jobs_come_from_sacct(kind):
    changes = {"id": 1, "state": "CANCELLED", "elapsed_time": 20, "start_time": moment("2026-11-23T15:38:42")}
    if kind is Job2511:
        changes |= {"requeue_count": 1, "gpus": {"gpu": GPU(2)}}
    answers = RecordedCommands({"sacct": "\n".join(SACCT.splitlines()[:4])})
    found = PySlurm(stand_in("x", "JobFilter", {1: job(kind, **changes)}), answers).attempts(SINCE)
    assert [(attempt.state, attempt.elapsed_s) for attempt in found] == [("REQUEUED", 10), ("CANCELLED", 20)]
    assert sum(attempt.gpu_hours for attempt in found) == pytest.approx(60 / 3600)
    assert "--jobs=1" in answers.calls[0]


def test_a_job_that_was_never_requeued_needs_no_sacct():
    answers = RecordedCommands({})
    assert len(PySlurm(stand_in("25.11.2", "JobFilter", {2: job(Job2511)}), answers).attempts(SINCE)) == 1
    assert answers.calls == []


def test_states_and_empty_values_of_pyslurm():
    out_of_memory = {0: JobStep(0, "OUT_OF_MEMORY", StepStatistics(0, 0))}
    waiting = job(Job2511, id=3, start_time=None, nodelist="None assigned")
    killed = job(Job2511, state="FAILED", exit_code=1, steps=out_of_memory, stats=JobStatistics(0), nodelist=None)
    (found,) = PySlurm(stand_in("x", "JobFilter", {2: killed, 3: waiting}), RecordedCommands({})).attempts(SINCE)
    assert (found.state, found.exit_code, found.peak_memory_mb, found.cpu_s) == ("OUT_OF_MEMORY", 1, None, None)
    assert found.nodes == ""


@pytest.mark.parametrize("kind", [Job22, CountedJob22])
def test_gpus_that_pyslurm_does_not_report_are_those_of_sacct(kind):
    """However they were requested, and for every task of an array."""
    recorded = {one.job_id: one for one in parse_sacct(GPU_JOBS)}
    jobs = [
        job(
            kind,
            id=int(one.job_id),
            comment=one.comment,
            submit_command=one.submit_line,
            start_time=moment(one.started),
            end_time=moment(one.ended),
        )
        for one in recorded.values()
    ]
    answers = RecordedCommands({"sacct": GPU_JOBS})
    found = PySlurm(stand_in("22.5.3", "JobFilter", jobs), answers).attempts(SINCE)
    assert {one.job_id: one.gpus for one in found} == {"1": 2, "2": 2, "3": 2, "4": 2, "5": 2, "7": 2, "8": 1, "9": 1}
    assert [one.cpu_s for one in found] == [7200] * 8, "the steps know the CPU seconds"
    assert len(answers.calls) == 1


def test_sacct_is_asked_about_jobs_of_drivers_only():
    mine = [job(Job22, id=number) for number in range(1, 2001)]
    others = [job(Job22, id=number, comment=None, submit_command="sbatch x.sh") for number in range(2001, 17_001)]
    sacct = Slurm(ONE_JOB)
    found = PySlurm(stand_in("22.5.3", "JobFilter", mine + others), sacct).attempts(SINCE)
    assert [len(call) for call in sacct.calls] == [1000, 1000]
    assert {one.job_id for one in found if one.gpus == 1} == {str(number) for number in range(1, 2001)}


def test_what_one_backend_knows_is_kept_when_the_other_does_not_know_it(digits, tmp_path):
    """In both directions."""
    by_sacct = here(SACCT, tmp_path)
    full = update_accounting(digits, Sacct(RecordedCommands({"sacct": by_sacct})), SINCE)
    training = full.jobs[0].attempts[-1]
    assert (training.gpus, training.gpu_use, training.cpu_s) == (1, 0.8, 7200)
    unknown = {"stats": None, "steps": None, "comment": None, "submit_command": None, "nodelist": None, "cpus": None}
    poor = PySlurm(stand_in("22.5.3", "JobFilter", [job(Job22, **unknown)]), RecordedCommands({"sacct": ""}))
    record = update_accounting(digits, poor, SINCE)
    assert (record.backend, record.jobs) == ("pyslurm", full.jobs)

    accounting_file(digits).unlink()
    here_too = {"working_directory": str(tmp_path), "submit_command": f"sbatch --configfiles {tmp_path}/digits.yaml"}
    rich = PySlurm(
        stand_in("25.11.2", "JobFilter", [job(Job2511, gpus={"gpu": GPU(4)}, **here_too)]), RecordedCommands({})
    )
    before = update_accounting(digits, rich, SINCE).jobs[0].attempts[0]
    poor_line = f"2|COMPLETED|0:0||||00:00:00|||None assigned|Unknown|2026-11-23T16:00:00|Unknown|||{tmp_path}|\n"
    after = update_accounting(digits, Sacct(RecordedCommands({"sacct": poor_line})), SINCE).jobs[0].attempts
    assert after == [before]
    assert (before.gpus, before.cpu_s, before.peak_memory_mb) == (4, 7200, pytest.approx(300.5, abs=0.1))


def test_a_late_answer_does_not_replace_the_end_of_an_attempt(digits, tmp_path):
    full = update_accounting(digits, Sacct(RecordedCommands({"sacct": here(SACCT, tmp_path)})), SINCE)
    changes = {"state": "RUNNING", "elapsed_time": 5, "end_time": None, "steps": {}, "exit_code": None}
    line = f"sbatch --configfiles {tmp_path}/digits.yaml"
    running = job(Job22, **changes, working_directory=str(tmp_path), submit_command=line)
    late = PySlurm(stand_in("22.5.3", "JobFilter", [running]), RecordedCommands({"sacct": ""}))
    assert update_accounting(digits, late, SINCE).jobs == full.jobs


def test_a_running_attempt_gets_its_end_and_an_out_of_memory_step_is_kept(digits, tmp_path):
    lines = here(SACCT, tmp_path)
    update_accounting(digits, Sacct(RecordedCommands({"sacct": lines})), SINCE)
    ended = lines.replace("3|RUNNING|0:0|30|", "3|COMPLETED|0:0|60|").replace("18:00:01|Unknown|", f"18:00:01|{END}|")
    without_steps = "".join(line for line in ended.splitlines(keepends=True) if not line.startswith("4.0|"))
    record = update_accounting(digits, Sacct(RecordedCommands({"sacct": without_steps})), SINCE)
    states = {one.job_id: (one.state, one.ended, one.elapsed_s) for cost in record.jobs for one in cost.attempts}
    assert states["3"] == ("COMPLETED", END, 60)
    assert states["4"][0] == "OUT_OF_MEMORY"


def test_the_end_of_a_stored_attempt_is_known_without_its_comment(digits, tmp_path):
    lines = here(SACCT, tmp_path)
    update_accounting(digits, Sacct(RecordedCommands({"sacct": lines})), SINCE)
    (running,) = (line for line in lines.splitlines() if line.startswith("3|"))
    ended = running.replace("|RUNNING|", "|COMPLETED|").replace("|Unknown|", f"|{END}|").rpartition("|")[0] + "|"
    other = ended.replace("18:00:01", "18:00:02")
    record = update_accounting(digits, Sacct(RecordedCommands({"sacct": f"{ended}\n{other}\n"})), SINCE)
    found = [attempt for cost in record.jobs for attempt in cost.attempts if attempt.job_id == "3"]
    assert [(attempt.state, attempt.ended) for attempt in found] == [("COMPLETED", END)]


def test_unknown_gpus_are_empty_in_the_table(digits, tmp_path):
    line = f"sbatch --configfiles {tmp_path}/digits.yaml"
    jobs = [job(Job22, working_directory=str(tmp_path), submit_command=line)]
    record = update_accounting(
        digits, PySlurm(stand_in("22.5.3", "JobFilter", jobs), RecordedCommands({"sacct": ""})), SINCE
    )
    (row,) = (dict(zip(COLUMNS, row, strict=True)) for row in cost_rows(record))
    assert (row["GPUs"], row["GPU-hours"], row["hours"]) == ("", "", "1.000")
    assert "0.0 GPU-hours" in cost_markdown(record)
    assert json.loads(accounting_file(digits).read_text())["cells"][0]["turns"][0]["gpus"] is None


@pytest.mark.parametrize("number", [float("nan"), -1, 2**64 - 1, 2**64 - 2, None])
def test_sentinels_and_missing_statistics_of_pyslurm_are_unknown_values(number):
    steps = {
        0: JobStep(0, "COMPLETED", StepStatistics(number, number)),
        1: JobStep(1, "COMPLETED", None),
        2: JobStep(2, "COMPLETED", StepStatistics(2_000_000, 1500)),
    }
    values = {"exit_code": number, "elapsed_time": number, "cpus": number, "submit_time": number, "end_time": number}
    jobs = [job(Job22, steps=steps, stats=JobStatistics(number), **values)]
    jobs.append(job(Job22, id=3, start_time=number))
    (found,) = PySlurm(stand_in("22.5.3", "JobFilter", jobs), RecordedCommands({"sacct": ""})).attempts(SINCE)
    assert (found.cpu_s, found.peak_memory_mb) == (1.5, 2)
    assert (found.exit_code, found.elapsed_s, found.cpus, found.submitted, found.ended) == (0, 0, 0, None, None)


def test_an_unavailable_data_base_is_one_message():
    with pytest.raises(CommandFailed, match="pyslurm: no connection"):
        PySlurm(stand_in("x", "JobFilter", RPCError("no connection")), RecordedCommands({})).attempts(SINCE)


@pytest.mark.parametrize(
    ("version", "slurm", "backend", "sentence"),
    [
        ("25.11.2", "slurm 25.11.4", "pyslurm", "through pyslurm 25.11.2"),
        ("22.5.3", "slurm-wlm 22.05.8", "pyslurm", "through pyslurm 22.5.3"),
        (
            "25.11.2",
            "slurm-wlm 22.05.8",
            "sacct",
            "through sacct: pyslurm 25.11.2 is not for this cluster's Slurm 22.05",
        ),
        ("25.11.2", None, "sacct", "through sacct: sinfo: not found; this machine has no Slurm commands"),
    ],
)
def test_pyslurm_serves_its_own_release_only(monkeypatch, version, slurm, backend, sentence):
    monkeypatch.setitem(sys.modules, "pyslurm", stand_in(version, "JobFilter", {}))
    found, said = choose_accounting(RecordedCommands({"sinfo": slurm} if slurm else {}))
    assert (found.name, said) == (backend, sentence)


def test_a_missing_pyslurm_is_replaced_by_sacct(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyslurm", None)
    backend, reason = choose_accounting(RecordedCommands({"sinfo": "slurm 25.11.4"}))
    assert backend.name == "sacct"
    assert "pyslurm is not installed" in reason


def test_a_broken_pyslurm_is_described_in_one_line(monkeypatch, tmp_path):
    cause = "libslurm.so.43: cannot open shared object file"
    (tmp_path / "pyslurm.py").write_text(f"raise ImportError({cause + chr(10) + 'more'!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyslurm", raising=False)
    problem = pyslurm_problem()
    assert "pyslurm" in problem and cause in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("text", "release"),
    [("22.05.8", (22, 5)), ("22.5.3", (22, 5)), ("25.11.2", (25, 11)), ("git", None), ("25", None)],
)
def test_releases(text, release):
    assert release_of(text) == release
