"""What each image came to: the part of an evaluation that comparing two of them image by image needs.

Not the predictions themselves but what the metrics are made of: hits (classification), areas of intersection and
union per class (segmentation), detections matched with the truth (COCO). From it the metrics follow for any
resampling of the images, without data, model or ground truth. The file lies beside the record, which holds its
SHA-256.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from hafabench.errors import Problem, UserError
from hafabench.files import atomic_path, sha256_of

PREDICTIONS_FILE = "predictions.npz"
# COCO's: IoU 0.50, 0.55 ... 0.95; areas all, small, medium, large; recalls 0, 0.01 ... 1.
THRESHOLDS, SIZES, RECALLS = 10, 4, np.linspace(0, 1, 101)


class Predictions(Protocol):
    """Of one run's evaluation.

    Attributes:
        images: their names, in order.
        metrics: names of what follows from them.
    """

    images: np.ndarray
    metrics: ClassVar[tuple[str, ...]]

    def resampled(self, metric: str, counts: np.ndarray) -> np.ndarray:
        """The metric, in percent, on resampled images.

        Args:
            metric: one of ``metrics``.
            counts: (resamples, images), how often each image occurs in each of them.

        Returns:
            (resamples,); NaN where a resample leaves it undefined.
        """


def identical(one: Predictions, other: Predictions) -> bool:
    """Whether both keep the same of the same images."""
    if type(one) is not type(other):
        return False
    ours, theirs = dict(_arrays(one)), dict(_arrays(other))
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


@dataclass(frozen=True)
class Hits:
    """Classification: for each of N images whether its class was the first, or among the first five, (N,) bool."""

    images: np.ndarray
    top1: np.ndarray
    top5: np.ndarray

    metrics: ClassVar[tuple[str, ...]] = ("top1", "top5")

    def resampled(self, metric: str, counts: np.ndarray) -> np.ndarray:
        """Share of hits."""
        return 100 * (counts @ getattr(self, metric)) / counts.sum(1)


@dataclass(frozen=True)
class Areas:
    """Segmentation: pixels per image and class, (N, classes) integers."""

    images: np.ndarray
    intersection: np.ndarray
    union: np.ndarray
    truth: np.ndarray

    metrics: ClassVar[tuple[str, ...]] = ("miou", "pixel_acc", "mean_acc")

    def resampled(self, metric: str, counts: np.ndarray) -> np.ndarray:
        """Means over the classes that occur: in the truth or, for IoU, in the predictions."""
        hit = counts @ self.intersection.astype(np.float64)
        if metric == "pixel_acc":
            return 100 * hit.sum(1) / (counts @ self.truth.astype(np.float64)).sum(1)
        whole = counts @ (self.union if metric == "miou" else self.truth).astype(np.float64)
        return 100 * _mean_where(whole > 0, hit / np.maximum(whole, 1))


@dataclass(frozen=True)
class Matches:
    """Detection, boxes or masks: detections matched with the truth as COCO's protocol does, per size range.

    Attributes:
        category, image, score: (detections,): index of category and of image, and score; in COCO's order: by
            category, then image, then falling score.
        matched, ignored: (detections, `SIZES`, `THRESHOLDS`) bool.
        truth_category, truth_image: (objects,) indices.
        truth_ignored: (objects, `SIZES`) bool.
    """

    category: np.ndarray
    image: np.ndarray
    score: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_category: np.ndarray
    truth_image: np.ndarray
    truth_ignored: np.ndarray

    metrics: ClassVar[dict[str, tuple[int, slice]]] = {
        "ap": (0, slice(None)),
        "ap50": (0, slice(0, 1)),
        "ap75": (0, slice(5, 6)),
        "ap_s": (1, slice(None)),
        "ap_m": (2, slice(None)),
        "ap_l": (3, slice(None)),
    }

    def average_precision(self, metric: str, counts: np.ndarray) -> np.ndarray:
        """COCO's average precision on resampled images, as in `Predictions.resampled`."""
        size, thresholds = self.metrics[metric]
        found = [
            self._of_category(category, size, thresholds, counts)
            for category in np.unique(self.truth_category[~self.truth_ignored[:, size]])
        ]
        if not found:
            return np.full(len(counts), np.nan)
        per_category = np.stack(found, axis=1)
        return 100 * _mean_where(np.isfinite(per_category), np.nan_to_num(per_category))

    def _of_category(self, category: int, size: int, thresholds: slice, counts: np.ndarray) -> np.ndarray:
        real = (self.truth_category == category) & ~self.truth_ignored[:, size]
        objects = counts[:, self.truth_image[real]].sum(1)
        chosen = np.flatnonzero(self.category == category)
        chosen = chosen[np.argsort(-self.score[chosen], kind="stable")]
        weight = counts[:, self.image[chosen]].astype(np.float64)
        considered = ~self.ignored[chosen, size, thresholds]
        right = self.matched[chosen, size, thresholds] & considered
        precision = np.zeros((len(counts), right.shape[1]))
        for threshold in range(right.shape[1]):
            # Detections of the same image count as often as it occurs. Recall and the highest precision change at
            # right ones alone.
            at = np.flatnonzero(right[:, threshold])
            hits = np.cumsum(weight[:, at], axis=1)
            said = np.cumsum(weight * considered[:, threshold], axis=1)[:, at]
            precision[:, threshold] = _mean_precision(hits, said, objects)
        return np.where(objects > 0, precision.mean(1), np.nan)


