"""Pictures: the runs that they show, the sampling points of LAA, what the tiles show, and reading the index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hafabench.config.experiment import DatasetConfig, load_experiment
from hafabench.data.classes import class_palette
from hafabench.errors import UserError
from hafabench.models.hafa.laa import DeformableConv
from hafabench.pictures.contact_sheet import GAP, HEADING_HEIGHT, compose_contact_sheet
from hafabench.pictures.draw import legend_of
from hafabench.pictures.index import read_index
from hafabench.pictures.inference import sampling_points
from hafabench.pictures.samples import SegmentedImage
from hafabench.pictures.tiles import TILE_SIZE, draw_classes, draw_clusters, save_tile
from hafabench.runs.picture_runs import picture_files, picture_subjects
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
    folder = experiment.reports / "figures"
    tiles = {folder / f"tiles/offsets/{row}_{column}.webp" for row in range(4) for column in range(3)}
    assert set(picture_files(experiment, subjects)) == {folder / "pictures.json", folder / "offsets.webp"} | tiles


def test_a_small_validation_split_has_fewer_rows(write_experiment):
    def shrink(content):
        content["datasets"]["segmentation"]["images"]["val"] = 2

    experiment = load_experiment(write_experiment(shrink))
    files = picture_files(experiment, picture_subjects(expand(experiment)))
    tiles = [path.name for path in files if path.parent.name == "clusters"]
    assert tiles == [f"{row}_{column}.webp" for row in range(2) for column in range(5)]


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
def test_sampling_points_are_where_the_deformable_convolution_reads(kernel, padding):
    torch.manual_seed(0)
    rows, columns, map_stride = 6, 8, 4.0
    # Each position of the map holds its coordinates in the image, so a convolution that copies one kernel point
    # returns the coordinates at which it sampled.
    y, x = ((torch.arange(size) + 0.5) * map_stride for size in (rows, columns))
    coordinates = torch.stack(torch.meshgrid(y, x, indexing="ij")).unsqueeze(0)
    conv = DeformableConv(2, 2, kernel, 2, padding)
    shape = ((rows + 2 * padding - kernel) // 2 + 1, (columns + 2 * padding - kernel) // 2 + 1)
    offset = 0.4 * torch.rand(1, 2 * kernel * kernel, *shape)
    points = sampling_points(offset[0], 2, map_stride, kernel, 2, padding)
    assert points.moved.shape == (*shape, kernel * kernel, 2)
    read = 0
    for point in range(kernel * kernel):
        with torch.no_grad():
            conv.bias.zero_()
            conv.weight.zero_()
            for channel in (0, 1):
                conv.weight[channel, channel, point // kernel, point % kernel] = 1
            found = conv(coordinates, offset)[0].permute(1, 2, 0).numpy()
        expected = points.moved[:, :, point]
        # Beyond the outermost centres, the convolution interpolates with zeros.
        inside = ((expected >= map_stride / 2) & (expected <= (np.array([rows, columns]) - 0.5) * map_stride)).all(-1)
        read += inside.sum()
        assert np.abs(found - expected)[inside].max() < 1e-3
    assert read > 20
    without = sampling_points(torch.zeros_like(offset[0]), 2, map_stride, kernel, 2, padding)
    assert np.array_equal(without.fixed, without.moved)
    assert np.array_equal(without.fixed, points.fixed)


def test_classes_are_coloured_and_pixels_without_a_label_are_not():
    image = np.full((32, 32, 3), 128, np.uint8)
    classes = np.zeros((64, 64), np.uint8)
    classes[:, 32:] = 3
    classes[32:, :32] = 255
    tile = np.asarray(draw_classes(image, classes, 11)).astype(int)
    at = TILE_SIZE // 4
    unlabelled = tile[3 * at, at]
    assert np.array_equal(unlabelled, [128, 128, 128])
    for place, label in (((at, at), 0), ((at, 3 * at), 3), ((3 * at, 3 * at), 3)):
        towards = np.array(class_palette(11)[label]) - 128
        assert np.abs((tile[place] - unlabelled) - 0.62 * towards).max() <= 1


def test_classes_are_stretched_to_an_image_of_another_aspect_ratio():
    classes = np.zeros((30, 61), np.uint8)
    classes[:, 30:] = 3
    tile = np.asarray(draw_classes(np.full((32, 64, 3), 128, np.uint8), classes, 11)).astype(int)
    assert (np.ptp(tile[: TILE_SIZE // 2], axis=-1) > 0).all(), "every pixel of the image has a colour"


def test_the_legend_names_the_classes_that_are_shown(tmp_path):
    dataset = DatasetConfig(
        name="ade20k", data_format="ade20k", root=tmp_path, num_classes=150, images={"train": 1, "val": 1}
    )
    truth = np.array([[0, 255], [255, 255]], np.uint8)
    one = SegmentedImage(
        name="a",
        image=np.zeros((2, 2, 3), np.uint8),
        truth=truth,
        predicted=(np.full_like(truth, 149),),
        clusters=np.zeros((1, 1), int),
    )
    names = [name for name, _ in legend_of(dataset, [one])]
    assert names == ["wall", "flag"]
    colours = class_palette(150)
    assert [colour for _, colour in legend_of(dataset, [one])] == [
        "#{:02x}{:02x}{:02x}".format(*colours[index]) for index in (0, 149)
    ]
    unknown = dataset.model_copy(update={"name": "scenes"})
    assert legend_of(unknown, [one]) == []


def test_positions_of_one_cluster_have_one_colour_and_lines_separate_clusters():
    image = np.full((64, 64, 3), 100, np.uint8)
    clusters = np.array([[0, 1], [0, 2]])
    tile = np.asarray(draw_clusters(image, clusters))
    at, middle = TILE_SIZE // 4, TILE_SIZE // 2
    colours = {tuple(tile[place]) for place in ((at, at), (3 * at, at))}
    assert len(colours) == 1
    assert len({tuple(tile[place]) for place in ((at, at), (at, 3 * at), (3 * at, 3 * at))}) == 3
    assert tuple(tile[at, middle]) == (255, 255, 255)
    assert tuple(tile[middle, 3 * at]) == (255, 255, 255)
    assert tuple(tile[middle, at]) in colours


def test_images_that_are_not_square_are_not_stretched():
    image = np.zeros((32, 64, 3), np.uint8)
    tile = np.asarray(draw_clusters(image, np.arange(8).reshape(2, 4)))
    assert (tile[TILE_SIZE // 2 + 1 :] == 255).all()
    assert (tile[: TILE_SIZE // 2] != 255).any(axis=-1).mean() > 0.9


def test_a_contact_sheet_contains_every_tile_at_its_row_and_column():
    tiles = [[Image.new("RGB", (40, 40), (100 * row, 100 * column, 7)) for column in range(2)] for row in range(2)]
    sheet = compose_contact_sheet(tiles, ["left", "right"], [["a", "b"], ["c", ""]])
    for row in range(2):
        for column in range(2):
            corner = (GAP + column * (40 + GAP), HEADING_HEIGHT + row * (sheet.height - HEADING_HEIGHT) // 2)
            assert sheet.getpixel((corner[0] + 20, corner[1] + 20)) == (100 * row, 100 * column, 7)


def test_tiles_are_stored_in_the_smaller_encoding(tmp_path):
    plain = Image.new("RGB", (64, 64), (12, 34, 56))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    sizes = {}
    for name, tile in (("plain", plain), ("noise", noise)):
        save_tile(tile, tmp_path / f"{name}.webp")
        sizes[name] = (tmp_path / f"{name}.webp").stat().st_size
        with Image.open(tmp_path / f"{name}.webp") as stored:
            assert stored.size == (64, 64)
            assert (stored.convert("RGB").tobytes() == tile.tobytes()) == (name == "plain")
    assert sizes["noise"] < 64 * 64 * 3


def test_an_invalid_index_is_refused(tmp_path):
    path = tmp_path / "pictures.json"
    with pytest.raises(UserError, match="hafabench pictures"):
        read_index(path)
    path.write_text('{"schema": "hafabench.pictures/2", "experiment": "digits", "clusters": 3}')
    with pytest.raises(UserError) as error:
        read_index(path)
    assert [problem.key for problem in error.value.problems] == ["clusters", "offsets"]


def test_an_index_without_tiles_is_refused_with_the_command_that_redraws_it(tmp_path):
    path = tmp_path / "pictures.json"
    path.write_text('{"schema": "hafabench.pictures/1", "experiment": "digits", "clusters": null, "offsets": null}')
    with pytest.raises(UserError, match=r"older version.*`hafabench pictures`") as error:
        read_index(path)
    assert [problem.key for problem in error.value.problems] == ["schema"]
