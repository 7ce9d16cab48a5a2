"""Which images a step sees and with what randomness: functions of (seed, step), whatever happened before.

A training that is stopped anywhere, or loads its data with another number of workers, therefore sees the same batches
under the same augmentations as one that ran through. No random state needs to be kept: it is derived anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from hafabench.engines.interrupt import leave_signals_to_parent

SampleKey = tuple[int, int, int]
"""An image's index, the epoch, and its position in the epoch."""


class Stream(IntEnum):
    """Independent uses of randomness under one seed."""

    WEIGHTS = 0
    ORDER = 1
    SAMPLE = 2
    STEP = 3


def seed_everything(seed: int, stream: Stream, *counters: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (all devices) from ``seed`` and ``counters``."""
    words = np.random.SeedSequence((seed, int(stream), *counters)).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - timm's transforms and Mixup draw from this generator
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


class StepSampler(Sampler[list[SampleKey]]):
    """One process's batches, step by step through all epochs, from any step on.

    An epoch has as many samples as the data set (less an incomplete last batch). With repeated augmentation every
    image drawn stands in it ``repeats`` times in a row, so that an epoch sees about 1/``repeats`` of the images;
    processes take turns through the order, so that the copies go to different ones (Hoffer et al., CVPR 2020, as in
    DeiT's published sampler). The union of the processes' batches depends on neither rank nor number of processes.

    Args:
        images: number of images in the data set.
        batch_size: of a step, over all processes.
        repeats: copies of an image.
        seed: of the order.
        start, stop: first step, and the step after the last (0-based).
        rank, size: of this process.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        repeats: int = 1,
        seed: int,
        start: int = 0,
        stop: int,
        rank: int = 0,
        size: int = 1,
    ):
        self._images, self._batch, self._repeats, self._seed = images, batch_size, repeats, seed
        self._start, self._stop = start, stop
        self._rank, self._size = rank, size
        self._steps_per_epoch = images // batch_size

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order, epoch = np.empty(0, dtype=np.int64), -1
        for step in range(self._start, self._stop):
            if step // self._steps_per_epoch != epoch:
                epoch = step // self._steps_per_epoch
                order = self._order(epoch)
            first = step % self._steps_per_epoch * self._batch
            mine = range(first + self._rank, first + self._batch, self._size)
            yield [(int(order[position]), epoch, position) for position in mine]

    def _order(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng((self._seed, int(Stream.ORDER), epoch))
        return np.repeat(generator.permutation(self._images), self._repeats)[: self._images]


class SeededSamples(Dataset):
    """A data set whose random transforms are seeded per sample: by seed, epoch and position in the epoch."""

    def __init__(self, dataset: Dataset, seed: int):
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, key: SampleKey) -> object:
        index, epoch, position = key
        seed_everything(self._seed, Stream.SAMPLE, epoch, position)
        return self._dataset[index]


def batches(
    dataset: Dataset,
    sampler: Iterable[list],
    *,
    workers: int,
    pin: bool,
    collate: Callable[[list], Any] = default_collate,
) -> Iterator[Any]:
    """Batches of ``dataset``, loaded by ``workers`` processes (0: by this one).

    By default samples are (image, label) and a batch is images (B, 3, H, W) and labels (B,); ``collate`` makes
    another kind of batch of a list of samples. Close the generator (`contextlib.closing`) to end its processes.

    Raises:
        UserError: for an image that cannot be read.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=leave_signals_to_parent,
        # Its own generator: the loader's draw of a base seed must not touch the global one.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        # Left to garbage collection, workers outlive an error by many seconds: its traceback holds the iterator.
        if workers:
            iterator._shutdown_workers()
