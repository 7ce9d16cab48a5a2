"""The outcome of each image in an evaluation, by which two evaluations are compared image by image.

A file contains what the metrics are computed from: hits (classification), areas of intersection and union per class
(segmentation), or detections matched with the ground truth as in COCO (detection). The metrics of any resample of the
images follow from it without data, model or ground truth. The file is stored beside the record, which contains its
SHA-256.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hafabench.errors import Problem, UserError
from hafabench.files import IsMade, atomic_path, sha256_of
from hafabench.results.record import is_output

# COCO's: IoU 0.50, 0.55 ... 0.95; areas all, small, medium, large; recalls 0, 0.01 ... 1.
THRESHOLDS, SIZES, RECALLS = 10, 4, np.linspace(0, 1, 101)

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.integer[Any]]
Names: TypeAlias = NDArray[np.str_]


class Predictions(Protocol):
    """The predictions of one run's evaluation."""

    metrics: ClassVar[tuple[str, ...]]
    """The names of the metrics that follow from them."""

    @property
    def images(self) -> Names:
        """(N,) the names of the images, in order."""

    def check(self) -> None:
        """Raise a ValueError if the arrays contradict each other."""

    def resampled(self, metric: str, counts: Integers) -> Floats:
        """Return a metric, in percent, on resampled images.

        Args:
            metric: One of ``metrics``.
            counts: (resamples, N) how often each resample contains each image.

        Returns:
            (resamples,) the metric; NaN for resamples in which it is undefined.
        """


def identical(one: Predictions, other: Predictions) -> bool:
    """Return whether two evaluations have the same outcome on the same images."""
    if type(one) is not type(other):
        return False
    arrays, others = dict(_arrays(one)), dict(_arrays(other))
    return all(np.array_equal(arrays[name], others[name]) for name in arrays)


@dataclass(frozen=True)
class Hits:
    """Classification: (N,) whether the right class is the most probable one, and whether it is among the top five."""

    images: Names
    top1: Bools
    top5: Bools

    metrics: ClassVar[tuple[str, ...]] = ("top1", "top5")

    def check(self) -> None:
        """Raise a ValueError if the arrays contradict each other."""
        _check_names(self.images)
        for name, hits in (("top1", self.top1), ("top5", self.top5)):
            _expect(hits.shape == self.images.shape and hits.dtype == bool, f"expected {name} for each image")

    def resampled(self, metric: str, counts: Integers) -> Floats:
        """Return the share of hits."""
        hits: Bools = getattr(self, metric)
        return np.asarray(100 * (counts @ hits) / counts.sum(1))


@dataclass(frozen=True)
class Areas:
    """Segmentation: (N, classes) the pixels of intersection, union and ground truth."""

    images: Names
    intersection: Integers
    union: Integers
    truth: Integers

    metrics: ClassVar[tuple[str, ...]] = ("miou", "pixel_acc", "mean_acc")

    def check(self) -> None:
        """Raise a ValueError if the arrays contradict each other."""
        _check_names(self.images)
        for name, areas in (("intersection", self.intersection), ("union", self.union), ("truth", self.truth)):
            is_table = areas.ndim == 2 and areas.shape == self.truth.shape and len(areas) == len(self.images)
            _expect(is_table and areas.dtype.kind in "iu", f"expected the {name} of each image and class")
            _expect((areas >= 0).all(), f"a negative {name}")
        is_part = (self.intersection <= self.truth) & (self.truth <= self.union)
        _expect(is_part.all(), "an intersection larger than the object, or an object larger than the union")

    def resampled(self, metric: str, counts: Integers) -> Floats:
        """Return the mean over the classes that occur in the ground truth or, for IoU, in the predictions."""
        hit = counts @ self.intersection.astype(np.float64)
        if metric == "pixel_acc":
            return np.asarray(100 * hit.sum(1) / (counts @ self.truth.astype(np.float64)).sum(1))
        whole = counts @ (self.union if metric == "miou" else self.truth).astype(np.float64)
        return 100 * _mean_where(whole > 0, hit / np.maximum(whole, 1))


