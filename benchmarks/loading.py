"""Speed of reading JPEG files: decoders compared, and the whole loading pipeline with two processes."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image
from torch.utils.data import BatchSampler, SequentialSampler
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from benchmarks.rows import Row
from benchmarks.timing import compare_calls
from hafabench.config.experiment import DatasetConfig, load_experiment
from hafabench.config.recipes import ClassificationRecipe
from hafabench.data.images import read_image
from hafabench.data.loaders import classification_dataset
from hafabench.engines.classification.augmentation import train_transform
from hafabench.engines.sampling import batches
from hafabench.stats.intervals import median_interval
from tools.checkout import REPOSITORY

# The average size of ImageNet's photos.
SIZE, QUALITY = (500, 375), 90
WORKERS = 2


def decoders(quick: bool) -> Iterator[Row]:
    """Compare Pillow, which the engines use, with other decoders, from JPEG file to Pillow image."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        path.write_bytes(_photo(0))
        name = str(path)
        # The photo has no EXIF orientation.
        as_stored = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        calls = {
            "ours": lambda: read_image(path),
            "opencv": lambda: Image.fromarray(cv2.imread(name, as_stored)),
            "torchvision": lambda: Image.fromarray(
                decode_jpeg(read_file(name), ImageReadMode.RGB).permute(1, 2, 0).numpy()
            ),
        }
        expected = np.asarray(calls["ours"]())
        for call in calls.values():
            if not np.array_equal(call(), expected):
                raise RuntimeError("decoders differ in pixels")
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        found = compare_calls(calls, "ours", 512, quick)
        cv2.setNumThreads(threads)
    for name in ("opencv", "torchvision"):
        yield Row.of("decoders", f"JPEG file to Pillow image by {name} / by Pillow, equal pixels", found.ratio(name))


def loading(quick: bool) -> Iterator[Row]:
    """Measure how many images per second two processes decode and augment by the recipe at 224 x 224."""
    recipe = _recipe()
    with TemporaryDirectory() as folder:
        root = Path(folder)
        number = 256
        for split in ("train", "val"):
            (root / split / "photos").mkdir(parents=True)
        for index in range(number):
            (root / "train" / "photos" / f"{index}.jpg").write_bytes(_photo(index % 8))
        counts = {"train": number, "val": 1}
        config = DatasetConfig(name="photos", data_format="imagenet", root=root, num_classes=1, images=counts)
        dataset = classification_dataset(config, "train", train_transform(recipe))
        rates = [_rate(dataset) for _ in range(2 if quick else 8)]
    about = f"paper's augmentation, {WORKERS} processes, photos of {SIZE[0]}x{SIZE[1]}"
    what = "images decoded and augmented at 224x224"
    yield Row.of("loading", what, median_interval(rates), unit="images/s", note=about)


def _rate(dataset) -> float:
    sampler = BatchSampler(SequentialSampler(dataset), 32, drop_last=True)
    with closing(batches(dataset, sampler, workers=WORKERS, pin=False)) as loaded:
        # The first batch waits for the processes to start.
        next(loaded)
        start = time.perf_counter()
        images = sum(len(images) for images, _ in loaded)
        return images / (time.perf_counter() - start)


def _recipe() -> ClassificationRecipe:
    from hafabench.runs.run import expand

    runs = expand(load_experiment(REPOSITORY / "configs/paper.yaml"))
    return runs["classification/pvt_tiny_hafa/seed0"].recipe


def _photo(seed: int) -> bytes:
    """Return a JPEG of 100 kB, which has about as much detail as a photo."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (47, 63, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)) + random.normal(0, 12, (SIZE[1], SIZE[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
