"""The commit that a record names, and what that commit does not describe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hafabench import __version__
from hafabench.config.site import SITE_VARIABLE
from hafabench.reporting.provenance import commit_text
from hafabench.results.provenance import Stopwatch, code_state, package_versions
from tools.checkout import REPOSITORY

FILES = (
    "src/hafabench/__init__.py",
    "workflow/rules/train.smk",
    "Snakefile",
    "configs/digits.yaml",
    "configs/site.yaml",
    "workflow/profiles/slurm/config.yaml",
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
    expected = {
        "git_commit": git(checkout, "rev-parse", "HEAD"),
        "git_dirty": False,
        "git_changes": [],
        "experiment_tracked": True,
    }
    for name in ("configs/digits.yaml", FILES[-1]):
        assert code_state(checkout, checkout / name) == expected


@pytest.mark.parametrize("name", FILES[4:])
def test_edited_documentation_samples_tests_site_and_profiles_are_no_local_changes(checkout, name):
    (checkout / name).write_text("edited")
    for new in ("configs/another.yaml", "src/hafabench/notes.txt", "workflow/profiles/mine.smk"):
        (checkout / new).write_text("new")
    assert code_state(checkout, checkout / "configs/digits.yaml")["git_changes"] == []
    assert is_dirty(checkout) is False


def test_a_deleted_site_file_and_other_permissions_are_no_local_changes(checkout):
    (checkout / "configs/site.yaml").unlink()
    (checkout / "src/hafabench/__init__.py").chmod(0o755)
    (checkout / "Snakefile").touch()
    assert is_dirty(checkout) is False


def test_the_site_file_that_is_named_is_no_local_change(checkout, monkeypatch):
    mine = checkout / "configs/our_cluster.yaml"
    mine.write_text("account: a")
    git(checkout, "add", "--all")
    commit(checkout)
    mine.write_text("account: b")
    assert code_state(checkout, checkout / "configs/digits.yaml")["git_changes"] == ["configs/our_cluster.yaml"]
    monkeypatch.chdir(checkout / "configs")
    monkeypatch.setenv(SITE_VARIABLE, "our_cluster.yaml")
    assert is_dirty(checkout) is False


EXPERIMENT = "experiment: {name}\nseeds: [{seeds}]\ndatasets:\n  detection: {{name: coco, root: {root}}}\n"


@pytest.fixture
def experiments(checkout: Path) -> Path:
    for name in ("mine", "other"):
        (checkout / f"configs/{name}.yaml").write_text(EXPERIMENT.format(name=name, seeds=0, root="data/coco"))
    git(checkout, "add", "--all")
    commit(checkout)
    return checkout


@pytest.mark.parametrize("experiment", ["configs/mine.yaml", None])
def test_other_folders_of_data_sets_are_no_local_changes(experiments, experiment):
    """The records contain the digests of the data. The guide asks users to enter these folders."""
    edited = "# ours\n" + EXPERIMENT.format(name="mine", seeds=0, root="/scratch/coco")
    (experiments / "configs/mine.yaml").write_text(edited)
    state = code_state(experiments, experiment and experiments / experiment)
    assert (state["git_dirty"], state["git_changes"]) == (False, [])


@pytest.mark.parametrize(
    ("edited", "experiment", "changes"),
    [
        ("mine", "mine", ["configs/mine.yaml"]),
        ("other", "mine", []),
        # A training does not know its experiment file.
        ("other", None, ["configs/other.yaml"]),
    ],
)
def test_an_edited_experiment_is_a_change_of_its_own_records(experiments, edited, experiment, changes):
    file = experiments / f"configs/{edited}.yaml"
    file.write_text(EXPERIMENT.format(name=edited, seeds="0, 1", root="data/coco"))
    state = code_state(experiments, experiment and experiments / f"configs/{experiment}.yaml")
    assert (state["git_dirty"], state["git_changes"]) == (bool(changes), changes)


@pytest.mark.parametrize("text", ["experiment: [", "- a list", "experiment: mine\ndatasets: [1]", None])
def test_an_experiment_that_cannot_be_compared_is_a_change(experiments, text):
    file = experiments / "configs/mine.yaml"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert code_state(experiments, None)["git_changes"] == ["configs/mine.yaml"]


@pytest.mark.parametrize(
    ("name", "experiment"),
    [(name, "configs/digits.yaml") for name in FILES[:4]]
    + [("src/hafabench/new.py", "configs/digits.yaml"), (FILES[-1], FILES[-1])],
)
def test_edited_source_workflow_configuration_and_experiment_are_local_changes(checkout, name, experiment):
    (checkout / name).write_text("edited")
    assert is_dirty(checkout, experiment) is True
    assert code_state(checkout, checkout / experiment)["git_changes"] == [name]


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
    nothing = {"git_commit": None, "git_dirty": None, "git_changes": None, "experiment_tracked": None}
    assert code_state(installed, checkout / "configs/digits.yaml") == nothing


def commit(folder: Path) -> str:
    """Commit what is in a folder, and return the commit."""
    git(
        folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "--message", "next"
    )
    return git(folder, "rev-parse", "HEAD")


NOTHING = {"git_commit": None, "git_dirty": None, "git_changes": None, "experiment_tracked": None}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Somebody's repository of something else, with a file where the package would have one."""
    folder = tmp_path / "other"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/digits.yaml").write_text("of another project")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    commit(folder)
    return folder


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_DIR": ".git"},
        {"GIT_DIR": ".git", "GIT_WORK_TREE": ""},
        {"GIT_INDEX_FILE": ".git/index"},
        {"GIT_COMMON_DIR": ".git"},
        {"GIT_OBJECT_DIRECTORY": ".git/objects"},
        {"GIT_CEILING_DIRECTORIES": ".."},
    ],
    ids=lambda variables: "+".join(variables),
)
def test_variables_and_working_directories_of_other_repositories_change_nothing(
    checkout, other, monkeypatch, variables
):
    expected = code_state(checkout, checkout / "configs/digits.yaml")
    monkeypatch.chdir(other)
    for name, value in variables.items():
        monkeypatch.setenv(name, str((other / value).resolve()))
    assert code_state(checkout, checkout / "configs/digits.yaml") == expected
    assert expected["git_commit"] != git(other, "rev-parse", "HEAD")


