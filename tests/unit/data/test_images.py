"""The rule by which image files become pixels, compared with OpenCV (mmcv) and torchvision."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from hafabench.data.images import UnreadableImage, annotated_size_problem, image_size, orientation_note, read_image
from tests.support.messages import missing_facts

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def opencv(path: Path) -> np.ndarray:
    """What mmcv reads: OpenCV's decoder with its default flags."""
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def oriented(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(40, 30), (97, 63), (1, 1)])
def test_ordinary_files_have_the_pixels_of_torchvision_and_of_mmcv(tmp_path, suffix, mode, size):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(NOISE).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    found = np.asarray(read_image(path))
    np.testing.assert_array_equal(found, np.asarray(default_loader(str(path))))
    np.testing.assert_array_equal(found, opencv(path))


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_pillow_and_opencv_decode_jpeg_to_the_same_pixels(tmp_path, quality, subsampling):
    path = tmp_path / "photo.jpg"
    photo = Image.fromarray(NOISE).resize((333, 250), Image.Resampling.BICUBIC)
    photo.save(path, quality=quality, subsampling=subsampling, progressive=quality == 75)
    np.testing.assert_array_equal(np.asarray(read_image(path)), opencv(path))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_exif_orientation_is_applied_as_by_mmcv(tmp_path, suffix, orientation):
    """Values out of range (0 and 9) mean upright."""
    path = oriented(tmp_path / f"image{suffix}", orientation)
    found = read_image(path)
    assert found.size == ((30, 40) if orientation in (5, 6, 7, 8) else (40, 30))
    np.testing.assert_array_equal(np.asarray(found), opencv(path))


@pytest.mark.parametrize("exif", [b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"garbage", b""])
def test_damaged_exif_is_ignored(tmp_path, exif):
    path = tmp_path / "image.jpg"
    Image.fromarray(NOISE).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(path)), opencv(path))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    values = np.arange(0, 65536, 8, np.uint16).reshape(64, 128)
    path = tmp_path / f"depth{suffix}"
    Image.fromarray(values).save(path)
    found = np.asarray(read_image(path))
    np.testing.assert_array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))
    np.testing.assert_array_equal(found, opencv(path))


def test_sixteen_bits_of_colour_are_scaled_in_the_same_way(tmp_path):
    path = tmp_path / "colour.png"
    values = np.random.default_rng(1).integers(0, 65536, (30, 40, 3)).astype(np.uint16)
    cv2.imwrite(str(path), values)
    np.testing.assert_array_equal(np.asarray(read_image(path)), values[..., ::-1] >> 8)


@pytest.mark.parametrize(("dtype", "word"), [(np.float32, "floating-point"), (np.int32, "integer")])
def test_values_of_32_bits_are_refused(tmp_path, dtype, word):
    path = tmp_path / "height.tif"
    Image.fromarray(np.linspace(0, 1000, 1200).reshape(30, 40).astype(dtype)).save(path)
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert missing_facts(caught.value, path, word, "32 bits", "8 or 16 bits") == []


def palette_with_transparency() -> Image.Image:
    image = Image.fromarray(NOISE).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.merge("RGBA", [*Image.fromarray(NOISE).split(), Image.fromarray(NOISE[..., 0])]),
        Image.merge("LA", [Image.fromarray(NOISE[..., 0]), Image.fromarray(NOISE[..., 1])]),
        palette_with_transparency(),
        Image.fromarray(NOISE).convert("1"),
    ],
    ids=["rgba", "grey with alpha", "palette with transparency", "1 bit"],
)
def test_alpha_is_dropped_as_by_mmcv_and_torchvision(tmp_path, image):
    path = tmp_path / "image.png"
    image.save(path)
    with warnings.catch_warnings(action="error"):
        found = np.asarray(read_image(path))
    np.testing.assert_array_equal(found, opencv(path))
    np.testing.assert_array_equal(found, np.asarray(default_loader(str(path))))


def test_cmyk_is_that_of_torchvision(tmp_path):
    path = tmp_path / "print.jpg"
    Image.fromarray(NOISE).convert("CMYK").save(path, quality=95)
    found = np.asarray(read_image(path))
    np.testing.assert_array_equal(found, np.asarray(default_loader(str(path))))
    assert np.abs(found.astype(int) - opencv(path)).max() <= 4


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    path = tmp_path / "animation.png"
    first, second = Image.fromarray(NOISE), Image.fromarray(255 - NOISE)
    first.save(path, save_all=True, append_images=[second])
    np.testing.assert_array_equal(np.asarray(read_image(path)), NOISE)


def test_index_masks_are_read_as_stored_and_have_no_orientation(tmp_path):
    mask = Image.fromarray(NOISE[..., 0])
    mask.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "mask.png", mode=None)), NOISE[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    mask.save(tmp_path / "turned.png", exif=exif)
    with pytest.raises(UnreadableImage, match=r"turned\.png: an index mask with the EXIF orientation 6"):
        read_image(tmp_path / "turned.png", mode=None)


def test_a_wrong_size_that_the_orientation_explains(tmp_path):
    turned, upright = oriented(tmp_path / "turned.jpg", 6), oriented(tmp_path / "upright.jpg", 1)
    assert annotated_size_problem(turned, (30, 40), (30, 40)) is None
    problem = annotated_size_problem(turned, (30, 40), (40, 30))
    assert missing_facts(problem, "40 x 30", "30 x 40", "EXIF orientation 6") == []
    assert annotated_size_problem(upright, (40, 30), (30, 40)) == (
        "expected 30 x 40 pixels as annotated, found 40 x 30"
    )
    assert orientation_note(turned, (10, 10)) == ""


def test_sixteen_bits_of_pgm_are_scaled(tmp_path):
    values = np.arange(0, 65536, 1024, dtype=">u2").reshape(8, 8)
    path = tmp_path / "deep.jpg"
    path.write_bytes(b"P5 8 8 65535\n" + values.tobytes())
    assert np.array_equal(np.asarray(read_image(path))[..., 0], values >> 8)
    assert np.array_equal(np.asarray(read_image(path)), opencv(path))


def test_no_program_is_run_for_postscript_under_the_name_of_an_image(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(NOISE).save(path, format="EPS")
    with pytest.raises(UnreadableImage, match="not an image"):
        read_image(path)


def test_what_cannot_be_a_file_is_refused(tmp_path):
    for name in ("x" * 300 + ".jpg", "nul\0.jpg", "."):
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / name)
        assert image_size(tmp_path / name) is None
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImage, match="named pipe"):
        read_image(tmp_path / "pipe.jpg")
    assert image_size(tmp_path / "pipe.jpg") is None
