"""The last lines that Snakemake prints after a job has failed."""

from __future__ import annotations

import re
import shlex

from tools.checkout import REPOSITORY, snakemake


def test_the_last_lines_name_the_job_its_log_and_the_command_to_repeat_it(tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    done = snakemake(tmp_path, REPOSITORY / "configs/digits.yaml", "results/digits/data/classification.json")
    assert done.returncode != 0
    summary = done.stdout[done.stdout.index("1 failed or interrupted") :].splitlines()
    _, _, reason, job, log, command = summary[:6]
    assert reason == "error (1)"
    assert job.split()[:3] == ["prepare_dataset", "classification", "error:"]
    assert log.strip() == "log: results/digits/data/classification.log"
    assert command.strip().startswith("again: hafabench data prepare classification --experiment ")
    repeat = summary[summary.index("This command runs all of them again:") + 1]
    # As the workflow was started.
    assert repeat == f"  {shlex.join(['snakemake', *done.args[1:]])}"
    begins, error = (tmp_path / "results/digits/data/classification.log").read_text().splitlines()
    assert begins.startswith("hafabench: begins prepare_dataset classification, fingerprint ")
    assert error.startswith("error: ")


def test_the_profile_prints_the_failed_job_on_one_line_with_its_reason_and_log(tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    profile = str(REPOSITORY / "workflow/profiles/local")
    target = "results/digits/data/classification.json"
    own = snakemake(tmp_path, REPOSITORY / "configs/digits.yaml", "--profile", profile, "--verbose", target)
    done = snakemake(tmp_path, REPOSITORY / "configs/digits.yaml", "--profile", profile, target)
    assert done.returncode != 0
    assert "Error in rule prepare_dataset:" in own.stdout
    assert "Error in rule" not in done.stdout
    lines = done.stdout.splitlines()
    failed = next(i for i, line in enumerate(lines) if line.startswith("failed prepare data, classification "))
    assert lines[failed + 1].startswith("  error: ")
    assert lines[failed + 2] == "  log: results/digits/data/classification.log"
    assert "1 failed or interrupted" in lines
    # The output of the job is in its log only, and Snakemake's own messages are in the file that is named.
    assert "hafabench: begins" not in done.stdout
    named = re.search(r"The driver's full log is (\S+)\.$", done.stdout, re.MULTILINE)
    assert named is not None and "Error in rule prepare_dataset:" in (tmp_path / named[1]).read_text()
