"""How attempts ended, from states and logs that were recorded from Slurm 22.05.8 with jobs that ended in each way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hafabench.cluster.ends import End, StoredEnd, how_it_ended, refused, store_end, stored_ends
from hafabench.files import write_text
from hafabench.runs.ends import HEADINGS, end_of_log, ends_file

# What the two processes of Snakemake in a Slurm job wrote after the command had failed, shortened.
INNER = """\
RuleException:
CalledProcessError in file "/home/ann/hafabench/workflow/rules/train.smk", line 41:
Command 'set -euo pipefail;  {command}' returned non-zero exit status {code}.
[Sun Nov 29 00:48:22 2026]
Error in rule train_run:
    message: None
    jobid: 0
    output: results/digits/classification/pvt_tiny/seed0/checkpoint.pth
    log: results/digits/classification/pvt_tiny/seed0/train.log (check log file(s) for error details)
    shell:
        {command}
        (command exited with non-zero exit code)
Shutting down, this might take some time.
Exiting because a job execution failed. Look above for error messages
Storing output in storage.
Elapsed time: 0:00:01.875584
WorkflowError:
At least one job did not complete successfully.
"""
OUTER = """\
[Sun Nov 29 00:48:24 2026]
Error in rule train_run:
    message: None
    jobid: 0
