"""Invalid values of COCO's annotation files: each is refused before pycocotools or mmdet read it."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hafabench.config.experiment import DatasetConfig
from hafabench.data.images import read_image
from hafabench.data.report import compared_digest
from hafabench.data.verify import verify_dataset
from hafabench.data.verify.coco import read_annotation_file
from hafabench.data.verify.instances import mask_problem
from hafabench.errors import UserError
from tests.support.messages import missing_facts

WIDTH, HEIGHT = 96, 64
RECTANGLE = [45, 20, 85, 20, 85, 56, 45, 56]
PLAIN = {
    "id": 1,
    "image_id": 1,
    "category_id": 3,
    "bbox": [45, 20, 40, 36],
    "area": 1440,
    "iscrowd": 0,
    "segmentation": [RECTANGLE],
}


@pytest.fixture
def dataset(tmp_path) -> DatasetConfig:
    """Two images per split, with one object each."""
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        content = {
            "images": [
                {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT} for number in (1, 2)
            ],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
            "annotations": [PLAIN | {"id": number, "image_id": number} for number in (1, 2)],
        }
        for entry in content["images"]:
            Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{split}2017" / entry["file_name"])
        file_of(tmp_path, split).write_text(json.dumps(content))
    content = {"name": "tiny", "format": "coco", "root": tmp_path, "num_classes": 2, "images": {"train": 2, "val": 2}}
    return DatasetConfig.model_validate(content)


def file_of(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def edit(dataset: DatasetConfig, split: str, change: Callable[[dict[str, Any]], object]) -> Path:
    file = file_of(dataset.root, split)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


def problems_of(dataset: DatasetConfig) -> list[str]:
    with pytest.raises(UserError) as caught:
        verify_dataset(dataset)
    return [str(problem) for problem in caught.value.problems]


def with_first(dataset: DatasetConfig, split: str, **values: Any) -> str:
    """Return the only problem of a data set whose first annotation is changed."""
    file = edit(dataset, split, lambda content: content["annotations"][0].update(values))
    (problem,) = problems_of(dataset)
    assert problem.startswith(f"{file}: annotations[0] (id {values.get('id', 1)})")
    return problem


def test_the_data_set_of_these_tests_is_valid(dataset):
    assert verify_dataset(dataset).details["val instances"] == {"small": 0, "medium": 2, "large": 0}


@pytest.mark.parametrize("number", [0, -1, 2**60])
def test_ids_out_of_range(dataset, number):
    assert str(number) in with_first(dataset, "val", id=number) or number == 2**60


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    "box",
    [
        None,
        "large",
        {},
        [],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, "3", 4],
        [1, 2, True, 4],
        [1, 2, None, 4],
        [1, 2, math.nan, 4],
        [math.nan, 2, 3, 4],
        [1, 2, math.inf, 4],
        [1, 2, 10**400, 4],
        [1, 2, -3, 4],
        [1, 2, 3, -4],
        [-40, 2, 30, 4],
        [200, 2, 30, 4],
        [1, 2, 1e9, 4],
        [45, 20, 85, 56],
        [0.47, 0.31, 0.42, 0.56],
        [45, 20, 0, 36],
        [45, 20, 40, 0],
        [5, 5, 10, 10],
    ],
    ids=str,
)
def test_boxes(dataset, split, box):
    assert "bbox" in with_first(dataset, split, bbox=box)


def test_boxes_are_explained(dataset):
    assert "corners" in with_first(dataset, "train", bbox=[45, 20, 85, 56])
    small = {"segmentation": [[15, 5, 35, 5, 35, 25, 15, 25]], "bbox": [15, 5, 35, 25], "area": 400}
    assert "corners" in with_first(dataset, "train", **small)
    assert "fractions of the image" in with_first(dataset, "train", bbox=[0.47, 0.31, 0.42, 0.56])


def compressed(runs: list[int]) -> str:
    coded = coco_mask.frPyObjects({"counts": runs, "size": [HEIGHT, WIDTH]}, HEIGHT, WIDTH)
    return coded["counts"].decode()


def run_lengths(counts: Any, size: Any = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {"counts": counts, "size": list(size) if isinstance(size, tuple) else size}


MASKS_THAT_ARE_NONE = [
    None,
    "round",
    7,
    {},
    [],
    [[]],
    [RECTANGLE, []],
    RECTANGLE,
    [[5, 5]],
    [[5, 5, 35, 25]],
    [[5, 5, 35, 25], [5, 5, 35, 25]],
    [[5, 5, 35, 25, 7]],
    [[*RECTANGLE, 3]],
    [["5", 5, 35, 5, 35, 25]],
    [[True, 5, 35, 5, 35, 25]],
    [[None, 5, 35, 5, 35, 25]],
    [[[5, 5], [35, 5], [35, 25]]],
    [[math.nan, 5, 35, 5, 35, 25]],
    [[5, 5, 35, math.nan, 35, 25]],
    [[5, 5, 35, 5, math.inf, 25]],
    [[5, 5, 1e9, 5, 35, 25]],
    [[5, 5, 10**400, 5, 35, 25]],
    [[-50, 5, 35, 5, 35, 25]],
    [RECTANGLE, "round"],
    {"counts": [0, WIDTH * HEIGHT]},
    {"size": [HEIGHT, WIDTH]},
    run_lengths([0, WIDTH * HEIGHT], (WIDTH, HEIGHT)),
    run_lengths([0, WIDTH * HEIGHT], None),
    run_lengths([0, WIDTH * HEIGHT], "64 x 96"),
    run_lengths([0, WIDTH * HEIGHT], [HEIGHT]),
    run_lengths([0, WIDTH * HEIGHT], [float(HEIGHT), WIDTH]),
    run_lengths([0, WIDTH * HEIGHT * 9]),
    run_lengths([0, WIDTH * HEIGHT - 1]),
    run_lengths([0, 2**40]),
    run_lengths([0, WIDTH * HEIGHT + 5, -5]),
    run_lengths([0, math.nan]),
    run_lengths([0, float(WIDTH * HEIGHT)]),
    run_lengths([True, WIDTH * HEIGHT - 1]),
    run_lengths(["0", WIDTH * HEIGHT]),
    run_lengths([720, 0, 1307, 2144, 1043, 930]),
    run_lengths([0, WIDTH * HEIGHT, 0]),
    run_lengths([]),
    run_lengths([WIDTH * HEIGHT]),
    run_lengths(None),
    run_lengths({}),
    run_lengths(""),
    run_lengths("no run lengths"),
    run_lengths("\N{GREEK SMALL LETTER MU}"),
    run_lengths("o" * 1000),
    run_lengths(compressed([0, WIDTH * HEIGHT])[:-1]),
    run_lengths(compressed([0, WIDTH * HEIGHT]) * 2),
    run_lengths(compressed([100, 200, 300])),
]


@pytest.mark.parametrize("segmentation", MASKS_THAT_ARE_NONE, ids=lambda value: str(value)[:50])
def test_masks_that_are_none(dataset, segmentation):
    with_first(dataset, "val", segmentation=segmentation)


def test_a_crowd_needs_a_valid_mask_too(dataset):
    assert "run lengths" in with_first(dataset, "val", iscrowd=1, segmentation=run_lengths([0, 7]))


def test_a_size_in_the_wrong_order_is_explained(dataset):
    problem = with_first(dataset, "val", segmentation=run_lengths([0, WIDTH * HEIGHT], (WIDTH, HEIGHT)))
    assert missing_facts(problem, "[96, 64]", "[64, 96]", "[height, width]") == []


def test_valid_masks_of_every_kind(dataset):
    left, inside, right = 45 * HEIGHT + 20, [36, 28] * 40, (WIDTH - 85) * HEIGHT - 20
    runs = [left, *inside[:-1], 28 + right]
    valid = [
        {"segmentation": [RECTANGLE, [45, 20]]},
        {"segmentation": run_lengths(runs)},
        {"segmentation": run_lengths(compressed(runs))},
        {"segmentation": [RECTANGLE], "iscrowd": 1},
        {"segmentation": [[float(value) for value in RECTANGLE]], "bbox": [45.2, 20.0, 39.9, 36.3]},
        {"segmentation": run_lengths([10, 1, WIDTH * HEIGHT - 11]), "bbox": [0, 10, 1, 1], "area": 1},
        {"segmentation": [[5, 5, 6, 5, 6, 6, 5, 6]], "bbox": [5, 5, 1, 1], "area": 1},
    ]
    for number, values in enumerate(valid, start=3):
        added = PLAIN | {"id": number} | values
        edit(dataset, "val", lambda content, added=added: content["annotations"].append(added))
    assert sum(verify_dataset(dataset).details["val instances"].values()) == 2 + 6


def test_compressed_run_lengths_are_those_of_pycocotools():
    """Long and short runs, and a mask that is checked pixel by pixel."""
    random = np.random.default_rng(0)
    for _ in range(50):
        mask = random.random((HEIGHT, WIDTH)) < random.random() ** 4
        mask[random.integers(HEIGHT), random.integers(WIDTH)] = True
        text = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        assert mask_problem(run_lengths(text), WIDTH, HEIGHT) is None
        assert "expected 6208" in mask_problem(run_lengths(text, (HEIGHT, WIDTH + 1)), WIDTH + 1, HEIGHT)


def test_pycocotools_stops_comparing_at_a_run_of_length_0():
    """The reason why such run lengths are refused: a mask does not match itself."""
    for runs, expected in (([720, 0, 1307, 2144, 1043, 930], 0), ([2027, 2144, 1043, 930], 1), ([0, 6144], 1)):
        coded = coco_mask.frPyObjects(run_lengths(runs), HEIGHT, WIDTH)
        assert coco_mask.iou([coded], [coded], [0]).item() == expected


@pytest.mark.parametrize("area", [None, "1440", -1, math.nan, math.inf, True, 1e10, 0, 0.14])
def test_areas(dataset, area):
    assert "area" in with_first(dataset, "train", area=area)


@pytest.mark.parametrize("crowd", [None, "0", 2, -1, [], 0.5, math.nan])
def test_crowd_marks(dataset, crowd):
    assert "expected 0 or 1" in with_first(dataset, "val", iscrowd=crowd)


@pytest.mark.parametrize("key", ["category_id", "image_id"])
@pytest.mark.parametrize("value", [None, "3", 3.0, True, [3], 99])
def test_ids_that_refer_to_nothing(dataset, key, value):
    assert key in with_first(dataset, "val", **{key: value})


@pytest.mark.parametrize("key", list(PLAIN))
def test_missing_keys(dataset, key):
    file = edit(dataset, "val", lambda content: content["annotations"][0].pop(key))
    (problem,) = problems_of(dataset)
    assert problem.startswith(f"{file}: annotations[0]")
    assert problem.endswith(f"without {key}")


def test_entries_that_are_no_objects(dataset):
    edit(dataset, "val", lambda content: content["annotations"].append(5))
    assert "annotations[2]: expected an object, found 5" in problems_of(dataset)[0]


@pytest.mark.parametrize(
    "name",
    [["1.jpg"], None, 7, "", " ", "/data/1.jpg", "C:\\1.jpg", "../train2017/1.jpg", "a/../../1.jpg", "a\0b", "a/"],
    ids=repr,
)
def test_names_of_images(dataset, name):
    file = edit(dataset, "train", lambda content: content["images"][0].update(file_name=name))
    assert problems_of(dataset)[0].startswith(f"{file}: images[0] (id 1).file_name: expected the name of a file")


@pytest.mark.parametrize("name", ["seq/1.jpg", "./1.jpg", "\N{CYRILLIC SMALL LETTER A} b.jpg", "1"])
def test_names_that_mmdet_reads(dataset, name):
    edit(dataset, "train", lambda content: content["images"][0].update(file_name=name))
    path = dataset.root / "train2017" / name
    path.parent.mkdir(exist_ok=True)
    (dataset.root / "train2017" / "1.jpg").rename(path)
    assert verify_dataset(dataset).counts["train"] == 2


@pytest.mark.parametrize("there", ["train2017/1.png", "train2017/deep/1.jpg", "val2017/only.jpg", "train2017/1.JPG"])
def test_an_image_that_is_somewhere_else(dataset, there):
    file = dataset.root / "train2017" / "1.jpg"
    if there == "val2017/only.jpg":
        edit(dataset, "train", lambda content: content["images"][0].update(file_name="only.jpg"))
    path = dataset.root / there
    path.parent.mkdir(exist_ok=True)
    file.rename(path)
    (problem,) = problems_of(dataset)
    assert problem.endswith(f"no such image; image 1 of {file_of(dataset.root, 'train')}; there is {there}")


def test_one_file_for_two_images(dataset):
    edit(dataset, "val", lambda content: content["images"][1].update(file_name="./1.jpg"))
    assert "file_name './1.jpg' is also that of image 1" in problems_of(dataset)[0]


def test_sizes_as_text_are_called_text(dataset):
    file = edit(dataset, "val", lambda content: content["images"][0].update(width="96", height="64"))
    first = problems_of(dataset)[0]
    assert (
        first
        == f"{file}: images[0] (id 1): expected numbers of pixels as width and height, found text: '96' and '64'"
    )


@pytest.mark.parametrize("size", [None, 0, -96, 96.0, True, math.nan, 10**9, [96]])
def test_sizes_of_images(dataset, size):
    file = edit(dataset, "val", lambda content: content["images"][0].update(width=size))
    assert problems_of(dataset)[0].startswith(f"{file}: images[0] (id 1): ")


@pytest.mark.parametrize("number", ["1", 1.0, True, None, 2**70])
def test_ids_of_images(dataset, number):
    edit(dataset, "val", lambda content: content["images"][0].update(id=number))
    assert "images[0]" in problems_of(dataset)[0]


@pytest.mark.parametrize("name", [None, 5, "", ["cat"], "dog"])
def test_names_of_categories(dataset, name):
    edit(dataset, "val", lambda content: content["categories"][0].update(name=name))
    assert "categories[" in problems_of(dataset)[0]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("crowds", [True, False])
def test_a_split_without_instances(dataset, split, crowds):
    change = {"iscrowd": 1} if crowds else None
    file = edit(
        dataset,
        split,
        lambda content: content.update(annotations=[own | change for own in content["annotations"] if change]),
    )
    (problem,) = problems_of(dataset)
    assert (
        missing_facts(problem, f"{file}: ", {"train": "nothing to train on", "val": "nothing to measure"}[split])
        == []
    )


def test_a_training_set_that_the_filter_of_small_images_empties(dataset):
    def shrink(content: dict[str, Any]) -> None:
        for entry in content["images"]:
            entry.update(height=31)
            Image.new("RGB", (WIDTH, 31)).save(dataset.root / "train2017" / entry["file_name"])
        for own in content["annotations"]:
            own.update(bbox=[0, 0, 20, 20], area=400, segmentation=[[0, 0, 20, 0, 20, 20, 0, 20]])

    edit(dataset, "train", shrink)
    (problem,) = problems_of(dataset)
    assert missing_facts(problem, "32 pixels", "min_size", "nothing to train on") == []


def test_few_boxes_without_area_are_counted_as_in_coco_2017(dataset):
    def add(content: dict[str, Any]) -> None:
        content["annotations"] = [PLAIN | {"id": number} for number in range(1, 301)]
        content["annotations"][7].update(bbox=[45, 20, 40, 0], area=0)

    edit(dataset, "train", add)
    report = verify_dataset(dataset)
    assert report.details["train instances too small for training"] == 1
    assert report.details["train instances"] == {"small": 1, "medium": 299, "large": 0}


def test_images_with_an_orientation_are_noted(dataset):
    """An orientation by 180 degrees does not change the size, so that only a note can tell."""
    assert verify_dataset(dataset).notes == []
    exif = Image.Exif()
    exif[0x0112] = 3
    path = dataset.root / "val2017" / "1.jpg"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)
    (note,) = verify_dataset(dataset).notes
    assert missing_facts(note, "1 decoded image", "EXIF orientation", "val2017/1.jpg") == []


def test_every_problem_is_listed_at_once(dataset):
    edit(dataset, "train", lambda content: content["annotations"][0].update(id=0))
    edit(dataset, "val", lambda content: content.update(annotations=[]))
    assert len(problems_of(dataset)) == 2


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "1" * 5000 + "}"], ids=["nested", "digits"])
def test_json_beyond_the_limits_of_python(dataset, text):
    file_of(dataset.root, "val").write_text(text)
    assert missing_facts(problems_of(dataset)[0], file_of(dataset.root, "val"), "not valid JSON: ") == []


def test_a_byte_order_mark_is_refused_because_pycocotools_does_not_read_it(dataset):
    file = file_of(dataset.root, "val")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (problem,) = problems_of(dataset)
    assert missing_facts(problem, file, "byte order mark", "without it") == []


def test_reading_refuses_what_verification_refuses(dataset):
    assert len(read_annotation_file(dataset, "val").images) == 2
    edit(dataset, "val", lambda content: content["annotations"][0].update(id=0))
    with pytest.raises(UserError, match="expected ids from 1, found 0"):
        read_annotation_file(dataset, "val")


@pytest.mark.parametrize(
    "name", ["a\0b.jpg", "\ud800.jpg", "/etc/hostname", "../train2017/1.jpg", ["1.jpg"]], ids=repr
)
def test_names_that_no_file_has_are_refused_without_a_verification(dataset, name):
    file = edit(dataset, "val", lambda content: content["images"][0].update(file_name=name))
    with pytest.raises(UserError, match=re.escape(f"{file}: images[0].file_name: expected the name of a file")):
        compared_digest(dataset, "val", None)


def test_what_is_there_but_is_no_file_is_not_called_missing(dataset):
    folder = dataset.root / "train2017"
    for name, make in (("1.jpg", os.mkfifo), ("2.jpg", os.mkdir)):
        (folder / name).unlink()
        make(folder / name)
    assert problems_of(dataset) == [f"{folder / name}: expected a regular file" for name in ("1.jpg", "2.jpg")]
    (folder / "1.jpg").unlink()
    (folder / "1.jpg").symlink_to("1.jpg")
    assert problems_of(dataset)[0].startswith(f"{folder / '1.jpg'}: cannot be read: ")
    with pytest.raises(UserError, match="named pipe"):
        os.mkfifo(folder / "3.jpg")
        read_image(folder / "3.jpg")


def test_names_in_another_unicode_normal_form_are_explained(dataset):
    edit(dataset, "train", lambda content: content["images"][0].update(file_name="caf\u00e9.jpg"))
    (dataset.root / "train2017" / "1.jpg").rename(dataset.root / "train2017" / "cafe\u0301.jpg")
    (problem,) = problems_of(dataset)
    assert problem.endswith("there is train2017/cafe\u0301.jpg, whose name has another Unicode normal form")


def test_corners_near_the_origin_are_no_box(dataset):
    """Read as width and height, they have an IoU of 0.69 with the mask."""
    near = {"segmentation": [[5, 5, 35, 5, 35, 25, 5, 25]], "area": 600}
    assert "corners" in with_first(dataset, "train", bbox=[5, 5, 35, 25], **near)
    edit(dataset, "train", lambda content: content["annotations"][0].update(bbox=[6, 5, 32, 23]))
    assert verify_dataset(dataset).counts["train"] == 2


def test_an_area_beyond_the_box(dataset):
    assert "larger than that of its bbox" in with_first(dataset, "val", area=WIDTH * HEIGHT)
    edit(dataset, "val", lambda content: content["annotations"][0].update(area=40 * 36))
    assert verify_dataset(dataset).counts["val"] == 2


def test_points_in_pairs_are_explained(dataset):
    for points in ([[5, 5], [35, 5], [35, 25]], [[5, 5], [35, 5], [35, 25], [5, 25]]):
        assert "is a list of points" in with_first(dataset, "val", segmentation=[points])


def test_endless_numbers_are_shortened(dataset):
    for values in ({"id": 10**400}, {"image_id": 10**400}, {"area": 10**400}):
        edit(dataset, "val", lambda content, values=values: content["annotations"][0].update(PLAIN | values))
        (problem,) = problems_of(dataset)
        assert len(problem) - len(str(dataset.root)) < 400
        assert missing_facts(problem, next(iter(values)), "expected", "found 1000") == []


@pytest.mark.parametrize(
    ("key", "wrong"), [("images", {"file_name": ""}), ("images", {"width": 0}), ("categories", {"name": ""})]
)
def test_annotations_of_an_entry_with_a_problem_are_not_reported_too(dataset, key, wrong):
    file = edit(dataset, "train", lambda content: content[key][0].update(wrong))
    found = [line for line in problems_of(dataset) if line.startswith(f"{file}: ")]
    assert not [line for line in found if "annotations[" in line]
    assert found[0].startswith(f"{file}: {key}[0]")
