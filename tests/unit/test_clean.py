"""`make clean` removes what the jobs of an experiment wrote, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.data import manifest
from hafabench.errors import UserError
from hafabench.runs.experiment_file import store_experiment_file
from hafabench.runs.jobs import JobList
from tools.checkout import REPOSITORY
from tools.clean import clean

RUN = "classification/a_model_of_an_earlier_version/seed12"
USER = [
    "notes.txt",
    f"{RUN}/plot.png",
    f"{RUN}/outputs/notes.txt",
    f"{RUN}/work/mine.pth",
    f"{RUN}/.checkpoint.pth.tmp",
    "imported/evaluate/classification/pvt_tiny/seed0-aaaaaaaa.json",
    "latency/mine/deep.json",
]
OWN = [
    *(f"{RUN}/{name}" for name in ("work/state.pth", "work/state.json", "work/checkpoint.pth", "lease-3.json")),
    *(f"{RUN}/{name}" for name in ("config.json", "history.jsonl", "predictions.npz", ".lease-3.x.tmp")),
    *(f"{RUN}/outputs/{name}" for name in ("1.png", "detections.bbox.json")),
    *(f"{RUN}/{name}" for name in (".checkpoint.pth.99.tmp", "work/.state.pth.0123abcd.99.tmp")),
    "accounting.json",
]


@pytest.fixture
def experiment(write_experiment, tmp_path, monkeypatch):
    def small(content):
        content["datasets"]["classification"].update(root="data/mine", images={"train": 32, "val": 10})

    path = write_experiment(small)
    monkeypatch.chdir(tmp_path)
    loaded = load_experiment(Path(path.name))
    store_experiment_file(loaded)
    dataset = loaded.config.datasets["classification"]
    (dataset.root / "train").mkdir(parents=True)
    (dataset.root / "train/0.JPEG").touch()
    manifest.write_manifest(dataset.root, dataset, classes=[], scans={})
    made = [loaded.results / name for name in OWN]
    for job in JobList(loaded).values():
        made += [path for path in (*job.outputs, *job.logs) if path.is_relative_to(loaded.results)]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return loaded


def test_nothing_is_left_without_files_of_the_user(experiment, tmp_path):
    assert clean(experiment) == []
    assert sorted(path.name for path in tmp_path.iterdir() if any(path.rglob("*"))) == []
    # And nothing is missed when there is nothing.
    assert clean(experiment) == []


def test_files_of_the_user_are_kept_and_listed(experiment):
    mine = [*(experiment.results / name for name in USER), Path("data/mine/notes.txt")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert sorted(clean(experiment)) == sorted(mine)
    left = [path for folder in ("results", "data") for path in Path(folder).rglob("*") if path.is_file()]
    assert sorted(left) == sorted(mine)


def test_data_may_be_kept(experiment):
    clean(experiment, keep_data=True)
    assert Path("data/mine/manifest.json").exists()
    assert not experiment.results.exists()


def test_results_of_another_file_are_kept(experiment):
    other = Path("other.yaml")
    shutil.copyfile(experiment.file, other)
    other.write_text(other.read_text().replace("title: ", "title: Another, "))
    before = sorted(experiment.results.rglob("*"))
    with pytest.raises(UserError, match="belongs to"):
        clean(load_experiment(other))
    assert sorted(experiment.results.rglob("*")) == before


def test_the_makefile_removes_no_folder_by_itself():
    assert "rm -r" not in (REPOSITORY / "Makefile").read_text()
