"""COCO's average precisions by pycocotools, under its own protocol, unrounded and without its printing."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
"""AP over IoU 0.50:0.95, AP at IoU 0.50 and 0.75, AP of small, medium and large objects."""


def average_precisions(truth: COCO, detections: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """The six average precisions in percent; a size range without any object is left out.

    Args:
        truth: the annotated objects; all its images and categories count.
        detections: in COCO's result format: ``image_id``, ``category_id``, ``score``, and ``bbox`` (x, y, width,
            height in pixels) or ``segmentation`` (run lengths).
        kind: ``bbox`` or ``segm``.
    """
    if kind == "segm":
        # With a box, pycocotools would take the box's area for the mask's in the size ranges.
        detections = [{key: value for key, value in item.items() if key != "bbox"} for item in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(detections) if detections else _nothing(truth), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools gives -1 for what is not defined.
    return {name: 100 * float(value) for name, value in zip(NAMES, evaluation.stats[:6], strict=True) if value >= 0}


def _nothing(truth: COCO) -> COCO:
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
