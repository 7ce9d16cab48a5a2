"""Verification of data sets: a description of valid data, and all problems of invalid data at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hafabench.config.experiment import DatasetConfig
from hafabench.data import manifest, paths
from hafabench.data.classes import class_palette, coco_classes, imagenet_classes, segmentation_classes
from hafabench.data.digits import make_digits
from hafabench.data.prepare import missing_datasets, prepare_dataset
from hafabench.data.report import read_report
from hafabench.data.verify import verify_dataset
from hafabench.errors import UserError
from tests.support.messages import missing_facts

FORMATS = ("imagenet", "coco", "ade20k")


def config(data_format: str, root: Path, **changes) -> DatasetConfig:
    """A small data set; without its generator it is treated as real data would be."""
    many = 10 if data_format == "imagenet" else 2
    content = {
        "name": "digits",
        "format": data_format,
        "root": root,
        "num_classes": 11 if data_format == "ade20k" else 10,
        "images": {"train": many, "val": many},
        "generator": {"kind": "digits", "seed": 0, "image_size": 64, "max_objects": 3},
    }
    return DatasetConfig.model_validate(content | changes)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, DatasetConfig]:
    root = tmp_path_factory.mktemp("originals")
    datasets = {data_format: config(data_format, root / data_format) for data_format in FORMATS}
    for dataset in datasets.values():
        make_digits(dataset)
    return datasets


@pytest.fixture
def copied(originals, tmp_path) -> Callable[..., DatasetConfig]:
    """Copy a data set that a test may damage. By default, it is configured as a real one, without a generator."""

    def copy(data_format: str, **changes) -> DatasetConfig:
        root = tmp_path / data_format
        shutil.copytree(originals[data_format].root, root)
        return config(data_format, root, **({"generator": None} | changes))

    return copy


def problems_of(dataset: DatasetConfig) -> list[str]:
    with pytest.raises(UserError) as caught:
        verify_dataset(dataset)
    return [str(problem) for problem in caught.value.problems]


def images_of(dataset: DatasetConfig) -> list[Path]:
    return sorted(path for path in dataset.root.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})


def truncate(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("data_format", FORMATS)
def test_embedded_data_is_read_whole(data_format, originals):
    dataset = originals[data_format]
    report = verify_dataset(dataset)
    assert report.counts == report.decoded == dict(dataset.images)
    assert report.digest_of == "content"
    assert report.digest == manifest.read_manifest(dataset.root)["digest"]
    assert report.classes == manifest.read_manifest(dataset.root)["classes"]
    assert f"{dataset.images['train']} images" in report.summary()


@pytest.mark.parametrize("data_format", FORMATS)
def test_real_data_is_digested_by_its_listing(data_format, copied):
    dataset = copied(data_format)
    first = verify_dataset(dataset)
    assert first.digest_of == "listing"
    assert verify_dataset(dataset) == first
    file = images_of(dataset)[0]
    image = Image.open(file).convert("RGB")
    image.save(file, quality=30)
    assert verify_dataset(dataset).digest != first.digest


def test_of_large_data_a_fixed_sample_is_decoded(copied, monkeypatch):
    monkeypatch.setattr("hafabench.data.verify.dataset.DECODED_PER_SPLIT", 4)
    dataset = copied("imagenet")
    assert verify_dataset(dataset).decoded == {"train": 4, "val": 4}


@pytest.mark.parametrize("data_format", FORMATS)
def test_missing_root_folder(data_format, tmp_path):
    (problem,) = problems_of(config(data_format, tmp_path / "nowhere", generator=None))
    assert problem.startswith(f"{tmp_path / 'nowhere'}: no such folder; expected the data format {data_format!r}")
    (problem,) = problems_of(config(data_format, tmp_path / "nowhere"))
    assert problem.endswith("`hafabench data prepare` makes it")


def test_missing_and_empty_folders_are_named_together(copied):
    dataset = copied("ade20k")
    shutil.rmtree(dataset.root / "annotations" / "training")
    for file in (dataset.root / "images" / "validation").iterdir():
        file.unlink()
    found = problems_of(dataset)
    assert f"{dataset.root}/annotations/training: no such folder" in found
    assert f"{dataset.root}/images/validation: no images in it; expected 2" in found
    assert any("masks without image" in line or "no image of this name" in line for line in found)


def test_empty_class_wrong_count_and_wrong_number_of_classes(copied):
    dataset = copied("imagenet")
    next((dataset.root / "train" / "digit_3").iterdir()).unlink()
    shutil.rmtree(dataset.root / "val" / "digit_9")
    found = problems_of(dataset)
    assert f"{dataset.root}/train/digit_3: class folder without images" in found
    assert f"{dataset.root}/train: expected 10 images, found 9" in found
    assert f"{dataset.root}/val: expected 10 class folders, found 9" in found
    assert f"{dataset.root}/val/digit_9: class folder in only one of train and val" in found


@pytest.mark.parametrize("data_format", FORMATS)
def test_truncated_image(data_format, copied):
    dataset = copied(data_format)
    file = images_of(dataset)[0]
    truncate(file)
    (problem,) = problems_of(dataset)
    assert problem.startswith(f"{file}: cannot be decoded: image file is truncated")
    file.write_bytes(b"")
    assert problems_of(dataset) == [f"{file}: cannot be decoded: not an image"]


def test_truncated_mask(copied):
    dataset = copied("ade20k")
    file = sorted((dataset.root / "annotations" / "training").iterdir())[0]
    truncate(file)
    (problem,) = problems_of(dataset)
    assert problem.startswith(f"{file}: cannot be decoded")


def test_mask_value_out_of_range(copied):
    dataset = copied("ade20k")
    file = sorted((dataset.root / "annotations" / "training").iterdir())[0]
    mask = np.asarray(Image.open(file)).copy()
    mask[5, 7] = 12
    Image.fromarray(mask).save(file)
    (problem,) = problems_of(dataset)
    assert missing_facts(problem, f"{file}: ", "value 12", "0", "11") == []


def test_mask_of_another_size_or_kind(copied):
    dataset = copied("ade20k")
    one, two = sorted((dataset.root / "annotations" / "validation").iterdir())
    Image.open(one).crop((0, 0, 60, 64)).save(one)
    Image.open(two).convert("RGB").save(two)
    size, mode = problems_of(dataset)
    assert missing_facts(size, f"{one}: ", "60 x 64", "64 x 64") == []
    assert missing_facts(mode, f"{two}: ", "8-bit", "RGB") == []


def test_image_without_mask_and_mask_without_image(copied):
    dataset = copied("ade20k")
    images, masks = dataset.root / "images" / "training", dataset.root / "annotations" / "training"
    mask = sorted(masks.iterdir())[0]
    image = sorted(images.iterdir())[1]
    mask.unlink()
    image.unlink()
    found = problems_of(dataset)
    assert f"{images / mask.stem}.jpg: no mask {mask}" in found
    assert f"{masks / image.stem}.png: no image of this name in {images}" in found


def test_dangling_ids(copied):
    dataset = copied("coco")
    file = paths.coco_annotations(dataset, "train")

    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["image_id"] = 999
        content["annotations"][1]["category_id"] = 77

    edit_json(file, spoil)
    first, second = problems_of(dataset)
    assert first.startswith(f"{file}: annotations[0] (id 1): image_id 999 is not an image of this file")
    assert second.startswith(f"{file}: annotations[1] (id 2): category_id 77 is not a category of this file")


def test_unreadable_json_names_its_line(copied):
    dataset = copied("coco")
    file = paths.coco_annotations(dataset, "val")
    file.write_text('{"images": [],\n "annotations": [}')
    assert f"{file}:2: not valid JSON" in problems_of(dataset)[0]
    file.write_text("[]")
    assert "expected an object with images, annotations and categories" in problems_of(dataset)[0]
    file.unlink()
    assert problems_of(dataset) == [f"{file}: no such file"]


def test_json_entries_of_the_wrong_form(copied):
    dataset = copied("coco")
    file = paths.coco_annotations(dataset, "val")

    def spoil(content: dict[str, Any]) -> None:
        first, second = content["annotations"][:2]
        del first["bbox"]
        second["segmentation"] = "round"
        second["area"] = None
        content["images"][1]["id"] = "one"
        content["categories"][0]["id"] = 2

    edit_json(file, spoil)
    text = "\n".join(problems_of(dataset))
    assert "annotations[0] (id " in text
    assert ", found one without bbox" in text
    assert "expected polygons" in text
    assert "a number from 0 to 4096, found None" in text
    assert "images[1].id: expected an integer, found 'one'" in text
    assert "categories[1] (id 2): id 2 given twice" in text
    assert "expected 10 categories, found 9" in text


def test_listed_image_that_is_missing_or_of_another_size(copied):
    dataset = copied("coco")
    one, two = sorted(paths.coco_images(dataset, "train").iterdir())
    one.unlink()
    Image.new("RGB", (32, 48)).save(two)
    found = problems_of(dataset)
    assert any(line.startswith(f"{one}: no such image; image 1 of") for line in found)
    assert f"{two}: expected 64 x 64 pixels as annotated, found 32 x 48" in found


def test_number_of_classes_differs(copied):
    dataset = copied("coco", num_classes=80)
    found = problems_of(dataset)
    assert sum("categories: expected 80 categories, found 10" in line for line in found) == 2


def test_many_problems_of_a_kind_are_counted(copied, tmp_path):
    dataset = copied("imagenet", images={"train": 30, "val": 10})
    for label in range(10):
        for extra in range(2):
            (dataset.root / "train" / f"digit_{label}" / f"broken_{extra}.JPEG").write_bytes(b"x")
    found = problems_of(dataset)
    assert len(found) == 11
    assert found[-1] == "and 10 more unreadable images"


def test_changed_embedded_data_is_detected_and_made_again(copied, tmp_path, capsys):
    dataset = copied("coco", generator={"kind": "digits", "seed": 0, "image_size": 64, "max_objects": 3})
    report = prepare_dataset(dataset, tmp_path / "report.json")
    assert "made" not in capsys.readouterr().err
    file = sorted(paths.coco_images(dataset, "train").iterdir())[0]
    Image.new("RGB", (64, 64)).save(file)
    (problem,) = problems_of(dataset)
    assert "files changed since they were made" in problem
    assert prepare_dataset(dataset, tmp_path / "report.json") == report
    assert "made 4 images" in capsys.readouterr().err


def test_data_with_other_parameters_is_made_again(copied, tmp_path):
    dataset = copied("ade20k", generator={"kind": "digits", "seed": 5, "image_size": 64, "max_objects": 3})
    assert "made with other parameters" in problems_of(dataset)[0]
    report = prepare_dataset(dataset, tmp_path / "report.json")
    assert report.identity["generator"]["seed"] == 5
    assert manifest.is_unchanged(dataset)


def test_report_is_written_and_read_back(originals, tmp_path):
    file = tmp_path / "deep" / "report.json"
    report = prepare_dataset(originals["coco"], file)
    assert read_report(file) == report
    assert report.details["train instances"].keys() == {"small", "medium", "large"}
    edit_json(file, lambda content: content.update(digest=None, images=None))
    with pytest.raises(UserError) as caught:
        read_report(file)
    assert {"digest", "images"} <= {problem.key for problem in caught.value.problems}
    edit_json(file, lambda content: content.update(schema="other/1"))
    with pytest.raises(UserError) as caught:
        read_report(file)
    assert {problem.key for problem in caught.value.problems} == {"schema"}
    with pytest.raises(UserError, match="no such report"):
        read_report(tmp_path / "none.json")
    file.write_text("{")
    with pytest.raises(UserError, match="json"):
        read_report(file)


def test_no_report_of_unsound_data(copied, tmp_path):
    dataset = copied("imagenet")
    truncate(next(dataset.root.rglob("*.JPEG")))
    with pytest.raises(UserError):
        prepare_dataset(dataset, tmp_path / "report.json")
    assert not (tmp_path / "report.json").exists()


def test_missing_datasets_are_named_without_opening_anything(copied, tmp_path):
    there, broken = copied("imagenet"), copied("coco")
    for file in there.root.rglob("*.JPEG"):
        file.write_bytes(b"not an image, but never opened")
    shutil.rmtree(paths.coco_images(broken, "val"))
    datasets = {
        "classification": there,
        "detection": broken,
        "segmentation": config("ade20k", tmp_path / "absent", generator=None),
    }
    found = missing_datasets(datasets)
    (detection,), (segmentation,) = found.pop("detection"), found.pop("segmentation")
    assert found == {}
    assert detection.startswith(f"detection: digits at {broken.root} is incomplete")
    assert detection.endswith("missing or empty: val2017")
    assert f"is not at {tmp_path / 'absent'}: no such folder" in segmentation
    # What can be made is not missing.
    assert missing_datasets({"detection": config("coco", tmp_path / "later")}) == {}


def test_names_of_classes(originals, copied):
    digits = [f"digit_{label}" for label in range(10)]
    assert imagenet_classes(originals["imagenet"]) == digits
    assert coco_classes(originals["coco"]) == digits
    assert segmentation_classes(originals["ade20k"]) == [*digits, "background"]
    real = copied("ade20k")
    (real.root / "manifest.json").unlink()
    assert segmentation_classes(real) is None
    ade20k = real.model_copy(update={"name": "ade20k", "num_classes": 150})
    names = segmentation_classes(ade20k)
    assert len(set(names)) == 150
    assert (names[0], names[7], names[149]) == ("wall", "bed", "flag")
    assert segmentation_classes(ade20k.model_copy(update={"name": "ade20k_half"})) == names
    assert segmentation_classes(ade20k.model_copy(update={"name": "scenes"})) is None
    assert segmentation_classes(ade20k.model_copy(update={"num_classes": 151})) is None
    # A data set that contains names keeps them, whatever it is called.
    generated = originals["ade20k"].model_copy(update={"name": "ade20k", "num_classes": 150})
    assert segmentation_classes(generated) == [*digits, "background"]
    spoiled = copied("coco")
    edit_json(paths.coco_annotations(spoiled, "val"), lambda content: content.update(categories=[{"id": 1}]))
    with pytest.raises(UserError, match="categories with names"):
        coco_classes(spoiled)


@pytest.mark.parametrize("count", [1, 11, 80, 150])
def test_palettes_have_different_colours(count):
    colours = class_palette(count)
    assert len(set(colours)) == count
    assert all(0 <= channel <= 255 for colour in colours for channel in colour)
