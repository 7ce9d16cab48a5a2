"""Draw an experiment's pictures: the clusters of SIA with the segmentations, and LAA's sampling points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hafabench.config.experiment import DatasetConfig, Experiment
from hafabench.data.classes import class_palette, segmentation_classes
from hafabench.engines.trained import collapse_of, read_final
from hafabench.files import atomic_path, sha256_of
from hafabench.formatting.numbers import format_fixed
from hafabench.pictures.contact_sheet import compose_contact_sheet
from hafabench.pictures.index import (
    PictureIndex,
    Sheet,
    SheetRow,
    Tile,
    Weights,
    write_index,
)
from hafabench.pictures.inference import classify_images, segment_images
from hafabench.pictures.samples import SamplingPoints, SegmentedImage
from hafabench.pictures.tiles import (
    TILE_SIZE,
    draw_classes,
    draw_clusters,
    draw_sampling_points,
    resize_to_square,
    save_tile,
)
from hafabench.runs.paths import picture_index
from hafabench.runs.picture_runs import SheetLayout, clusters_layout, offsets_layout, picture_subjects
from hafabench.runs.run import Run, expand

_NOT_LABELLED = 255
_SHEET_QUALITY = 92  # of lossy WebP, which has a tenth of the size of a PNG without visible loss

Captioned = tuple[Image.Image, str]


def draw_pictures(experiment: Experiment) -> PictureIndex:
    """Draw the pictures that the experiment trains models for, and write the tiles, contact sheets and index.

    The same weights and data give the same bytes. If the training of a run collapsed, its sheet has blank tiles.

    Raises:
        UserError: If a checkpoint or data is missing, or belongs to another run.
    """
    path = picture_index(experiment)
    subjects = picture_subjects(expand(experiment))
    index = PictureIndex(
        experiment=experiment.name,
        clusters=draw_clusters_sheet(subjects.pair, path.parent) if subjects.pair else None,
        offsets=draw_offsets_sheet(subjects.sampler, path.parent) if subjects.sampler else None,
    )
    write_index(path, index)
    return index


def _collapsed_sheet(layout: SheetLayout, folder: Path) -> Sheet | None:
    """Write a sheet of blank tiles if the training of a run that it shows collapsed; return None otherwise."""
    collapses = {run.id: collapse_of(read_final(run, run.checkpoint)) for run in layout.runs}
    notes = [f"{run}: {collapse.clause(run)}." for run, collapse in collapses.items() if collapse is not None]
    if not notes:
        return None
    blank = Image.new("RGB", (TILE_SIZE, TILE_SIZE), "white")
    tiles = [(blank, "not drawn")] * len(layout.columns)
    return _write_sheet(layout, folder, [(str(row), tiles) for row in range(layout.rows)], legend=[], notes=notes)


def draw_clusters_sheet(pair: tuple[Run, Run], folder: Path) -> Sheet:
    """Draw the clusters of SIA and the segmentations of two runs, and write the sheet beside the index."""
    layout, run = clusters_layout(pair), pair[1]
    collapsed = _collapsed_sheet(layout, folder)
    if collapsed is not None:
        return collapsed
    num_classes = run.dataset.num_classes
    images = segment_images(pair, layout.rows)
    rows: list[tuple[str, list[Captioned]]] = []
    for one in images:
        clusters = f"{one.clusters.size} positions in {int(one.clusters.max()) + 1} clusters"
        tiles = [
            (resize_to_square(one.image), one.name),
            (draw_clusters(one.image, one.clusters), clusters),
            *(
                (draw_classes(one.image, classes, num_classes), caption)
                for classes, caption in zip(one.predicted, _accuracies(one), strict=True)
            ),
            (draw_classes(one.image, one.truth, num_classes), ""),
        ]
        rows.append((one.name, tiles))
    pixels = images[0].image.shape[0] // images[0].clusters.shape[0]
    return _write_sheet(
        layout,
        folder,
        rows,
        legend=legend_of(run.dataset, images),
        notes=[
            f"Clusters: {run.model.name} merges the positions of its stage 3 grid (one per {pixels} x {pixels} "
            "pixels) into the tokens of stage 4. Positions of one colour are merged into one token.",
            "Percentages: the share of the image's labelled pixels that are classified correctly.",
        ],
    )


def legend_of(dataset: DatasetConfig, images: Sequence[SegmentedImage]) -> list[tuple[str, str]]:
    """Return names and colours (``#rrggbb``) of the classes that the tiles show; none if the names are not known."""
    shown = {index for one in images for classes in (one.truth, *one.predicted) for index in np.unique(classes)}
    colours = class_palette(dataset.num_classes)
    return [
        (name, "#{:02x}{:02x}{:02x}".format(*colours[index]))
        for index, name in enumerate(segmentation_classes(dataset) or [])
        if index in shown
    ]


def _accuracies(one: SegmentedImage) -> list[str]:
    """Return the share of labelled pixels that each model classifies correctly."""
    labelled = one.truth != _NOT_LABELLED
    shares = (np.mean(classes[labelled] == one.truth[labelled]) for classes in one.predicted)
    return [f"{format_fixed(100 * share, 1)} % correct" for share in shares]


def draw_offsets_sheet(run: Run, folder: Path) -> Sheet:
    """Draw the sampling points of a classifier's LAAs, and write the sheet beside the index."""
    layout = offsets_layout(run)
    collapsed = _collapsed_sheet(layout, folder)
    if collapsed is not None:
        return collapsed
    rows: list[tuple[str, list[Captioned]]] = []
    for one in classify_images(run, layout.rows):
        image = (resize_to_square(one.image), f"{one.label}, classified as {one.predicted}")
        drawn = [(draw_sampling_points(one.image, points), _distances(points)) for points in one.sampling]
        rows.append((one.name, [image, *drawn]))
    return _write_sheet(
        layout,
        folder,
        rows,
        legend=[],
        notes=[
            "Squares are the fixed windows that a strided convolution would read, thinned out evenly. Rings are the "
            "centres of the window's positions. A line connects each ring with the point that LAA samples instead, "
            "drawn to scale.",
            "Captions: the mean and the largest distance by which points move, in positions of the sampled map.",
        ],
    )


def _distances(points: SamplingPoints) -> str:
    moved = np.linalg.norm(points.moved - points.fixed, axis=-1) / points.map_stride
    return f"moved by {format_fixed(moved.mean(), 2)}, at most {format_fixed(moved.max(), 2)}"


def _write_sheet(
    layout: SheetLayout,
    folder: Path,
    rows: Sequence[tuple[str, Sequence[Captioned]]],
    *,
    legend: list[tuple[str, str]],
    notes: list[str],
) -> Sheet:
    stored = []
    for row, (name, captioned) in enumerate(rows):
        tiles = []
        for column, (picture, caption) in enumerate(captioned):
            file = layout.tile_file(row, column)
            save_tile(picture, folder / file)
            tiles.append(Tile(file=file, sha256=sha256_of(folder / file), caption=caption))
        stored.append(SheetRow(image=name, tiles=tiles))
    pictures = [[picture for picture, _ in captioned] for _, captioned in rows]
    captions = [[caption for _, caption in captioned] for _, captioned in rows]
    sheet = compose_contact_sheet(pictures, layout.columns, captions)
    with atomic_path(folder / layout.file) as temporary, temporary.open("wb") as handle:
        sheet.save(handle, format="WEBP", quality=_SHEET_QUALITY, method=6)
    return Sheet(
        file=layout.file,
        dataset=layout.runs[-1].dataset.name,
        tile_size=TILE_SIZE,
        columns=list(layout.columns),
        rows=stored,
        legend=legend,
        weights=[
            Weights(run=run.id, fingerprint=run.fingerprint, checkpoint_sha256=sha256_of(run.checkpoint))
            for run in layout.runs
        ],
        notes=notes,
    )