def test_an_installed_package_in_somebodys_repository_has_no_commit(other):
    """Neither an ignored nor a tracked environment is a checkout."""
    package = other / ".venv/lib/python3/site-packages/hafabench/results"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    root = (package / "provenance.py").parents[3]
    assert code_state(root, other / "configs/digits.yaml") == NOTHING
    git(other, "add", "--all")
    commit(other)
    assert code_state(root, other / "configs/digits.yaml") == NOTHING


def test_a_copy_in_somebodys_repository_has_a_commit_once_it_is_committed(other):
    (other / "tools/hafabench/src/hafabench").mkdir(parents=True)
    copy = other / "tools/hafabench"
    (copy / "src/hafabench/__init__.py").write_text("")
    assert code_state(copy, None) == NOTHING
    git(other, "add", "--all")
    assert code_state(copy, None) == NOTHING, "the last commit does not contain the package"
    expected = commit(other)
    assert code_state(copy, None) == {
        "git_commit": expected,
        "git_dirty": False,
        "git_changes": [],
        "experiment_tracked": None,
    }


def test_an_experiment_outside_of_the_checkout_in_the_same_repository_is_compared(other):
    copy = other / "tools/hafabench"
    (copy / "src/hafabench").mkdir(parents=True)
    (copy / "src/hafabench/__init__.py").write_text("")
    file = other / "configs/mine.yaml"
    file.write_text(EXPERIMENT.format(name="mine", seeds=0, root="a"))
    git(other, "add", "--all")
    commit(other)
    file.write_text(EXPERIMENT.format(name="mine", seeds=0, root="b"))
    assert code_state(copy, file)["git_dirty"] is False
    file.write_text(EXPERIMENT.format(name="mine", seeds=1, root="b"))
    assert code_state(copy, file)["git_changes"] == ["../../configs/mine.yaml"]


def test_many_changes_are_named_in_part(checkout):
    for number in range(15):
        (checkout / f"src/hafabench/new_{number:02d}.py").write_text("")
    changes = code_state(checkout, None)["git_changes"]
    assert changes == [*(f"src/hafabench/new_{number:02d}.py" for number in range(10)), "and 5 more"]


def test_a_repository_without_commits_has_none(tmp_path):
    (tmp_path / "src/hafabench").mkdir(parents=True)
    (tmp_path / "src/hafabench/__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    assert code_state(tmp_path, None) == NOTHING
    git(tmp_path, "add", ".")
    assert code_state(tmp_path, None) == NOTHING


def test_worktrees_and_submodules_have_their_own_commits(checkout, other, tmp_path):
    first = git(checkout, "rev-parse", "HEAD")
    git(checkout, "worktree", "add", "--quiet", str(tmp_path / "worktree"), "-b", "branch")
    assert code_state(tmp_path / "worktree", None)["git_commit"] == first
    second = commit(tmp_path / "worktree")
    assert code_state(tmp_path / "worktree", None)["git_commit"] == second
    assert code_state(checkout, None)["git_commit"] == first
    git(other, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(checkout), "sub")
    commit(other)
    assert code_state(other / "sub", None) == {
        "git_commit": first,
        "git_dirty": False,
        "git_changes": [],
        "experiment_tracked": None,
    }
    # A submodule whose repository is lost belongs to nobody.
    (other / "sub/.git").unlink()
    assert code_state(other / "sub", None) == NOTHING


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_edits_that_git_was_told_to_ignore_are_local_changes(checkout, flag):
    git(checkout, "update-index", flag, "src/hafabench/__init__.py", "configs/digits.yaml")
    assert is_dirty(checkout) is False
    (checkout / "src/hafabench/__init__.py").write_text("edited")
    assert is_dirty(checkout) is True


def test_without_git_nothing_is_known(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert code_state(checkout, None) == NOTHING


def test_the_version_is_that_of_the_code_that_runs(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "9.9.9")
    assert package_versions()["hafabench"] == __version__
    assert package_versions()["torch"] == "9.9.9"


def test_without_a_commit_a_record_says_its_version():
    assert commit_text(None, None, None, "1.2.3") == "none, hafabench 1.2.3 (not a git checkout)"
    assert commit_text("0" * 40, False, None, "1.2.3") == "0" * 10
    assert commit_text("0" * 40, True, changes=["a.py", "b.py"]) == "0000000000 with local changes (a.py, b.py)"
    assert commit_text(None, None) is None


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout")
def test_the_commit_is_that_at_the_start(monkeypatch):
    watch = Stopwatch()
    monkeypatch.setattr("hafabench.results.provenance._CHECKOUT", Path("/nowhere"))
    assert watch.provenance(device="cpu", threads=1).git_commit == git(REPOSITORY, "rev-parse", "HEAD")
