"""Data that is not the data that was made or verified is refused before anything is computed from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from hafabench.config.experiment import DatasetConfig
from hafabench.data import manifest, paths
from hafabench.data.digits import make_digits
from hafabench.data.prepare import prepare_dataset
from hafabench.data.preview import draw_preview
from hafabench.data.report import compared_digest, data_findings, dataset_digest, read_report
from hafabench.errors import UserError
from hafabench.pictures import inference
from tools.tiny_runs.classification import make_images

FORMATS = ("imagenet", "coco", "ade20k")


def digits(root: Path, data_format: str = "imagenet", **generator) -> DatasetConfig:
    many = 10 if data_format == "imagenet" else 2
    return DatasetConfig.model_validate(
        {
            "name": "digits",
            "format": data_format,
            "root": root,
            "num_classes": 11 if data_format == "ade20k" else 10,
            "images": {"train": many, "val": many},
            "generator": {"kind": "digits", "image_size": 32, "max_objects": 2, **generator},
        }
    )


@pytest.fixture
def made(tmp_path) -> DatasetConfig:
    dataset = digits(tmp_path / "digits")
    make_digits(dataset)
    return dataset


def first_file(dataset: DatasetConfig, split: str = "val") -> Path:
    return sorted((dataset.root / split).rglob("*.JPEG"))[0]


def remake(dataset: DatasetConfig) -> None:
    """Make the data of another experiment, which uses the same folder with another seed."""
    make_digits(digits(dataset.root, seed=1))


@pytest.mark.parametrize("split", paths.SPLITS)
@pytest.mark.parametrize("reported", [True, False], ids=["verified", "no report"])
def test_data_that_another_experiment_made_is_refused(made, tmp_path, split, reported):
    report = tmp_path / "classification.json"
    if reported:
        prepare_dataset(made, report)
    compared_digest(made, split, report)
    remake(made)
    message = r"manifest\.json: parameters\.generator\.seed: .*expected 0, found 1; .*need different roots"
    with pytest.raises(UserError, match=message):
        compared_digest(made, split, report)
    with pytest.raises(UserError, match=message):
        compared_digest(made, split, None)
    with pytest.raises(UserError, match=message):
        draw_preview(made, tmp_path / "preview.png")
    (finding,) = data_findings(made, report)
    assert (finding.link, finding.key) == ("data", "parameters.generator.seed")
    assert not (tmp_path / "preview.png").exists()


def test_pictures_are_not_drawn_of_other_data(made):
    remake(made)
    run = SimpleNamespace(dataset=made, dataset_report=None)
    with pytest.raises(UserError, match="made with other parameters"):
        inference.classify_images(run, 1)
    with pytest.raises(UserError, match="made with other parameters"):
        inference.segment_images([run], 1)


def exchange(file: Path) -> None:
    image = Image.open(file)
    Image.new("RGB", image.size, (9, 9, 9)).save(file)


def same_size(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def add(file: Path) -> None:
    file.with_name("another.JPEG").write_bytes(file.read_bytes())


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "exchanged": (exchange, r"val_00000\.JPEG: files changed since they were made: this one was changed"),
    "flipped": (same_size, r"val_00000\.JPEG: files changed since they were made: this one was changed"),
    "added": (add, r"another\.JPEG: files changed since they were made: this one was added"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_file_of_generated_data_that_changed_is_named(made, kind):
    change, message = FAULTS[kind]
    change(first_file(made))
    with pytest.raises(UserError, match=message):
        compared_digest(made, "val", None)
    # The other split is still the one that was made.
    compared_digest(made, "train", None)
    (finding,) = data_findings(made, made.root / "no report")
    assert finding.link == "data"


def test_a_removed_file_of_generated_data_is_named(made):
    first_file(made).unlink()
    (finding,) = data_findings(made, made.root / "no report")
    assert finding.file.endswith("val_00000.JPEG") and "this one was removed" in finding.says


def test_an_edited_digest_in_the_report_is_found(made, tmp_path):
    report = tmp_path / "classification.json"
    prepare_dataset(made, report)
    assert data_findings(made, report) == []
    report.write_text(json.dumps({**json.loads(report.read_text()), "digest": "0" * 64}))
    (finding,) = data_findings(made, report)
    assert (finding.link, finding.file, finding.key) == ("data", str(report), "digest")
    assert "000000000000 in this report" in finding.says and "`hafabench data prepare classification`" in finding.says


@pytest.mark.parametrize("data_format", FORMATS)
def test_manifests_of_earlier_versions_are_compared_as_a_whole(tmp_path, data_format):
    dataset = digits(tmp_path / "data", data_format)
    make_digits(dataset)
    file = dataset.root / manifest.NAME
    content = json.loads(file.read_text())
    assert set(content["sha256"]) == {
        path.relative_to(dataset.root).as_posix() for path in dataset.root.rglob("*") if path.is_file()
    } - {manifest.NAME}
    del content["sha256"]
    file.write_text(json.dumps(content))
    compared_digest(dataset, "val", None)
    assert data_findings(dataset, tmp_path / "none.json") == []
    same_size(sorted(path for path in dataset.root.rglob("*") if path.suffix in {".JPEG", ".jpg"})[0])
    with pytest.raises(UserError, match=r"manifest\.json: digest: files changed since they were made"):
        compared_digest(dataset, "train", None)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": "other/1"}'], ids=["none", "cut", "list", "other"])
def test_generated_data_without_a_manifest_is_refused(made, content):
    file = made.root / manifest.NAME
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: no manifest that can be read; `hafabench data prepare`"):
        compared_digest(made, "val", None)


@pytest.mark.parametrize("parameters", [None, [], {}, {"layout": "coco"}], ids=["none", "list", "empty", "part"])
def test_manifests_with_other_parameters_are_refused(made, parameters):
    file = made.root / manifest.NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), "parameters": parameters}))
    with pytest.raises(UserError, match="made with other parameters than configured"):
        compared_digest(made, "val", None)


def test_the_digest_of_another_configuration_is_not_recorded(made, tmp_path):
    experiment = SimpleNamespace(results=tmp_path, config=SimpleNamespace(datasets={"classification": made}))
    report = tmp_path / "data/classification.json"
    assert dataset_digest(experiment, "classification") is None
    digest = prepare_dataset(made, report).digest
    assert dataset_digest(experiment, "classification") == digest
    experiment.config.datasets["classification"] = digits(made.root, seed=1)
    assert dataset_digest(experiment, "classification") is None


@pytest.fixture
def real(tmp_path) -> DatasetConfig:
    make_images(tmp_path / "images")
    return DatasetConfig(
        name="real",
        data_format="imagenet",
        root=tmp_path / "images",
        num_classes=3,
        images={"train": 24, "val": 24},
    )


@pytest.mark.parametrize("split", paths.SPLITS)
def test_an_image_that_was_exchanged_for_one_of_the_same_size_is_found(real, tmp_path, split):
    report = tmp_path / "classification.json"
    assert data_findings(real, report) is None
    prepare_dataset(real, report)
    assert data_findings(real, report) == []
    file = real.root / split / "class1/3.png"
    same_size(file)
    os.utime(file, (2e9, 2e9))
    # Training and evaluation compare names and sizes only.
    compared_digest(real, split, report)
    (finding,) = data_findings(real, report)
    assert finding.link == "data" and str(file) in finding.says and "data prepare classification" in finding.says


def test_a_large_data_set_is_read_completely_on_request_only(real, tmp_path, monkeypatch):
    monkeypatch.setattr("hafabench.data.verify.dataset.READ_AT_MOST", 1)
    report = tmp_path / "classification.json"
    assert prepare_dataset(real, report).contents == {}
    os.utime(report, (1e9, 1e9))
    contents = prepare_dataset(real, report, contents=True).contents
    assert set(contents) == set(paths.SPLITS)
    assert prepare_dataset(real, report).contents == contents
    assert report.stat().st_mtime == 1e9, "the data is the same"
    same_size(real.root / "train/class0/0.png")
    assert len(data_findings(real, report)) == 1
    assert prepare_dataset(real, report, contents=True).contents != contents
    assert report.stat().st_mtime != 1e9
    assert data_findings(real, report) == []
    assert read_report(report).listings != contents


def test_findings_about_a_report(real, tmp_path):
    report = tmp_path / "classification.json"
    prepare_dataset(real, report)
    other = real.model_copy(update={"num_classes": 4})
    (finding,) = data_findings(other, report)
    assert (finding.key, finding.file) == ("identity", str(report))
    (real.root / "val/class0/0.png").unlink()
    (finding,) = data_findings(real, report)
    assert "24 images were verified, and there are 23 now" in finding.says
    report.write_text("{")
    (finding,) = data_findings(real, report)
    assert finding.file == str(report)
    assert data_findings(real.model_copy(update={"root": tmp_path / "none"}), report) is None
