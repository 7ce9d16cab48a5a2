"""The commit that a record names, and what that commit does not describe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hafabench.results.provenance import Stopwatch, code_state
from tools.checkout import REPOSITORY

FILES = (
    "src/hafabench/__init__.py",
    "workflow/rules/train.smk",
    "Snakefile",
    "configs/digits.yaml",
    "configs/site.yaml",
    "docs/samples/digits/report/tables.md",
    "README.md",
    "tests/test_a.py",
    "my experiments/[own] 'é'.yaml",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "check out"
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("committed")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "first")
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def is_dirty(checkout: Path, experiment: str = "configs/digits.yaml") -> bool | None:
    return code_state(checkout, checkout / experiment)["git_dirty"]


def test_a_clean_checkout_is_its_commit(checkout):
    expected = {"git_commit": git(checkout, "rev-parse", "HEAD"), "git_dirty": False, "experiment_tracked": True}
    for name in ("configs/digits.yaml", FILES[-1]):
        assert code_state(checkout, checkout / name) == expected


@pytest.mark.parametrize("name", ["configs/site.yaml", FILES[5], "README.md", "tests/test_a.py", FILES[-1]])
def test_edited_documentation_samples_tests_site_and_other_experiments_are_no_local_changes(checkout, name):
    (checkout / name).write_text("edited")
    (checkout / "configs/another.yaml").write_text("new")
    assert is_dirty(checkout) is False


@pytest.mark.parametrize(
    ("name", "experiment"),
    [(name, "configs/digits.yaml") for name in FILES[:4]]
    + [("src/hafabench/new.py", "configs/digits.yaml"), (FILES[-1], FILES[-1])],
)
def test_edited_source_workflow_configuration_and_experiment_are_local_changes(checkout, name, experiment):
    (checkout / name).write_text("edited")
    assert is_dirty(checkout, experiment) is True


def test_an_experiment_file_that_git_does_not_track_is_told(checkout, tmp_path):
    outside = tmp_path / "elsewhere.yaml"
    untracked = checkout / "configs/untracked.yaml"
    link = checkout / "configs/link.yaml"
    link.symlink_to(outside)
    for path in (outside, untracked):
        path.write_text("new")
    git(checkout, "add", "configs/link.yaml")
    git(checkout, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "link")
    for path in (outside, untracked, link):
        state = code_state(checkout, path)
        assert (state["git_dirty"], state["experiment_tracked"]) == (False, False), path
    assert code_state(checkout, None)["experiment_tracked"] is None


def test_a_package_inside_the_checkout_of_something_else_has_no_commit(checkout):
    installed = checkout / ".venv/lib/python3/site-packages"
    (installed / "src/hafabench").mkdir(parents=True)
    (installed / "src/hafabench/__init__.py").write_text("")
    nothing = {"git_commit": None, "git_dirty": None, "experiment_tracked": None}
    assert code_state(installed, checkout / "configs/digits.yaml") == nothing


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout")
def test_the_commit_is_that_at_the_start(monkeypatch):
    watch = Stopwatch()
    monkeypatch.setattr("hafabench.results.provenance._CHECKOUT", Path("/nowhere"))
    assert watch.provenance(device="cpu", threads=1).git_commit == git(REPOSITORY, "rev-parse", "HEAD")
