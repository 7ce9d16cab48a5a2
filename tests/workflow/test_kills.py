"""Commands that are killed at any moment leave whole files, and the next run of the same command succeeds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.checkout import REPOSITORY


@pytest.mark.slow
def test_killed_commands_leave_whole_files(tmp_path):
    command = [sys.executable, "-m", "tools.kills", "--kills", "8", "--seed", "1", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills of" in done.stdout.splitlines()[-1]
