"""The arrays that pictures show equal those that the models compute, with random weights of every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hafabench import models
from hafabench.config.catalog import CATALOG
from hafabench.engines import dense
from hafabench.engines.dense.model import build_dense_model
from hafabench.engines.trained import identity
from hafabench.files import sha256_of
from hafabench.models.checkpoints.storage import save_checkpoint
from hafabench.pictures.draw import draw_clusters_sheet, draw_offsets_sheet
from hafabench.pictures.index import Sheet
from hafabench.pictures.inference import classify_images, segment_images
from hafabench.runs.picture_runs import SheetLayout, clusters_layout, offsets_layout
from hafabench.runs.run import Run
from tools.tiny_runs import classification as tiny_classification
from tools.tiny_runs.dense import CLASSES, tiny_run


def save_random_weights(run: Run, model: torch.nn.Module, **about) -> None:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".offset." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_checkpoint(run.checkpoint, {"state_dict": model.state_dict(), "meta": {**identity(run), **about}})


def check_files(sheet: Sheet, layout: SheetLayout, folder: Path) -> None:
    """Check that drawing wrote exactly the files that the workflow declares, and that the sheet lists them."""
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == set(layout.files) == {sheet.file, *(tile.file for row in sheet.rows for tile in row.tiles)}
    assert all(sha256_of(folder / tile.file) == tile.sha256 for row in sheet.rows for tile in row.tiles)


@pytest.mark.parametrize(
    "family",
    ["pvt_tiny", *(pytest.param(family, marks=pytest.mark.slow) for family in ("pvt_v2_b1", "swin_tiny"))],
)
def test_sampling_points_of_every_family(tmp_path, family):
    images = tmp_path / "images"
    tiny_classification.make_images(images)
    run = tiny_classification.tiny_run(tmp_path / "run", images=images, model=f"{family}_hafa", image_size=64)
    options = {"img_size": 64} if family == "swin_tiny" else {}
    model = models.create(run.model, num_classes=run.dataset.num_classes, **options)
    save_random_weights(run, model, image_size=64)
    found = classify_images(run, 2)
    assert len(found) == 2
    for one in found:
        assert one.image.shape == (64, 64, 3)
        assert one.predicted in {f"class{label}" for label in range(tiny_classification.CLASSES)}
        assert [points.stage for points in one.sampling] == [2, 3]
        for points, side in zip(one.sampling, (8, 4), strict=True):
            assert points.fixed.shape[:2] == (side, side)
            assert points.fixed.shape == points.moved.shape
            moved = np.abs(points.moved - points.fixed) / points.map_stride
            assert 0 < moved.max() < 20
    sheet = draw_offsets_sheet(run, tmp_path / "figures")
    check_files(sheet, offsets_layout(run), tmp_path / "figures")
    # Offsets depend on the image.
    assert not np.array_equal(found[0].sampling[0].moved, found[1].sampling[0].moved)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Run, Run]:
    folder: Path = tmp_path_factory.mktemp("pair")
    runs = tuple(tiny_run(folder, "segmentation", name) for name in ("pvt_tiny", "pvt_tiny_hafa"))
    for run in runs:
        save_random_weights(run, build_dense_model(CATALOG[run.model.name], run.task, CLASSES, run.recipe))
    return runs


def test_clusters_and_segmentations_are_those_of_the_evaluation(pair):
    found = segment_images(pair, 2)
    assert [one.name for one in found] == ["0.jpg", "1.jpg"]
    for one in found:
        height, width = one.image.shape[:2]
        assert (height, width) in ((64, 80), (80, 64))
        # Stage 3 has stride 16; SIA forms a quarter as many clusters, and none is empty.
        assert one.clusters.shape == (height // 16, width // 16)
        assert sorted(np.unique(one.clusters)) == list(range(one.clusters.size // 4))
        assert one.truth.shape == (height, width)
        assert set(np.unique(one.truth)) <= {*range(CLASSES), 255}
        assert all(classes.shape == (height, width) and classes.max() < CLASSES for classes in one.predicted)
    again = segment_images(pair, 2)
    for one, other in zip(found, again, strict=True):
        assert np.array_equal(one.clusters, other.clusters)
        assert all(np.array_equal(a, b) for a, b in zip(one.predicted, other.predicted, strict=True))
    # As many pixels are correct as in the evaluation.
    for index, run in enumerate(pair):
        right = sum((one.predicted[index] == one.truth)[one.truth != 255].sum() for one in found)
        known = sum((one.truth != 255).sum() for one in found)
        metrics = {metric.name: metric.value for metric in dense.evaluate(run, run.checkpoint)}
        assert 100 * right / known == pytest.approx(metrics["pixel_acc"], abs=1e-6)


def test_a_sheet_of_clusters_consists_of_the_declared_files(pair, tmp_path):
    check_files(draw_clusters_sheet(pair, tmp_path), clusters_layout(pair), tmp_path)
