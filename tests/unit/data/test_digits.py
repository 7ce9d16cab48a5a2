"""The embedded data: deterministic, disjoint splits, the formats of the real data sets, tight annotations, atomic."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hafabench.config.experiment import DatasetConfig
from hafabench.data import digits, listing, manifest, paths
from hafabench.data.digits import annotate, make_digits
from hafabench.data.scans import Pose, draw_glyph, load_scans, split_scans
from hafabench.data.scenes import Style, compose_portrait, compose_scene
from hafabench.errors import UserError
from hafabench.files import atomic_folder

FORMATS = ("imagenet", "coco", "ade20k")


def config(data_format: str, root: Path, seed: int = 0, train: int = 16, val: int = 10, **changes) -> DatasetConfig:
    side = 64 if data_format == "imagenet" else 128
    content = {
        "name": "digits",
        "format": data_format,
        "root": root,
        "num_classes": 11 if data_format == "ade20k" else 10,
        "images": {"train": train, "val": val},
        "generator": {"kind": "digits", "seed": seed, "image_size": side, "max_objects": 5},
    }
    return DatasetConfig.model_validate(content | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, DatasetConfig]:
    root = tmp_path_factory.mktemp("digits")
    datasets = {data_format: config(data_format, root / data_format) for data_format in FORMATS}
    for dataset in datasets.values():
        make_digits(dataset)
    return datasets


@pytest.mark.parametrize("data_format", FORMATS)
def test_equal_seeds_give_equal_bytes_and_others_do_not(data_format, made, tmp_path):
    again, other = config(data_format, tmp_path / "again"), config(data_format, tmp_path / "other", seed=1)
    make_digits(again)
    make_digits(other)
    digest = manifest.read_manifest(made[data_format].root)["digest"]
    assert manifest.content_digest(again.root) == digest == manifest.content_digest(made[data_format].root)
    assert manifest.content_digest(other.root) != digest


def test_a_scene_does_not_depend_on_how_many_there_are(made, tmp_path):
    fewer = config("coco", tmp_path / "fewer", train=3)
    make_digits(fewer)
    for file in listing.image_files(paths.coco_images(fewer, "train")):
        assert file.read_bytes() == (paths.coco_images(made["coco"], "train") / file.name).read_bytes()


def test_scans_are_disjoint_between_train_and_val_across_all_formats(made):
    shown = [manifest.read_manifest(dataset.root)["scans"] for dataset in made.values()]
    train = {scan for scans in shown for scan in scans["train"]}
    val = {scan for scans in shown for scan in scans["val"]}
    assert len(train) > 50
    assert len(val) > 20
    assert not train & val


def test_the_split_covers_every_scan_once_and_every_class():
    parts = split_scans(3)
    everything = np.concatenate([indices for part in parts.values() for indices in part.values()])
    assert sorted(everything) == list(range(1797))
    labels = load_scans().labels
    for part in parts.values():
        for label, indices in part.items():
            assert len(indices) > 30
            assert set(labels[indices]) == {label}


def test_imagenet_format_is_read_by_torchvision_with_balanced_classes(made):
    from torchvision.datasets import ImageFolder

    dataset = made["imagenet"]
    folder = ImageFolder(str(dataset.root / "train"))
    assert folder.classes == [f"digit_{label}" for label in range(10)]
    assert np.bincount(folder.targets).tolist() == [2] * 6 + [1] * 4
    image, _ = folder[0]
    assert image.size == (64, 64)
    assert len(ImageFolder(str(dataset.root / "val"))) == 10


@pytest.fixture(scope="module")
def coco(made) -> dict[str, COCO]:
    with contextlib.redirect_stdout(io.StringIO()):
        return {split: COCO(str(paths.coco_annotations(made["coco"], split))) for split in paths.SPLITS}


def test_coco_format_is_read_by_pycocotools(coco, made):
    assert set(coco["train"].imgs).isdisjoint(coco["val"].imgs)
    assert set(coco["train"].anns).isdisjoint(coco["val"].anns)
    for split, count in (("train", 16), ("val", 10)):
        content = coco[split]
        assert set(content.dataset) == {"info", "licenses", "images", "annotations", "categories"}
        assert len(content.imgs) == count
        assert content.getCatIds() == list(range(1, 11))
        for image in content.imgs.values():
            with Image.open(paths.coco_images(made["coco"], split) / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"]) == (128, 128)
            assert 1 <= len(content.getAnnIds(imgIds=image["id"])) <= 5


def test_area_and_box_are_those_of_the_polygons(coco):
    for content in coco.values():
        for entry in content.anns.values():
            mask = content.annToMask(entry)
            assert mask.sum() == entry["area"]
            rows, columns = np.nonzero(mask)
            drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            x, y, width, height = entry["bbox"]
            assert np.abs(drawn - [x, y, x + width, y + height]).max() <= 1.5
            assert x >= 0 and y >= 0 and x + width <= 128 and y + height <= 128


@pytest.mark.parametrize("split", paths.SPLITS)
def test_all_three_size_ranges_of_coco_occur(coco, split):
    areas = np.array([entry["area"] for entry in coco[split].anns.values()])
    assert (areas < 32**2).sum() >= 3
    assert ((areas >= 32**2) & (areas < 96**2)).sum() >= 3
    assert (areas >= 96**2).sum() >= 2


def test_coco_evaluation_counts_every_size_range(coco):
    """The annotations themselves, handed in as detections, are perfect in every range of COCO's evaluation."""
    truth = coco["val"]
    found = [
        {"image_id": entry["image_id"], "category_id": entry["category_id"], "score": 1.0}
        | {"segmentation": truth.annToRLE(entry)}
        for entry in truth.anns.values()
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    _, _, _, small, medium, large = evaluation.stats[:6]
    assert (small, medium, large) == pytest.approx((1, 1, 1))


def test_polygons_follow_what_is_visible_of_each_digit():
    from pycocotools import mask as coco_mask

    pool = split_scans(0)["train"]
    overlaps = []
    for seed in range(9):
        rng = np.random.default_rng(seed)
        scene = compose_scene(rng, pool, 128, 5, close_up=seed % 3 == 0)
        covered = np.zeros((128, 128), bool)
        for instance in reversed(scene.instances):
            visible = instance.visible > 0.5
            # No pixel of a digit is visible where a nearer digit covers it.
            assert not (visible & covered).any()
            covered |= instance.glyph.silhouette > 0.5
            polygons = annotate(instance.visible)["segmentation"]
            drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 128, 128))).astype(bool)
            overlaps.append((drawn & visible).sum() / (drawn | visible).sum())
    assert min(overlaps) > 0.93
    assert np.mean(overlaps) > 0.975


