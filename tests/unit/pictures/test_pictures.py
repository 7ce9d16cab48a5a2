"""Pictures: of which runs, where LAA's points really lie, what is drawn where, and how an index is read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hafabench.config.experiment import load_experiment
from hafabench.data.classes import class_palette
from hafabench.errors import UserError
from hafabench.models.hafa.laa import DeformableConv
from hafabench.pictures import draw
from hafabench.pictures.index import picture_files, read_index
from hafabench.pictures.inference import sampling_points
from hafabench.runs.picture_runs import picture_subjects
from hafabench.runs.run import expand
from tools.checkout import REPOSITORY


@pytest.mark.parametrize("name", ["digits", "digits_study", "paper"])
def test_the_first_pair_and_its_classifier_are_shown(name):
    subjects = picture_subjects(expand(load_experiment(REPOSITORY / f"configs/{name}.yaml")))
    assert [run.id for run in subjects.runs] == [
        "segmentation/pvt_tiny/seed0",
        "segmentation/pvt_tiny_hafa/seed0",
        "classification/pvt_tiny_hafa/seed0",
    ]


def test_without_a_pair_there_are_sampling_points_alone(write_experiment):
    def keep_no_baseline(content):
        content["train"]["segmentation"] = ["resnet18", "pvt_tiny_hafa_qkv"]
        content["train"]["classification"].remove("pvt_tiny_hafa")
        content["train"]["detection"].remove("pvt_tiny_hafa")

    experiment = load_experiment(write_experiment(keep_no_baseline))
    subjects = picture_subjects(expand(experiment))
    assert subjects.pair is None
    assert subjects.sampler.id == "classification/pvt_tiny_hafa_qkv/seed0"
    assert [path.name for path in picture_files(experiment, subjects)] == ["pictures.json", "offsets.webp"]


def test_no_run_is_trained_again_for_a_picture(write_experiment, tmp_path, monkeypatch):
    path = write_experiment()
    monkeypatch.chdir(tmp_path)
    subjects = picture_subjects(expand(load_experiment(path)))
    assert subjects.can_be_drawn
    run = subjects.pair[0]
    run.folder.mkdir(parents=True)
    run.record.write_text("{}")
    assert not subjects.can_be_drawn
    run.checkpoint.write_bytes(b"")
    assert subjects.can_be_drawn


@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (3, 1)])
def test_points_lie_where_the_deformable_convolution_reads(kernel, padding):
    torch.manual_seed(0)
    rows, columns, cell = 6, 8, 4.0
    # Cells hold their own place in the image: a convolution that sums one kernel point says where it read.
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) * cell, (torch.arange(columns) + 0.5) * cell, indexing="ij")
    places = torch.stack((y, x)).unsqueeze(0)
    conv = DeformableConv(2, 2, kernel, 2, padding)
    shape = ((rows + 2 * padding - kernel) // 2 + 1, (columns + 2 * padding - kernel) // 2 + 1)
    offset = 0.4 * torch.rand(1, 2 * kernel * kernel, *shape)
    windows = sampling_points(offset[0], 2, cell, kernel, 2, padding)
    assert windows.moved.shape == (*shape, kernel * kernel, 2)
    read = 0
    for point in range(kernel * kernel):
        with torch.no_grad():
            conv.bias.zero_()
            conv.weight.zero_()
            for channel in (0, 1):
                conv.weight[channel, channel, point // kernel, point % kernel] = 1
            found = conv(places, offset)[0].permute(1, 2, 0).numpy()
        expected = windows.moved[:, :, point]
        # Beyond the outermost centres zeros are mixed in, by convention.
        inside = ((expected >= cell / 2) & (expected <= (np.array([rows, columns]) - 0.5) * cell)).all(-1)
        read += inside.sum()
        assert np.abs(found - expected)[inside].max() < 1e-3
    assert read > 20
    without = sampling_points(torch.zeros_like(offset[0]), 2, cell, kernel, 2, padding)
    assert np.array_equal(without.fixed, without.moved)
    assert np.array_equal(without.fixed, windows.fixed)


def test_classes_have_their_colours_and_what_is_not_labelled_has_none():
    image = np.full((32, 32, 3), 128, np.uint8)
    classes = np.zeros((64, 64), np.uint8)
    classes[:, 32:] = 3
    classes[32:, :32] = 255
    tile = np.asarray(draw.classes_tile(image, classes, 11)).astype(int)
    at = draw.TILE // 4
    unlabelled = tile[3 * at, at]
    assert np.array_equal(unlabelled, [128, 128, 128])
    for place, label in (((at, at), 0), ((at, 3 * at), 3), ((3 * at, 3 * at), 3)):
        towards = np.array(class_palette(11)[label]) - 128
        assert np.abs((tile[place] - unlabelled) - 0.62 * towards).max() <= 1


def test_cells_of_one_cluster_have_one_colour_and_clusters_are_parted():
    image = np.full((64, 64, 3), 100, np.uint8)
    clusters = np.array([[0, 1], [0, 2]])
    tile = np.asarray(draw.clusters_tile(image, clusters))
    at, middle = draw.TILE // 4, draw.TILE // 2
    colours = {tuple(tile[place]) for place in ((at, at), (3 * at, at))}
    assert len(colours) == 1
    assert len({tuple(tile[place]) for place in ((at, at), (at, 3 * at), (3 * at, 3 * at))}) == 3
    assert tuple(tile[at, middle]) == (255, 255, 255)
    assert tuple(tile[middle, 3 * at]) == (255, 255, 255)
    assert tuple(tile[middle, at]) in colours


def test_images_that_are_not_square_are_not_stretched():
    image = np.zeros((32, 64, 3), np.uint8)
    tile = np.asarray(draw.clusters_tile(image, np.arange(8).reshape(2, 4)))
    assert (tile[draw.TILE // 2 + 1 :] == 255).all()
    assert (tile[: draw.TILE // 2] != 255).any(axis=-1).mean() > 0.9


def test_an_index_that_is_none_is_refused(tmp_path):
    path = tmp_path / "pictures.json"
    with pytest.raises(UserError, match="hafabench pictures"):
        read_index(path)
    path.write_text('{"schema": "hafabench.pictures/1", "experiment": "digits", "clusters": 3}')
    with pytest.raises(UserError) as error:
        read_index(path)
    assert [problem.key for problem in error.value.problems] == ["clusters", "offsets"]
