"""Overhead of the training loops over forward, backward and optimiser step, with the data in memory.

The loops are those of the engines. Only their batches are replaced by one batch in memory. Before each step, a bare
step on the same tensors is timed, so that the state of the machine is the same for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from timm.loss import SoftTargetCrossEntropy

from benchmarks.rows import Row
from benchmarks.timing import THREADS
from hafabench.engines import classification, dense, sampling, training
from hafabench.engines.dense.model import build_dense_model, load_mm
from hafabench.models import create
from hafabench.stats.intervals import Interval, median_interval
from tools.tiny_runs import classification as tiny_classification
from tools.tiny_runs import dense as tiny_dense

MODEL = "pvt_tiny_hafa"
LIMIT = 1.05
WARMUP = 2
BATCH = 8


def training_loops(quick: bool) -> Iterator[Row]:
    """Measure the ratio of the time of the engines' steps to the time of bare steps."""
    for size, steps in ((64, 96), (224, 24)):
        ratio = _classification(size, max(12, steps // 4) if quick else steps)
        what = f"classification step / bare step, {MODEL}, {BATCH} images of {size}x{size}"
        yield Row.of("training_loops", what, ratio, at_most=LIMIT)
    for task in ("segmentation", "detection"):
        ratio = _dense(task, 12 if quick else 48)
        yield Row.of("training_loops", f"{task} step / bare step, {MODEL}, 2 images of 64x64", ratio, at_most=LIMIT)


def _classification(size: int, steps: int) -> Interval:
    with TemporaryDirectory() as folder, _one_thread():
        root = Path(folder)
        tiny_classification.make_images(root / "images")
        per_epoch = tiny_classification.CLASSES * tiny_classification.IMAGES // BATCH
        run = tiny_classification.tiny_run(
            root / "run",
            images=root / "images",
            model=MODEL,
            image_size=size,
            batch_size=BATCH,
            epochs=-(-(steps + WARMUP) // per_epoch),
            drop_path=0.1,
            mixup=0.8,
            cutmix=1.0,
            log_every=50,
            checkpoint_every=10**6,
        )
        images, labels = torch.randn(BATCH, 3, size, size), torch.arange(BATCH) % run.dataset.num_classes
        targets = torch.nn.functional.one_hot(labels, run.dataset.num_classes).float()
        model = create(run.model, num_classes=run.dataset.num_classes, drop_path_rate=0.1).train()
        bare = _bare_step(model, lambda: SoftTargetCrossEntropy()(model(images), targets))
        times = _Times(bare, lambda: (images, labels))
        with patch.object(training, "batches", lambda *_arguments, **_options: times.batches(steps + WARMUP)):
            classification.train(run)
        return times.ratio()


def _dense(task: str, steps: int) -> Interval:
    with TemporaryDirectory() as folder, _one_thread():
        per_epoch = tiny_dense.IMAGES["train"] // tiny_dense.RECIPES[task].batch_size
        total = steps + WARMUP
        length = {"segmentation": {"iterations": total}, "detection": {"epochs": -(-total // per_epoch)}}
        run = tiny_dense.tiny_run(Path(folder), task, MODEL, log_every=50, checkpoint_every=10**6, **length[task])
        mm = load_mm()
        load = sampling.batches
        times = _Times()

        def from_memory(*arguments: Any, **options: Any) -> Iterator[dict]:
            batch = next(load(*arguments, **options))
            with mm.scope(task):
                model = build_dense_model(run.model, task, run.dataset.num_classes, run.recipe).train()
            model.init_weights()

            def loss() -> torch.Tensor:
                return model.parse_losses(model(**model.data_preprocessor(batch, True), mode="loss"))[0]

            times.start(_bare_step(model, loss), lambda: batch)
            return times.batches(total)

        with patch.object(training, "batches", from_memory):
            dense.train(run)
        return times.ratio()


def _bare_step(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    # The fused optimiser is the fastest, and the engines use it too.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


class _Times:
    """Yields one batch repeatedly, and times a bare step before it and the engine's step after it."""

    def __init__(self, bare: Callable[[], None] | None = None, batch: Callable[[], Any] | None = None):
        self._ratios: list[float] = []
        if bare is not None and batch is not None:
            self.start(bare, batch)

    def start(self, bare: Callable[[], None], batch: Callable[[], Any]) -> None:
        self._bare, self._batch = bare, batch

    def batches(self, steps: int) -> Iterator[Any]:
        for done in range(steps):
            deterministic = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(False)
            start = time.perf_counter()
            self._bare()
            bare = time.perf_counter() - start
            torch.use_deterministic_algorithms(deterministic, warn_only=True)
            batch = self._batch()
            start = time.perf_counter()
            yield batch
            if done >= WARMUP:
                self._ratios.append((time.perf_counter() - start) / bare)

    def ratio(self) -> Interval:
        return median_interval(self._ratios)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
