"""The images and the random numbers of each step, which depend only on the seed and the step.

A training that was interrupted, or that loads its data with another number of workers, therefore receives the same
batches with the same augmentations as an uninterrupted one. No random state has to be saved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from hafabench.engines.interrupt import leave_signals_to_parent

SampleKey = tuple[int, int, int]
"""An image's index, the epoch, and its position in the epoch."""


class SizedDataset(Dataset[Any]):
    """A data set with a length, which torch's `Dataset` does not declare."""

    def __len__(self) -> int:
        raise NotImplementedError


class Stream(IntEnum):
    """Independent uses of random numbers under one seed."""

    WEIGHTS = 0
    ORDER = 1
    SAMPLE = 2
    STEP = 3


def seed_everything(seed: int, stream: Stream, *counters: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (of all devices) from ``seed`` and ``counters``."""
    words = np.random.SeedSequence((seed, int(stream), *counters)).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - timm's transforms and Mixup draw from this generator
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


class StepSampler(Sampler[list[SampleKey]]):
    """The batches of one process, step by step through all epochs, starting at any step.

    An epoch has as many samples as the data set, without an incomplete last batch. With repeated augmentation every
    image that is drawn occurs ``repeats`` times in succession, so that an epoch contains about 1/``repeats`` of the
    images. The samples are dealt to the processes in turn, so that the copies of an image go to different processes
    (Hoffer et al., CVPR 2020, as in DeiT's published sampler). The union of the processes' batches depends on neither
    the rank nor the number of processes.

    Args:
        images: Number of images in the data set.
        batch_size: Images per step, over all processes.
        repeats: Copies of an image.
        seed: Seed of the order.
        start: First step, counted from 0.
        stop: The step after the last one.
        rank: Number of this process.
        size: Number of processes.
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
            positions = range(first + self._rank, first + self._batch, self._size)
            yield [(int(order[position]), epoch, position) for position in positions]

    def _order(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng((self._seed, int(Stream.ORDER), epoch))
        return np.repeat(generator.permutation(self._images), self._repeats)[: self._images]


class SeededSamples(Dataset[Any]):
    """A data set whose random transforms are seeded for every sample, by seed, epoch and position in the epoch."""

    def __init__(self, dataset: Dataset[Any], seed: int):
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, key: SampleKey) -> object:
        index, epoch, position = key
        seed_everything(self._seed, Stream.SAMPLE, epoch, position)
        return self._dataset[index]


def batches(
    dataset: Dataset[Any],
    sampler: Iterable[list[Any]],
    *,
    workers: int,
    pin: bool,
    collate: Callable[[list[Any]], Any] = default_collate,
) -> Generator[Any]:
    """Load batches of ``dataset``. Close the generator (`contextlib.closing`) to end its worker processes.

    Args:
        dataset: By default its samples are pairs of image and label.
        sampler: The keys of the samples of each batch.
        workers: Loading processes; 0 loads in this process.
        pin: Whether tensors are placed in pinned memory, from which they are copied to a GPU faster.
        collate: Makes a batch from a list of samples. By default a batch is images (B, 3, H, W) and labels (B,).

    Raises:
        UserError: If an image cannot be read.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=leave_signals_to_parent,
        # The loader draws a base seed; with its own generator it leaves the global one unchanged.
        generator=torch.Generator(),
    )
    iterator: Any = iter(loader)
    try:
        yield from iterator
    finally:
        # After an error the traceback holds the iterator, so that garbage collection would end the workers much
        # later.
        if workers:
            iterator._shutdown_workers()
