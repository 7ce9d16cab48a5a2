"""What is verified is what is read: one listing of files for each data format."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from hafabench.config.experiment import DatasetConfig, DigitsGenerator
from hafabench.data import listing
from hafabench.data.loaders import classification_dataset
from hafabench.data.preview import draw_preview
from hafabench.data.verify import verify_dataset
from hafabench.errors import UserError
from tests.support.messages import missing_facts

FOLDERS = {"train": "training", "val": "validation"}


def dataset(data_format: str, root: Path, count: int, classes: int = 2) -> DatasetConfig:
    images = {"train": count, "val": count}
    return DatasetConfig(name="tiny", data_format=data_format, root=root, num_classes=classes, images=images)


def picture(path: Path, size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = sum(map(ord, path.name)) % 256
    Image.new("RGB", size, (shade, 90, 30)).save(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")
    return path


def mask(path: Path, values: object = 1, size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(values, np.uint8), size[::-1]).copy()).save(path, format="PNG")
    return path


@pytest.fixture
def classes(tmp_path) -> DatasetConfig:
    for split in ("train", "val"):
        for name in ("ant", "Bee"):
            for index, suffix in enumerate((".JPEG", ".jpg", ".PNG")):
                picture(tmp_path / split / name / f"{name}_{index}{suffix}")
    return dataset("imagenet", tmp_path, 6)


@pytest.fixture
def scenes(tmp_path) -> DatasetConfig:
    for folder in FOLDERS.values():
        for index, suffix in enumerate((".jpg", ".JPG", ".jpeg", ".png")):
            picture(tmp_path / "images" / folder / f"p{index}{suffix}")
            mask(tmp_path / "annotations" / folder / f"p{index}.png", 1 + index % 2)
    return dataset("ade20k", tmp_path, 4)


def problems_of(verified: DatasetConfig) -> list[str]:
    with pytest.raises(UserError) as caught:
        verify_dataset(verified)
    return [str(problem) for problem in caught.value.problems]


def read_by_the_loader(verified: DatasetConfig, split: str) -> list[str]:
    return [path for path, _ in classification_dataset(verified, split).samples]


@pytest.mark.parametrize(
    "stray",
    [
        "ant/.ipynb_checkpoints/ant_0-checkpoint.JPEG",
        "ant/@eaDir/ant_0.JPEG/SYNOFILE_THUMB.jpg",
        "ant/more/deeper/x.jpg",
        "@eaDir/x.jpg",
        "__MACOSX/ant/._ant_0.JPEG",
        "ant/._ant_0.JPEG",
        "ant/.hidden.jpg",
        "ant/x.webp",
        "loose.jpg",
    ],
)
def test_stray_images_are_noted_and_neither_verified_nor_loaded(classes, stray):
    before = verify_dataset(classes)
    picture(classes.root / "val" / stray)
    report = verify_dataset(classes)
    assert (report.counts, report.listings) == ({"train": 6, "val": 6}, before.listings)
    (note,) = report.notes
    assert note.startswith("val: 1 image ")
    assert note.endswith(f"not read: val/{stray}")
    assert read_by_the_loader(classes, "val") == [str(path) for path in listing.list_split(classes, "val").images]
    assert len(read_by_the_loader(classes, "val")) == 6


def test_class_folders_are_sorted_as_torchvision_sorts_them_and_may_be_links(classes, tmp_path):
    assert classification_dataset(classes, "train").classes == ["Bee", "ant"]
    (tmp_path / "val" / "ant").rename(tmp_path / "elsewhere")
    (tmp_path / "val" / "ant").symlink_to(tmp_path / "elsewhere")
    assert verify_dataset(classes).counts == {"train": 6, "val": 6}
    assert len(read_by_the_loader(classes, "val")) == 6


def test_what_is_no_file_is_never_read_as_an_image(classes, tmp_path):
    (tmp_path / "train/ant/folder.jpg").mkdir()
    picture(tmp_path / "train/ant/folder.jpg/inside.jpg")
    assert verify_dataset(classes).notes == [
        "train: 1 image in further folders, not read: train/ant/folder.jpg/inside.jpg"
    ]
    assert len(read_by_the_loader(classes, "train")) == 6
    (tmp_path / "train/ant/broken.jpg").symlink_to("nothing.jpg")
    (tmp_path / "train/ant/itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(tmp_path / "train/Bee/queue.jpg")
    found = problems_of(classes)
    text = "\n".join(found)
    assert missing_facts(text, "broken.jpg: a link to nothing.jpg", "itself.jpg: cannot be read", "queue.jpg: ") == []
    assert any("expected 6 images, found 9" in line for line in found)


@pytest.mark.parametrize("split", ["train", "val"])
def test_segmentation_reads_every_suffix_in_any_case(scenes, split):
    assert verify_dataset(scenes).counts == {"train": 4, "val": 4}
    pairs = listing.list_ade20k_pairs(scenes, split)
    assert [image.name for image, _ in pairs] == ["p0.jpg", "p1.JPG", "p2.jpeg", "p3.png"]
    assert [own.name for _, own in pairs] == ["p0.png", "p1.png", "p2.png", "p3.png"]


def test_previews_draw_masks_with_any_suffix(scenes, tmp_path):
    (tmp_path / "annotations/validation/p0.png").rename(tmp_path / "annotations/validation/p0.PNG")
    assert verify_dataset(scenes).counts["val"] == 4
    draw_preview(scenes, tmp_path / "sheet.png")


def test_two_images_or_masks_of_one_name_are_refused(scenes, tmp_path):
    picture(tmp_path / "images/training/p0.png")
    mask(tmp_path / "annotations/validation/p1.PNG")
    found = "\n".join(problems_of(scenes))
    assert f"{tmp_path}/images/training/p0.jpg: images of the same name: p0.png" in found
    assert f"{tmp_path}/annotations/validation/p1.PNG: masks of the same name: p1.png" in found
    for split in FOLDERS:
        with pytest.raises(UserError, match="expected one image p"):
            listing.list_ade20k_pairs(scenes, split)


def test_a_mask_in_another_format_is_named(scenes, tmp_path):
    (tmp_path / "annotations/training/p0.png").unlink()
    picture(tmp_path / "annotations/training/p0.jpg")
    (problem,) = (line for line in problems_of(scenes) if not line.startswith("note"))
    assert missing_facts(problem, "images/training/p0.jpg: no mask", "only p0.jpg") == []


def test_nested_images_of_a_segmentation_data_set_are_noted(scenes, tmp_path):
    picture(tmp_path / "images/validation/more/q.jpg")
    mask(tmp_path / "annotations/validation/more/q.png")
    assert verify_dataset(scenes).notes == [
        "val: 2 images in further folders, not read: annotations/validation/more/q.png, ..."
    ]
    assert len(listing.list_split(scenes, "val").images) == 4


def test_names_that_are_no_text_are_listed_and_digested(scenes, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "images/training/p0.jpg").rename(tmp_path / f"images/training/{name}.jpg")
    (tmp_path / "annotations/training/p0.png").rename(tmp_path / f"annotations/training/{name}.png")
    assert verify_dataset(scenes).counts["train"] == 4


def test_masks_without_a_labelled_pixel_are_refused(scenes, tmp_path, monkeypatch):
    for index in range(4):
        mask(tmp_path / f"annotations/validation/p{index}.png", 255 * (index % 2))
    (problem,) = problems_of(scenes)
    assert problem.startswith(f"{tmp_path}/annotations/validation: no mask has a labelled pixel")
    assert "0, 255" in problem
    # A labelled pixel outside the decoded sample is found.
    monkeypatch.setattr("hafabench.data.verify.dataset.DECODED_PER_SPLIT", 1)
    for labelled in range(4):
        for index in range(4):
            mask(tmp_path / f"annotations/validation/p{index}.png", int(index == labelled))
        assert verify_dataset(scenes).decoded == {"train": 1, "val": 1}


def test_sizes_are_compared_beyond_the_decoded_sample(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("hafabench.data.verify.dataset.DECODED_PER_SPLIT", 1)
    for index in range(4):
        mask(tmp_path / f"annotations/validation/p{index}.png", size=(12, 16))
    found = [line for line in problems_of(scenes) if "mask of 12 x 16 pixels, its image" in line]
    assert [missing_facts(line, f"p{index}.png", "has 16 x 12") for index, line in enumerate(sorted(found))] == [
        []
    ] * 4
    truncated = tmp_path / "annotations/training/p2.png"
    truncated.write_bytes(truncated.read_bytes()[:20])
    assert any(line.startswith(f"{truncated}: cannot be decoded") for line in problems_of(scenes))


def test_255_is_ignored_and_other_values_beyond_the_classes_are_refused(scenes, tmp_path):
    mask(tmp_path / "annotations/training/p0.png", [[0, 1, 2, 255] * 4])
    assert verify_dataset(scenes).notes == []
    mask(tmp_path / "annotations/training/p0.png", [[0, 1, 2, 254] * 4])
    (problem,) = problems_of(scenes)
    assert missing_facts(problem, "p0.png: mask value 254", "1 to 2", "255 (ignored)") == []
    (problem, *_) = problems_of(scenes.model_copy(update={"num_classes": 255}))
    assert missing_facts(problem, "num_classes", "at most 254") == []


@pytest.mark.parametrize(("values", "hint"), [((0, 1), True), ((0, 2), False), ((1, 1), False), ((0, 1, 255), True)])
def test_masks_numbered_from_0_get_a_hint(scenes, tmp_path, values, hint):
    for path in (tmp_path / "annotations").rglob("*.png"):
        mask(path, np.resize(values, (12, 16)))
    notes = verify_dataset(scenes).notes
    assert [missing_facts(note, "numbered from 0", "add 1", "largest value in the masks is 1") for note in notes] == (
        [[]] if hint else []
    )


def test_coco_names_may_contain_folders(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2017/a/b/p.JPG", (64, 48))
        annotation = {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 1, 40, 40], "area": 1600, "iscrowd": 0}
        annotation["segmentation"] = [[1, 1, 41, 1, 41, 41, 1, 41]]
        content = {
            "images": [{"id": 3, "file_name": "a/b/p.JPG", "width": 64, "height": 48}],
            "annotations": [annotation],
            "categories": [{"id": 1, "name": "box"}],
        }
        file = tmp_path / f"annotations/instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    instances = dataset("coco", tmp_path, 1, classes=1)
    assert verify_dataset(instances).counts == {"train": 1, "val": 1}
    assert listing.list_split(instances, "val").images == [tmp_path / "val2017/a/b/p.JPG"]
    first = verify_dataset(instances).listings
    # The same size, but another annotation.
    file.write_text(file.read_text().replace("1600", "1601"))
    second = verify_dataset(instances).listings
    assert (first["train"], first["val"] != second["val"]) == (second["train"], True)


def test_masks_and_images_in_other_formats_are_named(scenes, classes, tmp_path):
    old = tmp_path / "annotations/training/p0.png"
    Image.open(old).save(old.with_suffix(".bmp"))
    old.unlink()
    assert any("p0.png, only p0.bmp" in line for line in problems_of(scenes))
    for path in (tmp_path / "train/ant").iterdir():
        path.rename(path.with_suffix(".tif"))
    assert any("ant: class folder without images that are read, only " in line for line in problems_of(classes))


def test_masks_of_another_unicode_normal_form_are_named(scenes, tmp_path):
    (tmp_path / "images/training/p0.jpg").rename(tmp_path / "images/training/caf\u00e9.jpg")
    (tmp_path / "annotations/training/p0.png").rename(tmp_path / "annotations/training/cafe\u0301.png")
    assert any(
        "only cafe\u0301.png, whose name has another Unicode normal form" in line for line in problems_of(scenes)
    )


def test_masks_that_were_compressed_with_loss_are_refused(scenes, tmp_path):
    file = tmp_path / "annotations/training/p0.png"
    Image.open(file).save(file, format="JPEG")
    (problem,) = problems_of(scenes)
    assert missing_facts(problem, str(file), "JPEG", "expected PNG") == []


def test_names_that_are_no_text_in_reports_and_notes(classes, tmp_path):
    name = os.fsdecode(b"\xe9")
    picture(tmp_path / "train/ant" / name / "stray.jpg")
    report = verify_dataset(classes)
    assert "train/ant/\\xe9/stray.jpg" in report.notes[0]
    assert report.model_dump_json()
    for split in ("train", "val"):
        (tmp_path / split / "ant").rename(tmp_path / split / name)
    assert any("not encoded in UTF-8" in line for line in problems_of(classes))


def test_a_file_in_place_of_a_folder(classes, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    found = problems_of(classes.model_copy(update={"root": file}))
    assert found == [f"{file}: expected a folder, found a file"]
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    (tmp_path / "val").write_text("")
    with pytest.raises(UserError, match="val: "):
        draw_preview(classes, tmp_path / "sheet.png")


def test_the_note_about_an_orientation_fits_the_data_format(classes, scenes, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    for path in (tmp_path / "val/ant/turned.jpg", tmp_path / "images/validation/p0.jpg"):
        Image.new("RGB", (16, 12)).save(path, exif=exif)
    counts = {"train": 6, "val": 7}
    (note,) = verify_dataset(classes.model_copy(update={"images": counts})).notes
    assert note.endswith("which is applied: val/ant/turned.jpg")
    (note,) = verify_dataset(scenes).notes
    assert note.endswith("annotations are expected for the image as it is shown")


@pytest.mark.parametrize("split", FOLDERS)
@pytest.mark.parametrize("data_format", ["imagenet", "ade20k", "coco"])
def test_a_lost_data_set_names_the_command_that_prepares_it(data_format, split, tmp_path):
    lost = dataset(data_format, tmp_path / "lost", 1)
    with pytest.raises(UserError, match="restore the data set; `hafabench data prepare` verifies it"):
        listing.list_split(lost, split)
    generator = DigitsGenerator(kind="digits", image_size=32)
    with pytest.raises(UserError, match="`hafabench data prepare` makes the data set"):
        listing.list_split(lost.model_copy(update={"generator": generator}), split)