Shutting down, this might take some time.
Exiting because a job execution failed. Look above for error messages
WorkflowError:
At least one job did not complete successfully.
"""
EXITED = "srun: error: node4: task 0: Exited with exit code 1\n"


def failed(line: str, slurm: str = EXITED, code: int = 1) -> str:
    inner = INNER.format(code=code, command="hafabench train classification/pvt_tiny/seed0")
    return f"localrule train_run:\n{line}\n{inner}{slurm}{OUTER}"


OOM = """\
slurmstepd-node4: error: Detected 1 oom-kill event(s) in StepId=10.0. Some of your processes may have been killed by \
the cgroup out-of-memory handler.
srun: error: node4: task 0: Out Of Memory
"""
TIME = """\
slurmstepd-node4: error: *** STEP 8.0 ON node4 CANCELLED AT 2026-11-29T00:49:19 DUE TO TIME LIMIT ***
slurmstepd-node4: error: *** JOB 8 ON node4 CANCELLED AT 2026-11-29T00:49:19 DUE TO TIME LIMIT ***
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
Will exit after finishing currently running jobs (scheduler).
"""
PREEMPTED = """\
slurmstepd-node3: error: *** STEP 2.0 ON node3 CANCELLED AT 2026-11-29T00:52:20 DUE TO PREEMPTION ***
slurmstepd-node3: error: *** JOB 2 ON node3 CANCELLED AT 2026-11-29T00:52:20 DUE TO PREEMPTION ***
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
"""
CANCELLED = "slurmstepd-node2: error: *** JOB 3 ON node2 CANCELLED AT 2026-11-29T00:52:20 ***\n"
NO_CHDIR = "slurmstepd-node1: error: couldn't chdir to `/gone/x': No such file or directory: going to /tmp instead\n"
STOPPED = "classification/pvt_tiny/seed0: stopped after step 32 of 128; the same command resumes it"
KILLED = "/usr/bin/bash: line 3: 11663 Killed                  hafabench train classification/pvt_tiny/seed0"
SPOOL = "/var/spool/slurmd/job00015/slurm_script: 4: "
# Name: state, exit code, log, kind, and a part of the sentence.
RECORDED = {
    "memory, and a step says so": ("OUT_OF_MEMORY", "1:0", failed(KILLED, OOM, 137), "memory", "more memory"),
    "memory, without accounting": ("FAILED", "", failed(KILLED, OOM, 137), "memory", "more memory than it requested"),
    "memory, only in the log": ("", "", failed(KILLED, OOM, 137), "memory", "Out Of Memory"),
    "memory, in Python": ("FAILED", "1:0", failed("Traceback (most recent call last):\nMemoryError"), "memory", ""),
    "memory, in torch": (
        "FAILED",
        "1:0",
        failed("RuntimeError: [enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"),
        "memory",
        "DefaultCPUAllocator",
    ),
    "memory of a GPU": (
        "FAILED",
        "1:0",
        failed("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        "error",
        "CUDA out of memory",
    ),
    "time": ("TIMEOUT", "0:0", f"localrule train_run:\n{TIME}", "time", "time limit on node4"),
    "time, without accounting": ("", "", f"localrule train_run:\n{TIME}", "time", "time limit"),
    "stopped before its limit": ("FAILED", "1:0", failed(STOPPED), "stopped", "stopped after step 32"),
    "cancelled": ("CANCELLED by 0", "0:0", CANCELLED, "cancelled", "cancelled by root"),
    "cancelled, after it saved its state": ("CANCELLED by 0", "0:0", f"{STOPPED}\n{CANCELLED}", "cancelled", "root"),
    "cancelled, without accounting": ("CANCELLED", "", CANCELLED, "cancelled", "it was cancelled"),
    "cancelled by an unknown user": ("CANCELLED by 987654", "0:0", None, "cancelled", "the user with id 987654"),
    "preempted": ("PREEMPTED", "0:0", PREEMPTED, "preempted", "gave its nodes to another job"),
    "preempted, without accounting": ("", "", PREEMPTED, "preempted", "gave its nodes to another job"),
    "node": ("NODE_FAIL", "0:0", "localrule train_run:\n", "node", "node failed or lost contact on node4"),
    "no Python": ("FAILED", "127:0", f"{SPOOL}/gone/bin/python: not found\n", "environment", "/gone/bin/python"),
    "no Python, by bash": (
        "FAILED",
        "127:0",
        "/var/spool/slurmd/job00015/slurm_script: line 4: /gone/bin/python: No such file or directory\n",
        "environment",
        "/gone/bin/python",
    ),
    "no Python on the path": ("FAILED", "127:0", f"{SPOOL}python3: not found\n", "environment", "python3: not found"),
    "no Snakemake": ("FAILED", "1:0", "/usr/bin/python3: No module named snakemake\n", "environment", "No module"),
    "no Python in a step": (
        "FAILED",
        "2:0",
        f"slurmstepd-node1: error: execve(): /gone/bin/python: No such file or directory\n{EXITED}",
        "environment",
        "/gone/bin/python",
    ),
    "no command": (
        "FAILED",
        "1:0",
        failed("/usr/bin/bash: line 3: hafabench: command not found", code=127),
        "environment",
        "hafabench: command not found",
    ),
    "no program, and no log": ("FAILED", "127:0", "", "environment", "exit code 127"),
    "no working folder": ("FAILED", "1:0", f'{NO_CHDIR}Error: Snakefile "Snakefile" not found.\n', "folder", "chdir"),
    "no folder of the log": ("FAILED", "0:53", None, "folder", "Slurm could not write its log"),
    "no space": (
        "FAILED",
        "1:0",
        failed("head: error writing 'standard output': No space left on device"),
        "space",
        "No space left on device",
    ),
    "no space, in torch": (
        "FAILED",
        "1:0",
        failed("RuntimeError: [enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        "space",
        "unexpected pos",
    ),
    "quota": ("FAILED", "1:0", failed("OSError: [Errno 122] Disk quota exceeded: 'a'"), "space", "quota"),
    "an error of ours": (
        "FAILED",
        "1:0",
        failed("error: data/coco/val2017: no such folder"),
        "error",
        "error: data/coco/val2017: no such folder",
    ),
    "an error of Python": ("FAILED", "1:0", failed("ValueError: 3"), "error", "ValueError: 3"),
    "killed, and nothing says by whom": ("FAILED", "1:0", failed(KILLED, code=137), "error", "Killed"),
    "killed, and the shell as well": (
        "FAILED",
        "1:0",
        failed("").replace("returned non-zero exit status 1.", "died with <Signals.SIGKILL: 9>."),
        "unknown",
        "exit code 1, and no log says why",
    ),
    "forgotten": ("", "", None, "lost", "no longer knows"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_last_thing_that_explains_is_the_reason(tmp_path, name):
    state, exit_code, text, kind, part = RECORDED[name]
    log = tmp_path / "10.log"
    if text is not None:
        log.write_text(text)
    found = how_it_ended(state, exit_code, "node4", log, tmp_path / "train.log", "10")
    assert (found.kind, "\n" in found.sentence) == (kind, False), found
    assert part in found.sentence


@pytest.mark.parametrize("line", [*INNER.splitlines(), *OUTER.splitlines(), EXITED, "ERROR conda.cli.main_run: x"])
def test_what_follows_from_a_failure_explains_nothing(line):
    assert end_of_log([line.format(code=1, command="hafabench train")]) is None


def test_the_log_of_the_job_counts_if_it_is_of_this_slurm_job(tmp_path):
    log, slurm_log = tmp_path / "train.log", tmp_path / "10.log"
    begins = "hafabench: begins train_run a, fingerprint 0, process 7 on n1, Slurm job {}\nerror: no such folder\n"
    slurm_log.write_text("srun: error: node4: task 0: Exited with exit code 1\n")
    log.write_text(begins.format(10))
    assert how_it_ended("FAILED", "1:0", "n1", slurm_log, log, "10") == End("error", "error: no such folder")
    log.write_text(begins.format(9))
    assert how_it_ended("FAILED", "1:0", "n1", slurm_log, log, "10").kind == "unknown"


def test_a_refusal_is_told_in_the_words_of_slurm():
    said = (
        "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: No\n"
    )
    assert refused(said) == End(
        "refused", "Memory specification can not be satisfied; Batch job submission failed: No"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"comment": ["x"]},
        {"slurm_id": "x"},
        {"slurm_id": 7},
        {"time": "x"},
        {"attempt": "1"},
        {"end": None},
        {"end": {"kind": ["x"], "sentence": "y"}},
        {"end": {"kind": "error", "sentence": None}},
    ],
    ids=str,
)
def test_damaged_lines_of_stored_ends_are_skipped(tmp_path, changes):
    stored = StoredEnd("rule_a", "7", End("node", "lost"), 1, 6, 2.0)
    store_end(stored, "digits", tmp_path)
    file = ends_file("digits", tmp_path)
    damaged = json.dumps({**json.loads(file.read_text()), **changes})
    file.write_text(f"{file.read_text()}{damaged}\nnull\n{damaged[:30]}")
    assert stored_ends("digits", tmp_path) == {"rule_a": stored}
    # The line that follows half a line is not lost with it.
    other = replace(stored, comment="rule_b", slurm_id=None)
    store_end(other, "digits", tmp_path)
    assert stored_ends("digits", tmp_path) == {"rule_a": stored, "rule_b": other}


def test_stored_ends_survive_a_killed_driver(tmp_path):
    first = StoredEnd("rule_a", "7", End("memory", "it used\ttoo much"), 1, 6, 1.5, "ab")
    last = StoredEnd("rule_a", None, End("refused", "no such account"), 2, 6, 2.5)
    other = StoredEnd("rule_b", "8", End("time", "ü"), 1, 6, 3.5)
    assert stored_ends("digits", tmp_path) == {}
    for one in (first, last, other):
        store_end(one, "digits", tmp_path)
    path = ends_file("digits", tmp_path)
    for line in (
        '{"comment": "rule_a", "slu',
        "[]",
        "7",
        '{"comment": "rule_a", "end": {"kind": "x", "sentence": ""}}',
    ):
        with path.open("a") as handle:
            handle.write(line + "\n")
    assert stored_ends("digits", tmp_path) == {"rule_a": last, "rule_b": other}
    assert stored_ends("paper", tmp_path) == {}
    write_text(path, "")
    assert stored_ends("digits", tmp_path) == {}


def test_every_kind_has_a_heading():
    kinds = {kind for _, _, _, kind, _ in RECORDED.values()} | {"refused"}
    assert kinds == set(HEADINGS)
