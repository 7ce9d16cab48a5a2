"""Contact sheets: their size, and the boxes, masks and labels in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hafabench.config.experiment import DatasetConfig
from hafabench.data import listing, paths, preview
from hafabench.data.classes import class_palette
from hafabench.data.digits import make_digits
from hafabench.data.preview import TILE, TITLE, draw_preview, sheet_size
from hafabench.data.verify import verify_dataset
from hafabench.errors import UserError

FORMATS = ("imagenet", "coco", "ade20k")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, DatasetConfig]:
    root = tmp_path_factory.mktemp("preview")
    datasets = {}
    for data_format in FORMATS:
        many = 10 if data_format == "imagenet" else 4
        datasets[data_format] = DatasetConfig.model_validate(
            {
                "name": "digits",
                "format": data_format,
                "root": root / data_format,
                "num_classes": 11 if data_format == "ade20k" else 10,
                "images": {"train": many, "val": many},
                "generator": {"kind": "digits", "image_size": 64, "max_objects": 3},
            }
        )
        make_digits(datasets[data_format])
    return datasets


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("data_format", FORMATS)
def test_sheet_has_the_expected_size_and_shows_images(data_format, made, tmp_path):
    file = tmp_path / "sheets" / "preview.png"
    draw_preview(made[data_format], file, columns=2, count=3)
    sheet = pixels(file)
    width, height = sheet_size([3, 3], 2, legend=11 if data_format == "ade20k" else 0)
    assert sheet.shape == (height, width, 3)
    first = sheet[TITLE : TITLE + TILE, 6 : 6 + TILE]
    assert first.std() > 8


@contextmanager
def annotations_of_first_image(dataset: DatasetConfig, **first: Any) -> Iterator[None]:
    """For a while, the training annotations hold nothing but their first one, changed by ``first``."""
    file = paths.coco_annotations(dataset, "train")
    original = file.read_text()
    content = json.loads(original)
    content["annotations"] = [content["annotations"][0] | first] if first else []
    file.write_text(json.dumps(content))
    try:
        yield
    finally:
        file.write_text(original)


def test_boxes_are_drawn_at_the_annotated_places(made, tmp_path):
    dataset = made["coco"]
    corner = {"counts": [0, 1, 64 * 64 - 1], "size": [64, 64]}
    with annotations_of_first_image(dataset, bbox=[10, 20, 30, 35], segmentation=corner, category_id=4):
        draw_preview(dataset, tmp_path / "preview.png", columns=1, count=1)
    tile = pixels(tmp_path / "preview.png")[TITLE : TITLE + TILE, 6 : 6 + TILE]
    scale, colour = TILE // 64, np.array(class_palette(10)[3])
    coloured = (tile == colour).all(-1)
    # Three sides of the box are checked; the label covers the fourth.
    assert coloured[55 * scale, 10 * scale : 40 * scale + 1].all()
    assert coloured[20 * scale : 55 * scale + 1, 10 * scale].all()
    assert coloured[20 * scale : 55 * scale + 1, 40 * scale].all()
    assert not coloured[55 * scale + 1 :].any()
    assert not coloured[:, 40 * scale + 1 :].any()


def test_masks_are_tinted(made, tmp_path):
    dataset = made["ade20k"]
    draw_preview(dataset, tmp_path / "with.png", columns=1, count=1)
    mask_file = listing.image_files(paths.ade20k_masks(dataset, "train"))[0]
    original = mask_file.read_bytes()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask_file)
    try:
        draw_preview(dataset, tmp_path / "without.png", columns=1, count=1)
    finally:
        mask_file.write_bytes(original)
    tile = np.s_[TITLE : TITLE + TILE, 6 : 6 + TILE]
    with_masks, without = pixels(tmp_path / "with.png")[tile], pixels(tmp_path / "without.png")[tile]
    assert (np.abs(with_masks - without).max(-1) > 3).mean() > 0.5


def test_run_length_masks_are_drawn_too(made, tmp_path):
    """Crowds of the real COCO have them."""
    dataset = made["coco"]
    left_half = {"counts": [0, 64 * 32, 64 * 32], "size": [64, 64]}
    with annotations_of_first_image(dataset, segmentation=left_half, iscrowd=1, bbox=[0, 0, 32, 64]):
        draw_preview(dataset, tmp_path / "crowd.png", columns=1, count=1)
    with annotations_of_first_image(dataset):
        draw_preview(dataset, tmp_path / "plain.png", columns=1, count=1)
    tile = np.s_[TITLE + 30 : TITLE + TILE - 2, 6 : 6 + TILE]
    changed = np.abs(pixels(tmp_path / "crowd.png")[tile] - pixels(tmp_path / "plain.png")[tile]).max(-1) > 3
    assert changed[:, : TILE // 2 - 2].mean() > 0.8
    assert changed[:, TILE // 2 + 3 :].mean() < 0.05


def test_nothing_to_draw_is_refused(made, tmp_path):
    absent = made["coco"].model_copy(update={"root": tmp_path / "absent"})
    with pytest.raises(UserError, match="no such file or folder; nothing to draw"):
        draw_preview(absent, tmp_path / "preview.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"category_id": 99}, "category_id 99 is not a category"),
        ({"segmentation": {"counts": [0, 10**9], "size": [64, 64]}}, "run lengths of 1000000000 pixels in total"),
        ({"bbox": ["left", 0, 1, 1]}, r"expected bbox"),
    ],
)
def test_invalid_annotations_are_a_sentence(made, tmp_path, change, problem):
    dataset = made["coco"]
    with annotations_of_first_image(dataset, **change), pytest.raises(UserError, match=problem):
        draw_preview(dataset, tmp_path / "preview.png")


def test_images_of_ade20k_name_their_classes(tmp_path):
    dataset = DatasetConfig(
        name="ade20k", data_format="ade20k", root=tmp_path, num_classes=150, images={"train": 1, "val": 1}
    )
    for split in ("training", "validation"):
        for folder in ("images", "annotations"):
            (tmp_path / folder / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / split / "a.jpg")
        mask = np.repeat(np.array([0, 1, 8, 150], np.uint8), 16)
        Image.fromarray(np.tile(mask, (64, 1))).save(tmp_path / "annotations" / split / "a.png")
    ((_, caption),) = preview._ade20k_tiles(dataset, "val", 1)
    assert caption == "wall, bed, flag"
    draw_preview(dataset, tmp_path / "sheet.png", columns=2)
    assert verify_dataset(dataset).classes[:3] == ["wall", "building", "sky"]