@dataclass(frozen=True)
class Matches:
    """Detection, boxes or masks: detections matched with the ground truth as in COCO's protocol, per size range.

    Attributes:
        category: (detections,) the index of the category. Detections are in COCO's order: by category, then image,
            then falling score.
        image: (detections,) the index of the image.
        score: (detections,) the score.
        matched: (detections, `SIZES`, `THRESHOLDS`) whether a detection matches an object.
        ignored: (detections, `SIZES`, `THRESHOLDS`) whether a detection does not count.
        truth_category: (objects,) the index of the category.
        truth_image: (objects,) the index of the image.
        truth_ignored: (objects, `SIZES`) whether an object does not count.
    """

    category: Integers
    image: Integers
    score: Floats
    matched: Bools
    ignored: Bools
    truth_category: Integers
    truth_image: Integers
    truth_ignored: Bools

    metrics: ClassVar[dict[str, tuple[int, slice]]] = {
        "ap": (0, slice(None)),
        "ap50": (0, slice(0, 1)),
        "ap75": (0, slice(5, 6)),
        "ap_s": (1, slice(None)),
        "ap_m": (2, slice(None)),
        "ap_l": (3, slice(None)),
    }

    def check(self, images: int) -> None:
        """Raise a ValueError if the arrays contradict each other; ``images`` is the number of images."""
        kinds = {"category": "iu", "image": "iu", "score": "f", "truth_category": "iu", "truth_image": "iu"}
        for name, kind in kinds.items():
            array = getattr(self, name)
            expected = self.truth_image if name.startswith("truth") else self.image
            _expect(array.shape == (len(expected),) and array.dtype.kind in kind, f"unexpected values of {name}")
        _expect(np.isfinite(self.score).all(), "a score is no finite number")
        for found in (self.image, self.truth_image):
            _expect(((found >= 0) & (found < images)).all(), "an image that does not exist")

    def average_precision(self, metric: str, counts: Integers) -> Floats:
        """Return COCO's average precision on resampled images; see `Predictions.resampled`."""
        size, thresholds = self.metrics[metric]
        found = [
            self._of_category(category, size, thresholds, counts)
            for category in np.unique(self.truth_category[~self.truth_ignored[:, size]])
        ]
        if not found:
            return np.full(len(counts), np.nan)
        per_category = np.stack(found, axis=1)
        return 100 * _mean_where(np.isfinite(per_category), np.nan_to_num(per_category))

    def _of_category(self, category: int, size: int, thresholds: slice, counts: Integers) -> Floats:
        counted = (self.truth_category == category) & ~self.truth_ignored[:, size]
        objects = counts[:, self.truth_image[counted]].sum(1)
        chosen = np.flatnonzero(self.category == category)
        chosen = chosen[np.argsort(-self.score[chosen], kind="stable")]
        weight = counts[:, self.image[chosen]].astype(np.float64)
        considered = ~self.ignored[chosen, size, thresholds]
        right = self.matched[chosen, size, thresholds] & considered
        precision = np.zeros((len(counts), right.shape[1]))
        for threshold in range(right.shape[1]):
            # Detections of an image count as often as the image occurs. Recall and the highest precision change only
            # at right detections.
            at = np.flatnonzero(right[:, threshold])
            hits = np.cumsum(weight[:, at], axis=1)
            detections = np.cumsum(weight * considered[:, threshold], axis=1)[:, at]
            precision[:, threshold] = _mean_precision(hits, detections, objects)
        return np.where(objects > 0, precision.mean(1), np.nan)


