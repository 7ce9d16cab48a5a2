"""The log of a job that needs a lease: the log of the process that has the lease is not touched by another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hafabench.runs.job_log import copy
from hafabench.runs.lease import this_process

BEGINS = "hafabench: begins train_run r, fingerprint 0, process 1 on n\n"


def shown(log: Path, *chunks: bytes | str) -> bytes:
    """Copy chunks, which arrive one after the other, and return the output."""
    source, write = os.pipe()
    read, target = os.pipe()
    for chunk in chunks:
        os.write(write, chunk.encode() if isinstance(chunk, str) else chunk)
    os.close(write)
    copy(log, source, target)
    os.close(target)
    with os.fdopen(read, "rb") as output:
        return output.read()


def lease(folder: Path, *, lives: bool) -> None:
    """Write the lease of another training, which renewed it just now or long ago."""
    holder = replace(this_process("train"), host="n017", system="elsewhere")
    (folder / "lease-1.json").write_text(json.dumps(asdict(holder)))
    if not lives:
        os.utime(folder / "lease-1.json", (1, 1))


@pytest.mark.parametrize("before", ["", "1 of 2 files\n", b"\xff\x00\n"], ids=["begins", "text", "binary"])
def test_an_attempt_writes_a_new_log(tmp_path, before):
    log = tmp_path / "seed0/train.log"
    log.parent.mkdir()
    log.write_text("of an earlier attempt\n")
    old = log.open()
    text = (before.encode() if isinstance(before, str) else before) + f"{BEGINS}step 1\n".encode()
    assert shown(log, text) == text
    assert log.read_bytes() == text
    assert old.read() == "of an earlier attempt\n", "a process that lost its lease may still write into the old file"


def test_the_folder_is_made(tmp_path):
    shown(tmp_path / "new/seed0/train.log", BEGINS)
    assert (tmp_path / "new/seed0/train.log").read_text() == BEGINS


def test_an_attempt_that_is_refused_is_shown_and_leaves_the_log_alone(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("step 7\n")
    lease(tmp_path, lives=True)
    said = "error: r is in use; the log of it says hafabench: begins train_run\n"
    assert shown(log, said) == said.encode()
    assert log.read_text() == "step 7\n"


@pytest.mark.parametrize("left", [False, True], ids=["nobody has a lease", "the lease of a dead process"])
def test_a_command_that_fails_before_it_has_the_lease_is_told_in_the_log(tmp_path, left):
    log = tmp_path / "train.log"
    log.write_text("of an earlier attempt\n")
    if left:
        lease(tmp_path, lives=False)
    shown(log, "bash: hafabench: command not found\n")
    assert log.read_text() == "bash: hafabench: command not found\n"


def test_the_log_grows_with_the_output(tmp_path):
    log = tmp_path / "train.log"
    command = [sys.executable, "-m", "hafabench.runs.job_log", log]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for part in ("first", BEGINS.strip(), "step 1"):
            process.stdin.write(f"{part}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline() == f"{part}\n".encode()
            assert log.exists() == (part != "first")
        process.stdin.close()
        assert process.wait() == 0
    assert log.read_text() == f"first\n{BEGINS}step 1\n"


@pytest.mark.parametrize("log", ["folder", "/dev/full/train.log"])
def test_a_log_that_cannot_be_written_does_not_end_the_training(tmp_path, log):
    (tmp_path / "folder").mkdir()
    path = tmp_path / log
    said = shown(path, f"{BEGINS}step 1\n")
    assert (
        said == f"{BEGINS}step 1\n{path}: not written completely; the output of the job is only shown here\n".encode()
    )


def quiet(log: Path, text: str) -> str:
    """Run the program with ``--quiet`` and return its output."""
    command = [sys.executable, "-m", "hafabench.runs.job_log", log, "--quiet"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def test_a_quiet_log_shows_only_what_it_cannot_write(tmp_path):
    log = tmp_path / "train.log"
    assert quiet(log, f"first\n{BEGINS}step 1\n") == ""
    assert log.read_text() == f"first\n{BEGINS}step 1\n"
    assert quiet(log, "bash: hafabench: command not found\n") == ""
    assert log.read_text() == "bash: hafabench: command not found\n"
    lease(tmp_path, lives=True)
    assert quiet(log, "error: r is in use\n") == "error: r is in use\n"
    (tmp_path / "folder").mkdir()
    assert quiet(tmp_path / "folder", f"{BEGINS}step 1\n").startswith(f"{BEGINS}step 1\n")
