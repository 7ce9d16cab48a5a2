"""Results belong to one experiment file; a second one of the same name is refused before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.runs.experiment_file import check_experiment_file, store_experiment_file

STORED = Path("results/digits/experiment.json")


@pytest.fixture
def first(write_experiment, monkeypatch, tmp_path) -> Path:
    """An experiment file relative to the working directory, which has results."""
    path = write_experiment()
    monkeypatch.chdir(tmp_path)
    path = Path(os.path.relpath(path))
    store_experiment_file(load_experiment(path))
    return path


def edit(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return path


def copied(path: Path, name: str, **changes) -> Path:
    other = path.with_name(name)
    shutil.copyfile(path, other)
    return edit(other, **changes) if changes else other


def stored_file() -> str:
    return json.loads(STORED.read_text())["file"]


def accept(path: Path) -> None:
    check_experiment_file(load_experiment(path))
    store_experiment_file(load_experiment(path))


def test_a_second_file_of_the_same_name_is_refused_naming_both(first):
    other = copied(first, "other.yaml", seeds=[5])
    before = STORED.read_bytes()
    for refuse in (check_experiment_file, store_experiment_file):
        with pytest.raises(UserError) as caught:
            refuse(load_experiment(other))
        (problem,) = caught.value.problems
        assert problem.file == str(other)
        assert f"results/digits belongs to {first}, another experiment of the same name 'digits'" in str(problem)
        assert f"move or delete {first}, or delete {STORED}" in str(problem)
    assert STORED.read_bytes() == before
    # Every way out that the message names.
    edit(other, experiment="digits_5")
    accept(other)
    edit(other, experiment="digits")
    STORED.unlink()
    accept(other)
    assert stored_file() == str(other)


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["runs"],
        ["plan"],
        ["train", "classification/pvt_tiny/seed5"],
        ["data", "prepare", "classification"],
        ["collect", "--partial"],
        ["report"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_refuses_it_before_it_writes(first, command):
    other = copied(first, "other.yaml", seeds=[5])
    option = [str(other)] if command == ["plan"] else ["--experiment", str(other)]
    done = CliRunner().invoke(cli, [*command, *option])
    assert done.exit_code == 1, done.output
    assert "another experiment of the same name" in str(done.exception)
    assert not Path("data").exists() and [path.name for path in Path("results").rglob("*.*")] == [STORED.name]


def test_an_edited_moved_copied_or_linked_file_is_the_same_experiment(first):
    edit(first, seeds=[5], title="Edited")
    accept(first)
    link = first.with_name("link.yaml")
    link.symlink_to(first.absolute())
    accept(link)
    accept(first.absolute())
    accept(copied(first, "copy.yaml"))
    assert stored_file() == str(first)
    moved = first.rename(first.with_name("moved.yaml"))
    link.unlink()
    edit(moved, seeds=[6])
    accept(moved)
    assert stored_file() == str(moved)


def test_a_file_whose_name_was_changed_gives_its_results_away(first):
    other = copied(first, "other.yaml", seeds=[5])
    edit(first, experiment="digits_before")
    accept(other)
    assert stored_file() == str(other)
    with pytest.raises(UserError, match=f"results/digits belongs to {other}"):
        accept(edit(first, experiment="digits"))


def test_a_file_with_errors_keeps_its_results(first):
    other = copied(first, "other.yaml")
    edit(first, seeds="none")
    with pytest.raises(UserError, match=f"belongs to {first}"):
        accept(other)


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", "[]", "{}", '{"schema": "hafabench.experiment_file/1", "file": 3}', '{"file": "other"}'],
)
def test_a_damaged_file_decides_nothing(first, content):
    STORED.write_text(content)
    accept(copied(first, "other.yaml", seeds=[5]))


@pytest.mark.parametrize(
    ("root", "seed", "is_refused"),
    [
        ("data/digits/imagenet", 0, False),
        ("data/digits/imagenet", 5, True),
        ("link/digits/imagenet", 5, True),
        ("data/digits/imagenet/inside", 0, True),
        ("data/digits", 0, True),
        ("data/mine", 5, False),
    ],
)
def test_two_experiments_do_not_replace_the_data_of_each_other(first, tmp_path, root, seed, is_refused):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    datasets = yaml.safe_load(first.read_text())["datasets"]
    datasets = {"classification": {**datasets["classification"], "root": str(tmp_path / root)}}
    datasets["classification"]["generator"]["seed"] = seed
    train = {"classification": ["resnet18"]}
    overrides = [
        entry for entry in yaml.safe_load(first.read_text())["overrides"] if "classification/*" in entry["runs"]
    ]
    names = {"experiment": "others", "datasets": datasets, "train": train, "overrides": overrides}
    other = copied(first, "other.yaml", **names)
    done = CliRunner().invoke(cli, ["check", "--experiment", str(other)])
    assert done.exit_code == is_refused, (done.output, done.exception)
    if is_refused:
        done = CliRunner().invoke(cli, ["data", "prepare", "classification", "--experiment", str(other)])
        assert "datasets.classification.root" in str(done.exception)
        assert f"of {first} is data/digits/imagenet; expected another folder" in str(done.exception)
        assert not list((tmp_path / "data").iterdir())
    # A file that is gone or has another name has no data any more.
    edit(first, experiment="renamed")
    assert CliRunner().invoke(cli, ["check", "--experiment", str(other)]).exit_code == 0


def test_other_recipes_are_another_experiment(first):
    recipes = Path(yaml.safe_load(first.read_text())["recipes"])
    shutil.copytree(recipes, "elsewhere")
    other = copied(first, "other.yaml", recipes="elsewhere")
    accept(other)
    recipe = Path("elsewhere/classification.yaml")
    recipe.write_text(recipe.read_text().replace("mixup: {value: 0.8", "mixup: {value: 0.4", 1))
    with pytest.raises(UserError, match="another experiment of the same name"):
        accept(other)
