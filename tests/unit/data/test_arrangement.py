"""Data sets that are arranged in another way are recognised before any job."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import DatasetConfig
from hafabench.data.arrangement import arrangement_problems
from hafabench.data.verify import verify_dataset
from hafabench.errors import UserError
from tests.support.messages import missing_facts

IMAGENET = ["train/a/1.JPEG", "train/a/2.JPEG", "train/b/1.JPEG", "train/b/2.JPEG", "val/a/1.JPEG", "val/b/1.JPEG"]
ADE20K = [
    f"{kind}/{split}/{name}.{suffix}"
    for split, names in (("training", "wxyz"), ("validation", "ab"))
    for kind, suffix in (("images", "jpg"), ("annotations", "png"))
    for name in names
]
COCO = [f"train2017/{name}.jpg" for name in "wxyz"] + [f"val2017/{name}.jpg" for name in "ab"]
COCO += [f"annotations/instances_{split}2017.json" for split in ("train", "val")]


def dataset(data_format: str, root: Path) -> DatasetConfig:
    return DatasetConfig(
        name="tiny", data_format=data_format, root=root, num_classes=2, images={"train": 4, "val": 2}
    )


def make(root: Path, files: list[str]) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def moved(files: list[str], before: str, after: str) -> list[str]:
    return [after + name.removeprefix(before) if name.startswith(before) else name for name in files]


@pytest.mark.parametrize(("data_format", "files"), [("imagenet", IMAGENET), ("ade20k", ADE20K), ("coco", COCO)])
def test_the_right_arrangement_has_no_problem(tmp_path, data_format, files):
    make(tmp_path, files)
    assert arrangement_problems(dataset(data_format, tmp_path)) == []


@pytest.mark.parametrize(
    ("data_format", "files", "facts"),
    [
        # As downloaded: all validation images in one folder.
        (
            "imagenet",
            [*IMAGENET[:4], "val/x_1.JPEG", "val/x_2.JPEG"],
            ("val: validation images", "not sorted", "sort-"),
        ),
        ("imagenet", ["train/1.jpg", *IMAGENET[4:]], ("train: training images", "not sorted into class folders")),
        ("imagenet", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"], ("these are tar files", "unpack")),
        ("imagenet", ["train/n01.tar", "train/n02.tar", *IMAGENET[4:]], ("train: these are tar files", "n01.tar")),
        ("imagenet", ["train/a/a.tar", *IMAGENET[2:]], ("train/a: these are tar files",)),
        ("imagenet", ["data/train-00000.parquet", "x.parquet"], ("many images each", "x.parquet")),
        ("imagenet", ["train.lmdb", "val.lmdb"], ("many images each", "train.lmdb, val.lmdb")),
        ("imagenet", moved(IMAGENET, "val/", "validation/"), ("validation: expected this folder as val",)),
        ("imagenet", [f"train/{name}" for name in IMAGENET], ("the data set is in ", "/train; set root")),
        ("imagenet", [f"ILSVRC/Data/CLS-LOC/{name}" for name in IMAGENET], ("ILSVRC/Data/CLS-LOC; set root",)),
        ("imagenet", moved(IMAGENET, "train/", "train/train/"), ("train: the class folders are one folder deeper",)),
        ("imagenet", moved(IMAGENET, "train/a/", "train/a/images/"), ("train/a: the images are one folder deeper",)),
        ("imagenet", [*IMAGENET, "train/c/1.JPEG"], ("train: expected 2 class folders, found 3",)),
        (
            "imagenet",
            [*IMAGENET[4:], *(f"val/a/{n}.jpg" for n in range(9)), *(f"train/{c}/1.jpg" for c in "ab")],
            ("exchanged",),
        ),
        ("ade20k", ["ADEChallengeData2016.zip"], ("these are archives", "ADEChallengeData2016.zip")),
        ("ade20k", [f"ADEChallengeData2016/{name}" for name in ADE20K], ("ADEChallengeData2016; set root",)),
        ("ade20k", moved(ADE20K, "images/training/", "images/training/x/"), ("images/training: the images are one",)),
        ("ade20k", moved(ADE20K, "images/training/", "images/train/"), ("images/train: expected this folder as im",)),
        ("coco", ["train2017.zip", "val2017.zip", *COCO[6:]], ("these are archives", "train2017.zip, val2017.zip")),
        ("coco", moved(COCO, "val2017/", "images/val2017/"), ("images/val2017: expected this folder as val2017",)),
        ("coco", [*COCO[:2], *(f"val2017/{name}.jpg" for name in "abcde"), *COCO[6:]], ("exchanged", "2 and 5")),
    ],
)
def test_other_arrangements_are_recognised(tmp_path, data_format, files, facts):
    make(tmp_path, files)
    found = "\n".join(map(str, arrangement_problems(dataset(data_format, tmp_path))))
    assert missing_facts(found, *facts) == [], found
    with pytest.raises(UserError) as refused:
        verify_dataset(dataset(data_format, tmp_path))
    assert missing_facts(str(refused.value), *facts) == []


def test_a_root_below_the_data_set_is_recognised(tmp_path):
    make(tmp_path, IMAGENET)
    (problem,) = arrangement_problems(dataset("imagenet", tmp_path / "train"))
    assert problem.message == f"the data set is in {tmp_path}; set root to this folder"


def test_check_names_what_is_arranged_in_another_way(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "imagenet", [*IMAGENET[:4], "val/x_1.JPEG"])

    def real(content):
        content["datasets"]["classification"] |= {"root": str(tmp_path / "imagenet"), "generator": None}

    done = CliRunner().invoke(cli, ["check", "-e", str(write_experiment(real))])
    assert done.exit_code == 1
    assert "validation images are not sorted into class folders, for example x_1.JPEG" in str(done.exception)
