"""An experiment's pictures: Figure 4 of the paper on its own data, and LAA's sampling points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hafabench.config.experiment import Experiment
from hafabench.data.classes import Colour, class_palette, segmentation_classes
from hafabench.files import atomic_path, sha256_of
from hafabench.pictures import draw
from hafabench.pictures.index import CLUSTERS, OFFSETS, PictureIndex, Sheet, Weights, index_file, write_index
from hafabench.pictures.inference import samplings, segmentations
from hafabench.pictures.samples import Segmentation, Windows
from hafabench.runs.picture_runs import picture_subjects
from hafabench.runs.run import Run, expand

IMAGES = 4  # per sheet
_IGNORED = 255
_QUALITY = 92  # of WebP: a tenth of a PNG's size, and no difference to be seen


def draw_pictures(experiment: Experiment) -> PictureIndex:
    """Draw the sheets that the experiment has trained models for, and write them with their index.

    The same weights and data give the same bytes.

    Raises:
        UserError: where a checkpoint or data is missing, or is another run's.
    """
    path = index_file(experiment)
    subjects = picture_subjects(expand(experiment))
    index = PictureIndex(
        experiment=experiment.name,
        clusters=_clusters_sheet(subjects.pair, path.with_name(CLUSTERS)) if subjects.pair else None,
        offsets=_offsets_sheet(subjects.sampler, path.with_name(OFFSETS)) if subjects.sampler else None,
    )
    write_index(path, index)
    return index


def _clusters_sheet(pair: tuple[Run, Run], path: Path) -> Sheet:
    baseline, variant = pair
    count = variant.dataset.num_classes
    tiles, captions = [], []
    found = segmentations(pair, IMAGES)
    for one in found:
        predicted = [draw.classes_tile(one.image, classes, count) for classes in one.predicted]
        truth = draw.classes_tile(one.image, one.truth, count)
        tiles.append([draw.fitted(one.image), draw.clusters_tile(one.image, one.clusters), *predicted, truth])
        number = int(one.clusters.max()) + 1
        captions.append([one.name, f"{one.clusters.size} cells in {number} clusters", *_agreements(one), ""])
    columns = ["image", "SIA clusters", baseline.model.name, variant.model.name, "ground truth"]
    rows, height = found[0].clusters.shape, found[0].image.shape[0]
    names = segmentation_classes(variant.dataset) or []
    return _write(
        path,
        tiles,
        columns,
        captions,
        [one.name for one in found],
        [baseline, variant],
        legend=[(name, _hex(colour)) for name, colour in zip(names, class_palette(count), strict=False)],
        facts=[
            f"Clusters: {variant.model.name} merges the cells of its stage 3 grid ({height // rows[0]} pixels a "
            "side) into stage 4's tokens; cells of one colour are one token.",
            "Percentages: labelled pixels of the image that are given their class.",
        ],
    )


def _agreements(one: Segmentation) -> list[str]:
    """Share of labelled pixels that each model gives their class."""
    known = one.truth != _IGNORED
    return [f"{100 * np.mean(classes[known] == one.truth[known]):.1f} % right" for classes in one.predicted]


def _offsets_sheet(run: Run, path: Path) -> Sheet:
    tiles, captions = [], []
    found = samplings(run, IMAGES)
    for one in found:
        drawn = [draw.windows_tile(one.image, windows) for windows in one.windows]
        tiles.append([draw.fitted(one.image), *drawn])
        captions.append([f"{one.label}, taken for {one.predicted}", *map(_distance, one.windows)])
    stages = [windows.stage for windows in found[0].windows]
    return _write(
        path,
        tiles,
        ["image", *(f"LAA into stage {stage}" for stage in stages)],
        captions,
        [one.name for one in found],
        [run],
        legend=[],
        facts=[
            "Squares are the fixed windows that a strided convolution would read (some of them, evenly "
            "chosen), rings their cells' centres; a line leads from each to the point that LAA samples instead, at "
            "true length.",
            "Under each image: how far points move, in sides of a cell: mean, and the farthest.",
        ],
    )


def _distance(windows: Windows) -> str:
    moved = np.linalg.norm(windows.moved - windows.fixed, axis=-1) / windows.cell
    return f"moved {moved.mean():.2f}, at most {moved.max():.2f}"


def _write(
    path: Path,
    tiles: Sequence[Sequence[Image.Image]],
    columns: list[str],
    captions: list[list[str]],
    rows: list[str],
    runs: Sequence[Run],
    *,
    legend: list[tuple[str, str]],
    facts: list[str],
) -> Sheet:
    with atomic_path(path) as temporary:
        draw.sheet(tiles, columns, captions).save(temporary, format="WEBP", quality=_QUALITY, method=6)
    left, top = draw.places(len(rows), len(columns))
    return Sheet(
        file=path.name,
        sha256=sha256_of(path),
        dataset=runs[-1].dataset.name,
        tile=draw.TILE,
        columns=columns,
        rows=rows,
        left=left,
        top=top,
        captions=captions,
        legend=legend,
        weights=[
            Weights(run=run.id, fingerprint=run.fingerprint, checkpoint_sha256=sha256_of(run.checkpoint))
            for run in runs
        ],
        facts=facts,
    )


def _hex(colour: Colour) -> str:
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"
