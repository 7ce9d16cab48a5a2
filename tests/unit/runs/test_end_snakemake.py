"""A process whose Slurm job was taken over ends the Snakemake of its job, which would delete outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hafabench.runs.snakemake import end_snakemake_of_slurm_job

OWN = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": "node4"}


@pytest.fixture
def processes() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes that look like Snakemake in a job, by what differs from that of the own job."""
    kinds: dict[str, tuple[list[str], dict[str, str]]] = {
        "own": (["--mode", "subprocess"], {}),
        "the driver": ([], {}),
        "another job": (["--mode", "remote"], {"SLURM_JOB_ID": "13"}),
        "another node": (["--mode", "remote"], {"SLURMD_NODENAME": "node1"}),
        "a later attempt": (["--mode", "remote"], {"SLURM_RESTART_COUNT": "1"}),
    }
    sleep = "import time; time.sleep(60)"
    started = {
        kind: subprocess.Popen(
            ["snakemake", "-c", sleep, *words], executable=sys.executable, env={**os.environ, **OWN, **changes}
        )
        for kind, (words, changes) in kinds.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


def test_only_snakemake_of_this_attempt_and_node_is_killed(processes, monkeypatch):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    end_snakemake_of_slurm_job()
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    assert [process.poll() for process in processes.values()] == [None] * 5
    end_snakemake_of_slurm_job()
    assert processes["own"].wait(10) == -9
    assert [process.poll() for process in processes.values()] == [-9, None, None, None, None]
