"""A complete workflow in a checkout whose path, experiment file and data have names with special characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.experiments import EXAMPLE, shrink
from tests.support.snakemake_dag import snakemake_dag
from tools.checkout import BIN, REPOSITORY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout"),
]
NAME = 'it\'s a "{task}" $HOME; 100% é $(touch x) `touch x` & touch x'
# Every character with a meaning for a shell or for Snakemake. The commands would leave files behind.
HOSTILE = {
    "all": "-a $(touch x1) `touch x2` & touch x3; touch x4 | touch x5 > x6 {task} {log:q} '\"\\ *?[a-z]~ #!.yaml",
    "quotes and newline": "'; touch x1; '\n\"; touch x2; \"\ttouch x3\n.yaml",
    "option": "--help.yaml",
}
STUB = """#!/bin/sh
{ printf '%s\\0' "$0" "$@"; printf '\\n\\0'; } >> "$SAID"
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A commit of this checkout's tracked files, without samples, in a folder with a special name."""
    folder = tmp_path / f"checkout {NAME}"
    for name in git(REPOSITORY, "ls-files", "-z").split("\0")[:-1]:
        source, target = REPOSITORY / name, folder / name
        if not name.startswith("docs/samples/") and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "copy")
    return folder


def stub(folder: Path) -> Path:
    """A folder with a hafabench that writes its command lines into the file ``$SAID`` and does nothing else."""
    folder.mkdir()
    (folder / "hafabench").write_text(STUB)
    (folder / "hafabench").chmod(0o755)
    return folder


@pytest.mark.parametrize("in_slurm", [False, True], ids=["local", "slurm"])
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_shell_commands_of_every_rule_pass_paths_on(name, in_slurm, tmp_path, monkeypatch, write_experiment):
    monkeypatch.chdir(tmp_path)
    experiment = write_experiment().rename(tmp_path / name)
    dag = snakemake_dag(tmp_path, experiment, "all", "regression")
    jobs = {one["rule"]: one for one in dag if one["shell"]}
    before = {path.name for path in tmp_path.iterdir()}
    said = tmp_path / "said"
    environment = {"PATH": f"{stub(tmp_path / 'bin')}:{os.environ['PATH']}", "SAID": str(said)}
    environment |= {"SLURM_JOB_ID": "1"} if in_slurm else {}
    for job in jobs.values():
        for log in job["log"]:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["bash", "-c", job["shell"]], env=environment, stdin=subprocess.DEVNULL, check=True)
    assert {path.name for path in tmp_path.iterdir()} - before <= {"bin", "said", "results", "reports"}
    lines = [line.split("\0")[:-1] for line in said.read_text().split("\n\0")[:-1]]
    assert len(lines) == len(jobs) == 10
    for (rule, job), words in zip(jobs.items(), lines, strict=True):
        assert words[0] == str(tmp_path / "bin/hafabench")
        if rule != "regression":
            path = words[words.index("--experiment") + 1]
            assert not path.startswith("-")
            assert experiment.samefile(path)
        assert all(Path(log).is_file() for log in job["log"] if rule != "regression")


def test_every_rule_works_and_the_checkout_stays_clean(checkout, tmp_path):
    content = yaml.safe_load(EXAMPLE.read_text())
    shrink(content)
    content["train"] = {"classification": ["pvt_tiny_hafa"]}
    content["overrides"] = [entry for entry in content["overrides"] if entry["runs"].startswith("classification")]
    for key, name in (("tables", "tables.yaml"), ("paper_values", "paper_values.csv"), ("claims", "claims.yaml")):
        content[key] = f"../checkout {NAME}/configs/{name}".replace("$", "$$")
    root = tmp_path / f"data {NAME}/imagenet"
    content["datasets"]["classification"]["root"] = str(root).replace("$", "$$")
    experiment = tmp_path / f"experiments {NAME}" / f"mine {NAME}.yaml"
    experiment.parent.mkdir()
    experiment.write_text(yaml.safe_dump(content, sort_keys=False))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    environment |= {"PYTHONPATH": str(checkout / "src"), "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]])}
    command = [sys.executable, "-m", "snakemake", "all", "--profile", "workflow/profiles/local"]
    command += ["--configfile", str(experiment)]
    for expected in ("] write the tables and the report", "Nothing to be done"):
        done = subprocess.run(
            command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout[-6000:]
        assert expected in done.stdout
    assert len([path for path in (root / "train").rglob("*") if path.is_file()]) == 20
    record = json.loads((checkout / "results/digits/classification/pvt_tiny_hafa/seed0/evaluate.json").read_text())
    provenance = record["provenance"]
    assert provenance["git_commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert (provenance["git_dirty"], provenance["experiment_tracked"]) == (False, False)
    assert (checkout / "reports/digits/report.html").is_file()
    assert git(checkout, "status", "--porcelain") == ""
    assert not list(checkout.rglob("x"))