def test_digits_stay_readable_in_a_crowd():
    pool = split_scans(0)["train"]
    for seed in range(3):
        scene = compose_scene(np.random.default_rng(seed), pool, 64, 20, close_up=False)
        for instance in scene.instances:
            assert instance.glyph.inside >= 0.8
            assert instance.visible.sum() >= 0.75 * instance.glyph.silhouette.sum()


def test_no_digit_covers_the_middle_of_another():
    """Its outline would be a hole in the other's mask, which polygons cannot say."""
    pool = split_scans(0)["train"]
    for seed in range(16):
        scene = compose_scene(np.random.default_rng(seed), pool, 64, 5, close_up=True)
        for instance in scene.instances:
            mask = (instance.visible > 0.5).astype(np.uint8)
            _, levels = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            assert (levels[..., 3] == -1).all()


def test_a_silhouette_holds_the_eye_of_a_digit_and_its_stroke_does_not():
    zero = int(split_scans(0)["train"][0][0])
    glyph = draw_glyph(load_scans().images[zero], Pose(48, 48, 80), 96)
    assert glyph.silhouette[48, 48] == 1
    assert glyph.stroke[48, 48] == 0
    assert (glyph.silhouette >= glyph.stroke).all()
    assert glyph.inside == 1


def test_a_digit_drawn_across_the_edge_knows_how_much_is_inside():
    seven = int(split_scans(0)["train"][7][0])
    glyph = draw_glyph(load_scans().images[seven], Pose(0, 48, 80), 96)
    assert 0.2 < glyph.inside < 0.8