def _mean_precision(hits: np.ndarray, said: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Mean over 101 recalls of the highest precision at that recall or a greater one.

    Args:
        hits, said: (resamples, right detections) running numbers of right detections and of all.
        objects: (resamples,) number of objects.
    """
    precision = hits / (said + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # A last column stands for recalls that are never reached.
    highest = np.concatenate([highest, np.zeros((len(highest), 1))], axis=1)
    recall = hits / np.maximum(objects, 1)[:, None]
    at = (np.searchsorted(row, RECALLS, side="left") for row in recall)
    return np.array([row[index].mean() for row, index in zip(highest, at, strict=True)])


@dataclass(frozen=True)
class Detections:
    """Detection: `Matches` of boxes and of masks."""

    images: np.ndarray
    box: Matches
    mask: Matches

    metrics: ClassVar[tuple[str, ...]] = tuple(
        f"{kind}_{name}" for kind in ("box", "mask") for name in Matches.metrics
    )

    def resampled(self, metric: str, counts: np.ndarray) -> np.ndarray:
        """COCO's average precisions."""
        kind, _, name = metric.partition("_")
        return getattr(self, kind).average_precision(name, counts)


_KINDS: dict[str, type] = {"hits": Hits, "areas": Areas, "detections": Detections}


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write ``predictions``: whole or not at all; the same content gives the same bytes."""
    [kind] = [name for name, cls in _KINDS.items() if isinstance(predictions, cls)]
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, kind=kind, **dict(_arrays(predictions)))


def read_predictions(path: Path, sha256: str | None = None) -> Predictions:
    """Read predictions back.

    Args:
        path: the file.
        sha256: that it has to have, where known.

    Raises:
        UserError: for a missing or damaged file, or other content than ``sha256`` says.
    """
    if not path.is_file():
        raise UserError(Problem(str(path), "", "not there, but the record beside it counts on it"))
    if sha256 is not None and sha256_of(path) != sha256:
        raise UserError(Problem(str(path), "", "not the predictions that the record beside it was made with"))
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        cls = _KINDS[str(arrays.pop("kind"))]
        if cls is not Detections:
            return cls(**arrays)
        shape = {"matched": (SIZES, THRESHOLDS), "ignored": (SIZES, THRESHOLDS), "truth_ignored": (SIZES,)}
        parts = {}
        for part in ("box", "mask"):
            own = {field.name: arrays[f"{part}.{field.name}"] for field in fields(Matches)}
            for name, tail in shape.items():
                length = len(own["truth_image" if name == "truth_ignored" else "image"])
                own[name] = (
                    np.unpackbits(own[name], count=length * int(np.prod(tail))).reshape(length, *tail).astype(bool)
                )
            parts[part] = Matches(**own)
        return Detections(arrays["images"], **parts)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(Problem(str(path), "", f"not readable predictions: {error}")) from None


def _arrays(predictions: Predictions) -> Iterator[tuple[str, np.ndarray]]:
    for field in fields(predictions):
        value = getattr(predictions, field.name)
        if isinstance(value, Matches):
            for name, array in _arrays(value):
                yield f"{field.name}.{name}", np.packbits(array) if array.dtype == bool else array
        else:
            yield field.name, value


def _mean_where(defined: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of each row's defined values; NaN where there is none."""
    number = defined.sum(1)
    total = np.where(defined, values, 0).sum(1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
