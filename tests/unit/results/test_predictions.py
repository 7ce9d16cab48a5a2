"""Stored predictions per image give the metrics of all images and of any resampling."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO

from hafabench.engines.dense.coco_ap import average_precisions, average_precisions_and_matches
from hafabench.errors import UserError
from hafabench.files import sha256_of, write_text
from hafabench.results.predictions import Areas, Detections, Hits, Matches, read_predictions, write_predictions

IMAGES, CATEGORIES = 12, 3


def scene(rng: np.random.Generator) -> tuple[dict, list[dict]]:
    """Objects of all size ranges, some of them crowds; detections off by a little, tied in score, or of nothing."""
    objects, found = [], []
    for image in range(IMAGES):
        for _ in range(rng.integers(0, 6)):
            side = float(rng.choice([12, 50, 150]))
            box = [*rng.uniform(0, 300, 2).tolist(), side, side]
            category = int(rng.integers(1, CATEGORIES + 1))
            crowd = int(rng.random() < 0.1)
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": side * side,
                    "iscrowd": crowd,
                    "segmentation": [],
                }
            )
            for _ in range(rng.integers(0, 3)):
                shifted = [box[0] + rng.normal() * side / 20, box[1], side * rng.uniform(0.7, 1.3), side]
                score = float(rng.choice([0.2, 0.4, 0.6, 0.8]))
                said = category if rng.random() < 0.8 else 1
                found.append({"image_id": image, "category_id": said, "bbox": shifted, "score": score})
    images = [{"id": image, "file_name": f"{image}.jpg", "width": 500, "height": 500} for image in range(IMAGES)]
    categories = [{"id": index + 1, "name": str(index)} for index in range(CATEGORIES)]
    return {"images": images, "categories": categories, "annotations": objects}, found


def coco(content: dict) -> COCO:
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def only(content: dict, found: list[dict], images: set[int]) -> tuple[dict, list[dict]]:
    kept = {**content, "images": [image for image in content["images"] if image["id"] in images]}
    kept["annotations"] = [item for item in content["annotations"] if item["image_id"] in images]
    return kept, [item for item in found if item["image_id"] in images]


@pytest.mark.parametrize("seed", range(4))
def test_average_precisions_from_matches_equal_pycocotools(seed):
    rng = np.random.default_rng(seed)
    content, found = scene(rng)
    values, matches = average_precisions_and_matches(coco(content), found, "bbox")
    assert 0 < values["ap"] < 100
    again = {name: matches.average_precision(name, np.ones((1, IMAGES))).item() for name in Matches.metrics}
    assert {name: value for name, value in again.items() if np.isfinite(value)} == pytest.approx(values)
    # The value of a resample without some images is what pycocotools computes for the others.
    counts = (rng.random((5, IMAGES)) < 0.6).astype(int)
    resampled = matches.average_precision("ap", counts)
    for row, value in zip(counts, resampled, strict=True):
        part = only(content, found, set(np.flatnonzero(row).tolist()))
        assert value == pytest.approx(average_precisions(coco(part[0]), part[1], "bbox")["ap"])


def test_an_image_drawn_three_times_counts_three_times():
    content, found = scene(np.random.default_rng(5))
    _, matches = average_precisions_and_matches(coco(content), found, "bbox")
    once, thrice = matches.average_precision("ap", np.stack([np.ones(IMAGES), np.full(IMAGES, 3)]))
    assert once == pytest.approx(thrice)
    assert once != pytest.approx(matches.average_precision("ap", np.arange(IMAGES)[None]).item(), rel=1e-3)


def test_without_any_detection_or_object():
    content, _ = scene(np.random.default_rng(0))
    _, matches = average_precisions_and_matches(coco(content), [], "bbox")
    assert matches.average_precision("ap", np.ones((2, IMAGES))).tolist() == [0, 0]
    _, matches = average_precisions_and_matches(coco({**content, "annotations": []}), [], "bbox")
    assert np.isnan(matches.average_precision("ap", np.ones((1, IMAGES)))).all()


def areas() -> Areas:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 50, (6, 4)) * np.array([1, 1, 1, 0])
    intersection = (truth * rng.random((6, 4))).astype(np.int64)
    union = truth + rng.integers(0, 9, (6, 4)) * np.array([1, 1, 1, 0])
    return Areas(np.array([f"{i}.png" for i in range(6)]), intersection, union, truth)


def test_mean_iou_follows_from_the_areas_and_skips_classes_that_do_not_occur():
    kept = areas()
    hit, union, truth = (part[:, :3].sum(0) for part in (kept.intersection, kept.union, kept.truth))
    ones = np.ones((1, 6))
    assert kept.resampled("miou", ones).item() == pytest.approx(100 * np.mean(hit / union))
    assert kept.resampled("mean_acc", ones).item() == pytest.approx(100 * np.mean(hit / truth))
    assert kept.resampled("pixel_acc", ones).item() == pytest.approx(100 * hit.sum() / truth.sum())
    twice = kept.resampled("miou", np.array([[2, 0, 0, 0, 0, 1]])).item()
    hit, union = (2 * part[0, :3] + part[5, :3] for part in (kept.intersection, kept.union))
    assert twice == pytest.approx(100 * np.mean(hit / union))


def kinds():
    content, found = scene(np.random.default_rng(1))
    _, matches = average_precisions_and_matches(coco(content), found, "bbox")
    _, nothing = average_precisions_and_matches(coco(content), [], "bbox")
    names = np.array([f"{i}.jpg" for i in range(IMAGES)])
    hits = Hits(names, np.arange(IMAGES) % 3 == 0, np.arange(IMAGES) % 3 < 2)
    return [hits, areas(), Detections(names, matches, nothing)]


@pytest.mark.parametrize("kept", kinds(), ids=lambda kept: type(kept).__name__)
def test_predictions_are_read_back_and_their_bytes_depend_on_content_only(kept, tmp_path):
    one, other = tmp_path / "predictions.npz", tmp_path / "again.npz"
    write_predictions(one, kept)
    again = read_predictions(one, sha256_of(one))
    assert type(again) is type(kept)
    assert again.images.tolist() == kept.images.tolist()
    counts = np.random.default_rng(2).multinomial(
        len(kept.images), np.full(len(kept.images), 1 / len(kept.images)), 5
    )
    for metric in kept.metrics:
        assert np.array_equal(again.resampled(metric, counts), kept.resampled(metric, counts), equal_nan=True), metric
    write_predictions(other, again)
    assert one.read_bytes() == other.read_bytes()


def test_missing_changed_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "predictions.npz"
    with pytest.raises(UserError, match="no such file, but the record beside it needs it"):
        read_predictions(path)
    write_predictions(path, areas())
    with pytest.raises(UserError, match="not the predictions that the record beside it was made with"):
        read_predictions(path, "0" * 64)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="not readable predictions"):
        read_predictions(path)
    path.write_text("no archive")
    with pytest.raises(UserError, match="not readable predictions"):
        read_predictions(path)


def test_texts_keep_the_bytes_of_names_that_the_locale_cannot_decode(tmp_path):
    write_text(tmp_path / "a.md", "é".encode().decode("ascii", "surrogateescape"))
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "é"
