"""COCO's average precisions, computed by pycocotools with its own protocol, without rounding or printed output."""

from __future__ import annotations

import contextlib
import io
from dataclasses import fields
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hafabench.results.predictions import SIZES, THRESHOLDS, Matches

NAMES = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
"""AP over IoU 0.50:0.95, AP at IoU 0.50 and 0.75, AP of small, medium and large objects."""


def average_precisions(truth: COCO, detections: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """Compute the six average precisions in percent; a size range without any object is left out.

    Args:
        truth: The annotated objects. All its images and categories count.
        detections: Detections in COCO's result format: ``image_id``, ``category_id``, ``score``, and ``bbox`` (x, y,
            width, height in pixels) or ``segmentation`` (run lengths).
        kind: ``bbox`` or ``segm``.
    """
    return average_precisions_and_matches(truth, detections, kind)[0]


def average_precisions_and_matches(
    truth: COCO, detections: list[dict[str, Any]], kind: str
) -> tuple[dict[str, float], Matches]:
    """Compute `average_precisions`, and which detections matched an object.

    Images are numbered in the order of ``truth.getImgIds()``.
    """
    detections = result_entries(detections, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(detections) if detections else _no_detections(truth), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools returns -1 for values that are not defined.
    found = {name: 100 * float(value) for name, value in zip(NAMES, evaluation.stats[:6], strict=True) if value >= 0}
    return found, _matches(evaluation)


def result_entries(detections: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return detections as COCO's result format has them for boxes (``bbox``) or for masks (``segm``).

    If a detection of a mask also had a box, pycocotools would use the area of the box for the size ranges.
    """
    other = {"bbox": "segmentation", "segm": "bbox"}[kind]
    return [{key: value for key, value in item.items() if key != other} for item in detections]


def _matches(evaluation: COCOeval) -> Matches:
    """Return pycocotools' matching of detections with objects, image by image, as arrays."""
    parameters = evaluation.params
    shape = (len(parameters.catIds), len(parameters.areaRng), len(parameters.imgIds))
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Matches)}
    for category in range(shape[0]):
        for image in range(shape[2]):
            # All size ranges have the same detections in the same order, and the same objects in different orders.
            sizes = [
                evaluation.evalImgs[np.ravel_multi_index((category, size, image), shape)] for size in range(SIZES)
            ]
            if sizes[0] is None:
                continue
            detected, objects = len(sizes[0]["dtIds"]), sizes[0]["gtIds"]
            ignored = [dict(zip(size["gtIds"], size["gtIgnore"], strict=True)) for size in sizes]
            columns["category"].append(np.full(detected, category, np.int32))
            columns["image"].append(np.full(detected, image, np.int32))
            columns["score"].append(np.array(sizes[0]["dtScores"], np.float64))
            columns["matched"].append(np.stack([size["dtMatches"].T != 0 for size in sizes], axis=1))
            columns["ignored"].append(np.stack([size["dtIgnore"].T != 0 for size in sizes], axis=1))
            columns["truth_category"].append(np.full(len(objects), category, np.int32))
            columns["truth_image"].append(np.full(len(objects), image, np.int32))
            columns["truth_ignored"].append(
                np.array([[size[name] for size in ignored] for name in objects], bool).reshape(-1, SIZES)
            )
    empty = {
        **dict.fromkeys(columns, np.zeros(0, np.int32)),
        "score": np.zeros(0),
        **dict.fromkeys(("matched", "ignored"), np.zeros((0, SIZES, THRESHOLDS), bool)),
        "truth_ignored": np.zeros((0, SIZES), bool),
    }
    return Matches(**{name: np.concatenate([empty[name], *parts]) for name, parts in columns.items()})


def _no_detections(truth: COCO) -> COCO:
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
