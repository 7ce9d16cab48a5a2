"""Time of COCO's average precision and of mean IoU per image, relative to one forward pass."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from pycocotools import mask as masks
from pycocotools.coco import COCO

from benchmarks.rows import Row
from benchmarks.timing import THREADS
from hafabench.config.catalog import CATALOG
from hafabench.engines.dense.coco_ap import average_precisions_and_matches
from hafabench.engines.dense.model import build_dense_model, load_mm
from hafabench.stats.intervals import Interval, median_interval

# COCO has 7 objects per image; Mask R-CNN keeps up to 100 detections.
CLASSES, OBJECTS, DETECTIONS, SIDE = 80, 7, 100, 480
LIMIT = 0.1
SEGMENTS = 150


def evaluation(quick: bool) -> Iterator[Row]:
    """Compare the time of the metrics with that of a forward pass on one thread; on a GPU the pass is faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    repeats = 2 if quick else 8
    try:
        ap = _seconds(_average_precisions(50 if quick else 200), repeats)
        detector = _seconds(_forward("detection"), repeats)
        yield _share("COCO box and mask AP", ap, detector, "Mask R-CNN PVT-Tiny with HAFA at 800x1280, up to the RPN")
        miou = _seconds(_mean_iou(), repeats)
        segmenter = _seconds(_forward("segmentation"), repeats)
        yield _share("mean IoU", miou, segmenter, "Semantic FPN PVT-Tiny with HAFA at 512x512")
    finally:
        torch.set_num_threads(threads)


def _share(what: str, metric: list[float], forward: list[float], of: str) -> Row:
    ratios = [own / whole for own, whole in zip(metric, forward, strict=True)]
    note = f"{1e3 * np.median(metric):.1f} ms per image, one thread; {of}: {1e3 * np.median(forward):.0f} ms"
    interval: Interval = median_interval(ratios)
    return Row.of("evaluation", f"{what} / forward pass, per image", interval, at_most=LIMIT, note=note)


def _seconds(call: Callable[[], int], repeats: int) -> list[float]:
    """Measure the seconds per image. Each call returns the number of images that it processed."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        images = call()
        found.append((time.perf_counter() - start) / images)
    return found[1:]


def _average_precisions(images: int) -> Callable[[], int]:
    random = np.random.default_rng(0)
    truth, detections = COCO(), []
    content: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": index + 1, "name": str(index)} for index in range(CLASSES)]
    for image in range(images):
        content["images"].append({"id": image, "file_name": str(image), "height": SIDE, "width": SIDE})
        kinds = random.integers(1, CLASSES + 1, OBJECTS)
        boxes = np.c_[random.integers(0, SIDE // 2, (OBJECTS, 2)), random.integers(8, SIDE // 2, (OBJECTS, 2))]
        for kind, box in zip(kinds.tolist(), boxes.tolist(), strict=True):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image,
                    "category_id": kind,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "segmentation": _run_lengths(box),
                }
            )
        for score in random.random(DETECTIONS).tolist():
            chosen = int(random.integers(OBJECTS))
            box = (boxes[chosen] + random.integers(-4, 5, 4)).clip(1).tolist()
            about = {"image_id": image, "category_id": int(kinds[chosen]), "score": score}
            detections.append({**about, "bbox": box, "segmentation": _run_lengths(box)})
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()

    def call() -> int:
        for kind in ("bbox", "segm"):
            average_precisions_and_matches(truth, [dict(item) for item in detections], kind)
        return images

    return call


def _run_lengths(box: list[int]) -> dict:
    x, y, width, height = box
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return masks.encode(mask)


def _mean_iou() -> Callable[[], int]:
    mm = load_mm()
    with mm.scope("segmentation"):
        metric = mm.metric("segmentation")
    metric.dataset_meta = {"classes": [str(index) for index in range(SEGMENTS)]}
    generator = torch.Generator().manual_seed(0)
    labels, found = (torch.randint(SEGMENTS, (1, 512, 683), generator=generator) for _ in range(2))
    sample = {"gt_sem_seg": {"data": labels}, "pred_sem_seg": {"data": found}}

    def call() -> int:
        images = 20
        metric.results.clear()
        for _ in range(images):
            metric.process({}, [sample])
        metric.compute_metrics(metric.results)
        return images

    return call


def _forward(task: str) -> Callable[[], int]:
    """Run the model without its heads, which gives a lower bound of the time to evaluate an image."""
    size = {"segmentation": (512, 512), "detection": (800, 1280)}[task]
    model = build_dense_model(CATALOG["pvt_tiny_hafa"], task, {"segmentation": SEGMENTS, "detection": 80}[task])
    model.eval()
    image = torch.randn(1, 3, *size)

    def call() -> int:
        with torch.inference_mode():
            maps = model.extract_feat(image)
            (model.rpn_head if task == "detection" else model.decode_head)(maps)
        return 1

    return call
