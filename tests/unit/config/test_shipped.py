"""An experiment file may be stored anywhere and used from any folder: the files that it does not name are shipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.config.shipped import own_or_shipped, shipped_folder
from hafabench.config.site import SITE_VARIABLE, load_site, site_file
from hafabench.errors import UserError
from hafabench.runs.estimates import Throughput
from hafabench.runs.jobs import JobList
from hafabench.runs.run import expand
from tools.checkout import REPOSITORY

CONFIGS = REPOSITORY / "configs"
NAMES = ("results", "mine é", "a folder with 'quotes'")


def own_experiment(folder: Path, **changes) -> Path:
    """Write the embedded experiment, which names none of the other files, into a folder that contains only it."""
    content = yaml.safe_load((CONFIGS / "digits.yaml").read_text()) | {"experiment": "mine"} | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    return folder / "mine.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_elsewhere_uses_the_shipped_files(tmp_path, monkeypatch, name):
    file = own_experiment(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SITE_VARIABLE, raising=False)
    experiment = load_experiment(file.relative_to(tmp_path))
    shipped = load_experiment(CONFIGS / "digits.yaml")
    assert experiment.tables_file == CONFIGS / "tables.yaml"
    assert experiment.paper_values == CONFIGS / "paper_values.csv"
    assert experiment.claims_file == CONFIGS / "claims.yaml"
    assert experiment.recipes == shipped.recipes
    assert Throughput(experiment).rates == Throughput(shipped).rates
    assert {run.fingerprint for run in expand(experiment).values()} == {
        run.fingerprint for run in expand(shipped).values()
    }
    assert site_file() == CONFIGS / "site.yaml"
    command = JobList(experiment, load_site(site_file())).rules["regression"].command
    assert str(CONFIGS / "regression.yaml") in command


def test_shipped_paths_are_relative_in_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    assert shipped_folder() == Path("configs")
    assert load_experiment(own_experiment(tmp_path)).tables_file == Path("configs/tables.yaml")


def test_files_beside_the_experiment_come_first(tmp_path):
    file = own_experiment(tmp_path)
    (tmp_path / "recipes").mkdir()
    recipe = (CONFIGS / "recipes/segmentation.yaml").read_text().replace("value: 40000", "value: 41000")
    (tmp_path / "recipes/segmentation.yaml").write_text(recipe)
    shutil.copy(CONFIGS / "tables.yaml", tmp_path)
    rates = (CONFIGS / "throughput.yaml").read_text()
    (tmp_path / "throughput.yaml").write_text(rates.replace("NVIDIA RTX 3090", "NVIDIA Own"))
    experiment = load_experiment(file)
    assert experiment.recipes["segmentation"].defaults["iterations"].value == 41000
    assert experiment.recipes["detection"] == load_experiment(CONFIGS / "digits.yaml").recipes["detection"]
    assert experiment.tables_file == tmp_path / "tables.yaml"
    assert experiment.claims_file.resolve() == CONFIGS / "claims.yaml"
    assert Throughput(experiment).rates.gpu.value == "NVIDIA Own"


@pytest.mark.parametrize(
    ("key", "value", "missing"),
    [
        ("recipes", "own", "own/classification.yaml"),
        ("recipes", "recipes", "recipes/detection.yaml"),
        ("tables", "tables.yaml", "tables.yaml"),
        ("claims", "../claims.yaml", "claims.yaml"),
        ("paper_values", "paper_values.csv", "paper_values.csv"),
    ],
)
def test_a_file_that_the_experiment_names_is_never_replaced(tmp_path, key, value, missing):
    with pytest.raises(UserError, match=f"{missing}.*no such file|no such file.*{missing}"):
        load_experiment(own_experiment(tmp_path / "here", **{key: value}))


def test_files_that_the_experiment_names_are_relative_to_it(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "files")
    file = own_experiment(tmp_path / "here", recipes="../files/recipes", tables="../files/tables.yaml")
    monkeypatch.chdir(REPOSITORY)
    experiment = load_experiment(file)
    assert experiment.tables_file == tmp_path / "here/../files/tables.yaml"
    assert experiment.companion("throughput.yaml") == tmp_path / "here/../files/throughput.yaml"


@pytest.mark.parametrize("arguments", [[], ["--experiment", "digits"], ["--experiment", "paper"]])
def test_commands_find_shipped_experiments_from_any_folder(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    # A folder with the name of an experiment is not the experiment.
    (tmp_path / "digits").mkdir()
    done = CliRunner().invoke(cli, ["check", "--no-data", *arguments])
    assert done.exit_code == 0, done.output
    assert f"configs/{arguments[-1] if arguments else 'digits'}.yaml: " in done.output


def test_an_own_experiment_has_precedence_over_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_experiment(tmp_path).rename(tmp_path / "other.yaml")
    (tmp_path / "configs").mkdir()
    (tmp_path / "other.yaml").rename(tmp_path / "configs/digits.yaml")
    assert own_or_shipped(Path("configs"), "digits.yaml") == Path("configs/digits.yaml")
    done = CliRunner().invoke(cli, ["check", "--no-data"])
    assert done.output.startswith("configs/digits.yaml: ")


@pytest.mark.slow
def test_a_wheel_contains_the_shipped_files(tmp_path):
    for name in ("src", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        source, target = REPOSITORY / name, tmp_path / "project" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    build = [sys.executable, "-m", "pip", "wheel", ".", "-q", "--no-deps", "--no-build-isolation", "-w", "../wheel"]
    subprocess.run(build, cwd=tmp_path / "project", check=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert (tmp_path / "site/hafabench/data/ade20k_classes.txt").is_file()
    shutil.rmtree(tmp_path / "project")
    file = own_experiment(tmp_path / "work")
    for arguments in ([], ["--experiment", file.name]):
        check = [sys.executable, "-m", "hafabench", "check", "--no-data", *arguments]
        done = subprocess.run(
            check, cwd=file.parent, env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "no problems found" in done.stdout
