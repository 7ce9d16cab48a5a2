"""The function that runs Slurm's commands."""

from __future__ import annotations

import pytest

from hafabench.cluster.commands import run


def test_variables_of_the_user_do_not_change_what_slurm_answers(tmp_path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    names = ("SQUEUE_PARTITION", "SQUEUE_USERS", "SACCT_FORMAT", "SCANCEL_INTERACTIVE", "SLURM_TIME_FORMAT")
    for name in (*names, "SLURM_CONF"):
        monkeypatch.setenv(name, "own")
    answer = run([str(program)])
    assert "SLURM_CONF=own" in answer
    assert not [name for name in names if name in answer]
