"""The root of this checkout, and Snakemake as a user starts it on the checkout's workflow, in another folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
JOB = re.compile(r"^([a-z_]+) +(\d+)$", re.MULTILINE)


def snakemake(directory: Path, experiment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on ``experiment`` with results under ``directory``. Standard output includes standard error."""
    command = [str(BIN / "snakemake"), "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(directory), "--configfile", str(experiment), "--cores", "2", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def job_counts(output: str) -> dict[str, int]:
    """Return the jobs per rule and their ``total`` from Snakemake's output; empty if nothing is to be done."""
    return {rule: int(count) for rule, count in JOB.findall(output)}