def test_ade20k_masks_mark_ink_background_and_mixed_pixels(made):
    dataset = made["ade20k"]
    values: set[int] = set()
    for split in paths.SPLITS:
        images = listing.image_files(paths.ade20k_images(dataset, split))
        assert len(images) == dataset.images[split]
        for file in images:
            with Image.open(paths.ade20k_masks(dataset, split) / f"{file.stem}.png") as image:
                assert image.mode == "L"
                assert image.size == (128, 128)
                mask = np.asarray(image)
            values |= set(np.unique(mask).tolist())
            # Mixed pixels are an outline, not a region.
            assert 0 < (mask == 0).mean() < 0.12
    assert values == set(range(12))


def test_images_differ_from_their_background_on_ink(made):
    """Ink is lighter than its background on average, so that the tasks can be learned."""
    dataset = made["ade20k"]
    differences = []
    for file in listing.image_files(paths.ade20k_images(dataset, "train")):
        with Image.open(file) as picture, Image.open(paths.ade20k_masks(dataset, "train") / f"{file.stem}.png") as m:
            grey, mask = np.asarray(picture.convert("L"), float), np.asarray(m)
        ink = (mask > 0) & (mask < 11)
        differences.append(grey[ink].mean() - grey[mask == 11].mean())
    assert np.mean(differences) > 30


