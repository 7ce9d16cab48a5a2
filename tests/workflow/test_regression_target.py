"""The regression target: its jobs and reports, and the CI file that calls it."""

from __future__ import annotations

import shlex

import yaml

from tools.checkout import REPOSITORY, job_counts, snakemake

REPORTS = "reports/regression_digits"


def test_it_makes_every_record_of_its_experiment_and_compares_once(tmp_path):
    done = snakemake(
        tmp_path, REPOSITORY / "configs/regression_digits.yaml", "--dry-run", "--printshellcmds", "regression"
    )
    assert done.returncode == 0, done.stdout
    counts = job_counts(done.stdout)
    assert counts["regression"] == 1
    assert counts["train_run"] == counts["evaluate_run"] == 3
    assert (counts["count_complexity"], counts["measure_latency"]) == (3, 1)
    assert not {"collect_records", "write_report"} & counts.keys(), "no tables are made of it"
    assert "hafabench regress --baseline results/baseline --candidate results/regression_digits" in done.stdout
    for option, suffix in (("--markdown", "md"), ("--junit", "xml")):
        assert f"{option} {REPORTS}/regression.{suffix}" in done.stdout


def test_the_ci_file_runs_the_target_and_shows_its_reports():
    text = (REPOSITORY / "docs/ci/regression.yml").read_text()
    steps = yaml.safe_load(text)["jobs"]["gate"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert "make regression" in commands
    [strict] = [shlex.split(command) for command in commands if "hafabench regress" in command]
    assert strict[:3] == [".venv/bin/hafabench", "regress", "--strict"]
    options = dict(zip(strict[3::2], strict[4::2], strict=True))
    assert options == {
        "--baseline": "results/baseline",
        "--candidate": "results/regression_digits",
        "--markdown": f"{REPORTS}/regression.md",
        "--junit": f"{REPORTS}/regression.xml",
    }
    assert "\nregression: env\n" in (REPOSITORY / "Makefile").read_text()
    assert any(f"{REPORTS}/regression.md" in command for command in commands)
    [upload] = [step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", "")]
    assert {f"{REPORTS}/regression.md", f"{REPORTS}/regression.xml"} <= set(upload.split())
    # The CI file must not start by itself.
    assert not (REPOSITORY / ".github/workflows/regression.yml").exists()
