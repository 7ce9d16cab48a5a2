"""The images and the random numbers of a step depend only on the seed and the step."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from hafabench.engines.sampling import SeededSamples, StepSampler, Stream, batches, seed_everything
from hafabench.errors import UserError

IMAGES, BATCH, EPOCH = 26, 8, 3


def steps(**changes) -> list[list[tuple[int, int, int]]]:
    return list(StepSampler(IMAGES, BATCH, **{"seed": 0, "stop": 2 * EPOCH, **changes}))


def test_an_epoch_draws_every_image_at_most_once_and_drops_the_incomplete_batch():
    drawn = [key for batch in steps(stop=EPOCH) for key in batch]
    assert [position for _, _, position in drawn] == list(range(24))
    assert len({index for index, _, _ in drawn}) == 24
    assert {epoch for _, epoch, _ in drawn} == {0}


def test_epochs_and_seeds_are_ordered_differently():
    first, second = steps()[:EPOCH], steps()[EPOCH:]
    assert {epoch for batch in second for _, epoch, _ in batch} == {1}
    indices = [[index for batch in part for index, _, _ in batch] for part in (first, second, steps(seed=1)[:EPOCH])]
    assert indices[0] != indices[1] and indices[0] != indices[2]


@pytest.mark.parametrize("start", range(2 * EPOCH + 1))
def test_starting_anywhere_continues_the_same_sequence(start):
    assert steps(start=start, repeats=3) == steps(repeats=3)[start:]
    assert len(StepSampler(IMAGES, BATCH, seed=0, start=start, stop=2 * EPOCH)) == 2 * EPOCH - start


def test_repeated_augmentation_shows_a_third_of_the_images_three_times():
    drawn = [key for batch in steps(repeats=3, stop=EPOCH) for key in batch]
    assert sorted(Counter(index for index, _, _ in drawn).values()) == [3] * 8
    assert len({(epoch, position) for _, epoch, position in drawn}) == 24


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_each_batch_and_copies_go_to_different_ones(size):
    alone = steps(repeats=2)
    shares = [steps(repeats=2, rank=rank, size=size) for rank in range(size)]
    for step, batch in enumerate(alone):
        assert sorted(key for share in shares for key in share[step]) == sorted(batch)
        for share in shares:
            assert len(share[step]) == BATCH // size
            assert len({index for index, _, _ in share[step]}) == BATCH // size


class Noise(Dataset):
    """Draws from all three generators, as timm's transforms do."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002 - what timm uses
        return torch.tensor([index, *drawn], dtype=torch.float64), index


def test_a_sample_is_a_function_of_seed_epoch_and_position():
    samples = SeededSamples(Noise(), seed=0)
    keys = [(5, 0, 0), (5, 0, 1), (5, 1, 0)]
    drawn = [samples[key][0] for key in keys]
    for key, expected in zip(keys, drawn, strict=True):
        assert torch.equal(samples[key][0], expected)
    other_seed = SeededSamples(Noise(), seed=1)[keys[0]][0]
    for other in (*drawn[1:], other_seed):
        assert not (drawn[0][1:] == other[1:]).any()


def test_streams_and_counters_are_independent():
    draws = set()
    for stream in Stream:
        for counter in range(3):
            seed_everything(0, stream, counter)
            draws.add(torch.rand(()).item())
    assert len(draws) == 3 * len(Stream)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(workers):
    def load(count: int) -> torch.Tensor:
        sampler = StepSampler(IMAGES, BATCH, seed=0, stop=4)
        samples = SeededSamples(Noise(), seed=0)
        return torch.stack([images for images, _ in batches(samples, sampler, workers=count, pin=False)])

    assert torch.equal(load(workers), load(0))


def test_loading_leaves_the_global_generator_alone():
    class Zeros(Dataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(1), index

    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert len(list(batches(Zeros(), [[0, 1], [2]], workers=0, pin=False))) == 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ending", ["closed", "failed"])
def test_workers_end_with_the_loading(ending):
    class Broken(Dataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            if index == 9:
                raise UserError("9.png: cannot be decoded")
            return torch.zeros(1), index

    loading = batches(Broken(), [[0], [9], [1], [2], [3]], workers=2, pin=False)
    next(loading)
    assert len(multiprocessing.active_children()) == 2
    if ending == "closed":
        loading.close()
        error = None
    else:
        with pytest.raises(UserError, match="cannot be decoded") as error:
            next(loading)
    assert not multiprocessing.active_children(), error