def _mean_precision(hits: Floats, detections: Floats, objects: Integers) -> Floats:
    """Return the mean over 101 recalls of the highest precision at that recall or a greater one.

    Args:
        hits: (resamples, right detections) the number of right detections so far.
        detections: (resamples, right detections) the number of all detections so far.
        objects: (resamples,) the number of objects.
    """
    precision = hits / (detections + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # The last column is for recalls that are never reached.
    highest = np.concatenate([highest, np.zeros((len(highest), 1))], axis=1)
    recall = hits / np.maximum(objects, 1)[:, None]
    at = (np.searchsorted(row, RECALLS, side="left") for row in recall)
    return np.array([row[index].mean() for row, index in zip(highest, at, strict=True)])


@dataclass(frozen=True)
class Detections:
    """Detection: `Matches` of boxes and of masks."""

    images: Names
    box: Matches
    mask: Matches

    metrics: ClassVar[tuple[str, ...]] = tuple(
        f"{kind}_{name}" for kind in ("box", "mask") for name in Matches.metrics
    )

    def check(self) -> None:
        """Raise a ValueError if the arrays contradict each other."""
        _check_names(self.images)
        self.box.check(len(self.images))
        self.mask.check(len(self.images))

    def resampled(self, metric: str, counts: Integers) -> Floats:
        """Return COCO's average precision of boxes or masks."""
        kind, _, name = metric.partition("_")
        matches = self.box if kind == "box" else self.mask
        return matches.average_precision(name, counts)


_KINDS: dict[str, type[Hits] | type[Areas] | type[Detections]] = {
    "hits": Hits,
    "areas": Areas,
    "detections": Detections,
}
PREDICTIONS_OF: dict[str, type[Hits] | type[Areas] | type[Detections]] = {
    "classification": Hits,
    "segmentation": Areas,
    "detection": Detections,
}
"""The kind of predictions of each task."""
# What reading a damaged or made-up archive raises, apart from errors of the file system.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(KeyError, TypeError, ValueError, IndexError, OverflowError, MemoryError),
)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions to a file atomically. The same content gives the same bytes."""
    [kind] = [name for name, cls in _KINDS.items() if isinstance(predictions, cls)]
    arrays: dict[str, Any] = dict(_arrays(predictions))
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, kind=kind, **arrays)


def read_predictions(path: Path, sha256: str | None = None) -> Predictions:
    """Read predictions.

    Args:
        path: The file.
        sha256: The SHA-256 that the file must have, if known.

    Raises:
        UserError: If the file is missing, damaged, or has another SHA-256.
    """
    if not path.is_file():
        what = "expected a regular file" if path.exists() else "no such file, but the record beside it needs it"
        raise UserError(Problem(str(path), "", what))
    if sha256 is not None and sha256_of(path) != sha256:
        raise UserError(Problem(str(path), "", "not the predictions that the record beside it was made with"))
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        cls = _KINDS[str(arrays.pop("kind"))]
        if issubclass(cls, Detections):
            boxes, masks = _read_matches(arrays, "box"), _read_matches(arrays, "mask")
            found: Predictions = Detections(arrays["images"], boxes, masks)
        else:
            found = cls(**arrays)
        found.check()
    except (*_UNREADABLE, OSError) as error:
        raise UserError(Problem(str(path), "", f"not readable predictions: {error}")) from None
    return found


def made_outputs(predictions: Path) -> IsMade:
    """Return what tells whether an evaluation wrote a file of its folder of detections or label maps.

    Args:
        predictions: The predictions of the evaluation, whose names of images are those of the label maps. If they
            cannot be read, every PNG file counts.
    """
    try:
        images = {Path(str(name)).stem for name in read_predictions(predictions).images}
    except UserError:
        return is_output
    return lambda path: is_output(path) and (path.suffix != ".png" or path.stem in images)


def _expect(condition: bool | np.bool_, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _check_names(images: Names) -> None:
    _expect(images.ndim == 1 and images.dtype.kind == "U", "expected a list of names of images")
    _expect(len(images) > 0, "expected at least one image")


def _read_matches(arrays: dict[str, NDArray[Any]], kind: str) -> Matches:
    found = {field.name: arrays[f"{kind}.{field.name}"] for field in fields(Matches)}
    shapes = {
        "matched": (len(found["image"]), SIZES, THRESHOLDS),
        "ignored": (len(found["image"]), SIZES, THRESHOLDS),
        "truth_ignored": (len(found["truth_image"]), SIZES),
    }
    for name, shape in shapes.items():
        found[name] = np.unpackbits(found[name], count=int(np.prod(shape))).reshape(shape).astype(bool)
    return Matches(**found)


def _arrays(predictions: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Return the arrays of a dataclass of predictions by name; those of `Matches` are packed."""
    for field in fields(predictions):
        value = getattr(predictions, field.name)
        if isinstance(value, Matches):
            for name, array in _arrays(value):
                yield f"{field.name}.{name}", np.packbits(array) if array.dtype == bool else array
        else:
            yield field.name, value


def _mean_where(defined: Bools, values: Floats) -> Floats:
    """Return the mean of each row's defined values; NaN if there are none."""
    number = defined.sum(1)
    total = np.where(defined, values, 0).sum(1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