def test_nothing_is_left_when_making_fails_midway(made, tmp_path, monkeypatch):
    dataset = config("coco", tmp_path / "coco")
    original, calls = digits.compose_scene, []

    def full_disk(*arguments, **named):
        calls.append(1)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **named)

    monkeypatch.setattr(digits, "compose_scene", full_disk)
    with pytest.raises(UserError, match="no space left on the device"):
        make_digits(dataset)
    assert list(tmp_path.iterdir()) == []

    # And what was there before stays as it was.
    shutil.copytree(made["coco"].root, dataset.root)
    before = manifest.content_digest(dataset.root)
    with pytest.raises(UserError, match="no space left"):
        make_digits(dataset)
    assert manifest.content_digest(dataset.root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


def test_a_folder_that_cannot_be_replaced_stays_as_it_was(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").write_text("old")
    made = {Path("old")}
    written = atomic_folder(tmp_path / "data", made.__contains__)
    with pytest.raises(UserError, match="not written: No such file"), written as folder:
        shutil.rmtree(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "old"]


def test_a_folder_that_was_not_made_here_is_not_overwritten(tmp_path):
    dataset = config("imagenet", tmp_path / "photos")
    dataset.root.mkdir()
    (dataset.root / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"no manifest\.json, so it was not made here"):
        make_digits(dataset)
    assert (dataset.root / "holiday.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["notes.txt", "train/zero/mine.JPEG", ".hidden/x"])
def test_a_file_of_the_user_in_a_generated_folder_is_kept(made, tmp_path, name):
    dataset = config("imagenet", tmp_path / "data")
    shutil.copytree(made["imagenet"].root, dataset.root)
    (dataset.root / name).parent.mkdir(exist_ok=True)
    (dataset.root / name).write_text("mine")
    assert manifest.is_unchanged(dataset)
    next(dataset.root.glob("val/*/*")).write_bytes(b"damaged")
    assert not manifest.is_unchanged(dataset)
    with pytest.raises(UserError, match=f"hafabench did not make {name} in it; move it away"):
        make_digits(dataset)
    assert (dataset.root / name).read_text() == "mine"
    (dataset.root / name).unlink()
    make_digits(dataset)
    assert manifest.is_unchanged(dataset)


def test_a_folder_that_an_earlier_version_made_is_replaced_only_if_it_is_unchanged(made, tmp_path):
    dataset, other = (config("imagenet", tmp_path / "data", val=val) for val in (10, 11))
    shutil.copytree(made["imagenet"].root, dataset.root)
    content = json.loads((dataset.root / "manifest.json").read_text())
    del content["sha256"]
    (dataset.root / "manifest.json").write_text(json.dumps(content))
    assert manifest.is_unchanged(dataset)
    (dataset.root / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="files were changed or added since; move it away"):
        make_digits(other)
    assert (dataset.root / "notes.txt").read_text() == "mine"
    (dataset.root / "notes.txt").unlink()
    make_digits(other)
    assert manifest.is_unchanged(other)


@pytest.mark.parametrize("is_link", [False, True])
def test_data_is_not_made_inside_of_other_generated_data(made, tmp_path, is_link):
    around = tmp_path / "data"
    shutil.copytree(made["imagenet"].root, around)
    (tmp_path / "link").symlink_to(around)
    inner = config("coco", (tmp_path / "link" if is_link else around) / "train/inner")
    with pytest.raises(UserError, match=f"it is in {around}, another generated data set"):
        make_digits(inner)
    assert not inner.root.exists()


def test_impossible_settings_of_the_generator_are_reported_together(tmp_path):
    dataset = config("imagenet", tmp_path / "data", val=9, num_classes=12)
    with pytest.raises(UserError) as caught:
        make_digits(dataset)
    assert "digits have 10, found 12" in str(caught.value)
    assert "images.val: expected 10 or more, found 9" in str(caught.value)
    with pytest.raises(UserError, match="no generator is configured"):
        make_digits(config("imagenet", tmp_path / "data", generator=None))
    assert not dataset.root.exists()


def test_the_manifest_describes_the_data(made):
    content = json.loads((made["ade20k"].root / "manifest.json").read_text())
    assert content["classes"][-1] == "background"
    assert content["files"] == 2 * (16 + 10)
    assert content["parameters"]["generator"]["image_size"] == 128
    assert set(content["packages"]) == {"numpy", "opencv-python", "pillow", "scikit-learn"}


def test_the_digest_sees_names_and_bytes(tmp_path):
    def digest(**files: bytes) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "sub").mkdir(parents=True)
        for name, data in files.items():
            (folder / "sub" / name).write_bytes(data)
        (folder / "manifest.json").write_text("never part of it")
        return manifest.content_digest(folder)

    digests = [digest(a=b"12", b=b"3"), digest(a=b"13", b=b"3"), digest(a=b"1", b=b"23"), digest(a=b"12", c=b"3")]
    assert len(set(digests)) == 4
    assert digest(a=b"12", b=b"3") == digests[0]


def test_importing_and_making_data_loads_no_torch(tmp_path):
    code = (
        "import sys, hafabench.data, hafabench.data.prepare, hafabench.data.digits, hafabench.data.preview;"
        "sys.exit(', '.join(m for m in ('torch', 'torchvision', 'mmengine', 'timm') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


EASY = {"background": "plain", "strokes": "bold", "ink": "pale", "poses": "upright"}
EASY_SCENES = EASY | {"min_objects": 1, "max_objects": 3, "heights": [0.2, 0.95]}
EASY_STYLE = Style(min_objects=1, heights=(0.2, 0.95), plain=True, bold=True, pale=True, upright=True)


def test_scenes_of_earlier_experiments_are_unchanged():
    """The digest was computed before scenes could have a style."""
    pool, digest = split_scans(0)["train"], hashlib.sha256()
    for seed in range(4):
        scene = compose_scene(np.random.default_rng(seed), pool, 64, 5, close_up=seed % 2 == 0)
        portrait = compose_portrait(np.random.default_rng(seed), seed, int(pool[seed][0]), 64)
        for image in (scene.image, scene.index_mask(11), portrait.image):
            digest.update(np.ascontiguousarray(image))
    assert digest.hexdigest().startswith("2b63d69197760580")


def test_a_style_is_part_of_the_identity_unless_it_is_the_default(tmp_path):
    plain = config("coco", tmp_path)
    defaults = {
        "min_objects": None,
        "heights": None,
        "background": "textured",
        "strokes": "varied",
        "ink": "coloured",
    }
    generator = plain.identity()["generator"]
    assert set(generator) == {"kind", "seed", "image_size", "max_objects"}
    assert config("coco", tmp_path, generator={**generator, **defaults}).identity() == plain.identity()
    styled = config("coco", tmp_path, generator={**generator, **EASY_SCENES}).identity()["generator"]
    assert styled == {**generator, **EASY_SCENES}


def test_easy_scenes_have_the_configured_counts_and_objects_of_all_three_sizes_of_coco():
    pool, counts, areas = split_scans(0)["val"], [], []
    for seed in range(40):
        scene = compose_scene(np.random.default_rng(seed), pool, 192, 3, close_up=False, style=EASY_STYLE)
        counts.append(len(scene.instances))
        areas += [annotate(instance.visible)["area"] for instance in scene.instances]
        mask = scene.index_mask(11)
        assert set(np.unique(mask)) <= {0, 11} | {instance.label + 1 for instance in scene.instances}
        # The nearest digit is covered by no other, so that all of its ink has its class.
        nearest = scene.instances[-1]
        assert (mask[nearest.glyph.stroke > 2 / 3] == nearest.label + 1).all()
    assert set(counts) == {1, 2, 3}
    sizes = np.digitize(areas, [32**2, 96**2])
    assert np.bincount(sizes, minlength=3).min() >= 2, "small, medium and large"


def test_easy_scenes_have_soft_backgrounds_and_ink_that_is_lighter_than_all_of_it():
    pool = split_scans(0)["train"]

    def measured(style: Style) -> tuple[float, float]:
        contrasts, edges = [], []
        for seed in range(12):
            scene = compose_portrait(np.random.default_rng(seed), seed % 10, int(pool[seed % 10][0]), 96, style)
            image, stroke = scene.image.astype(np.float32).mean(-1), scene.instances[0].glyph.stroke
            around = cv2.dilate(stroke, np.ones((31, 31))) == 0
            contrasts.append(np.median(image[stroke == 1]) - image[stroke == 0].max())
            smooth = cv2.GaussianBlur(image, (0, 0), 2)
            edges.append(np.abs(np.gradient(smooth)[0])[around].max())
        return min(contrasts), float(np.median(edges))

    (contrast, edge), (_, textured) = measured(EASY_STYLE), measured(Style())
    assert contrast > 0
    assert edge < textured / 2


def test_scenes_with_impossible_counts_are_refused(tmp_path):
    generator = {"kind": "digits", "image_size": 64, "min_objects": 4, "max_objects": 3}
    with pytest.raises(ValueError, match="min_objects: expected at most max_objects \\(3\\), found 4"):
        config("coco", tmp_path, generator=generator)


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_styled_data_set_is_made_with_its_manifest_and_stays_as_configured(data_format, tmp_path):
    style = EASY if data_format == "imagenet" else EASY_SCENES
    generator = {"kind": "digits", "image_size": 64, **style}
    dataset = config(data_format, tmp_path / "made", generator=generator)
    make_digits(dataset)
    assert manifest.is_unchanged(dataset)
    other = config(data_format, tmp_path / "made", generator={**generator, "ink": "coloured"})
    assert not manifest.is_unchanged(other)
    scans = manifest.read_manifest(dataset.root)["scans"]
    assert not set(scans["train"]) & set(scans["val"])
