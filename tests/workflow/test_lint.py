"""`snakemake --lint` finds nothing except what a comment in the Snakefile answers."""

from __future__ import annotations

import re

from hafabench.config.experiment import load_experiment
from hafabench.runs.jobs import JobList
from tools.checkout import REPOSITORY, snakemake

ENVIRONMENT = "Specify a conda environment or container for each rule."
LOG = "No log directive defined"
PATH = re.compile(r"Environment variable PATH used but not asserted with envvars directive in line \d+\.")


def test_lint_finds_only_what_a_comment_answers(tmp_path):
    experiment = REPOSITORY / "configs/digits.yaml"
    output = snakemake(tmp_path, experiment, "--lint").stdout
    found = [title for title in re.findall(r"^ {4}\* (.+?):?$", output, re.MULTILINE) if not PATH.fullmatch(title)]
    # Once for each rule, which also shows that the linter ran.
    environments = [ENVIRONMENT] * len(JobList(load_experiment(experiment)).rules)
    assert sorted(found) == sorted([*environments, LOG, LOG]), output
