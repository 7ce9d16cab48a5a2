"""Conversions between tokens and maps, compared with loops over the positions of the initial grid."""

from __future__ import annotations

import pytest
import torch

from hafabench.models.hafa import ClusterTable, Tokens

GENERATOR = torch.Generator().manual_seed(0)


def clustered(initial_grid: tuple[int, int], count: int, channels: int = 3, batch: int = 2) -> Tokens:
    positions = initial_grid[0] * initial_grid[1]
    index = torch.randint(count, (batch, positions), generator=GENERATOR)
    x = torch.randn(batch, count, channels, generator=GENERATOR)
    return Tokens(x, (2, 3), ClusterTable(index, initial_grid, count))


def position_in_map(position: int, initial_grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    row, column = divmod(position, initial_grid[1])
    return row * size[0] // initial_grid[0], column * size[1] // initial_grid[1]


def map_by_loops(tokens: Tokens, size: tuple[int, int]) -> torch.Tensor:
    batch, _, channels = tokens.x.shape
    sums = torch.zeros(batch, channels, *size)
    counts = torch.zeros(*size)
    for position in range(tokens.assignment.shape[1]):
        row, column = position_in_map(position, tokens.initial_grid, size)
        counts[row, column] += 1
        for sample in range(batch):
            sums[sample, :, row, column] += tokens.x[sample, tokens.assignment[sample, position]]
    return sums / (counts + 1e-6)


def tokens_by_loops(tokens: Tokens, features: torch.Tensor) -> torch.Tensor:
    sums = torch.zeros(*tokens.x.shape[:2], features.shape[1])
    counts = torch.zeros(*tokens.x.shape[:2], 1)
    for sample, assigned in enumerate(tokens.assignment.tolist()):
        for position, token in enumerate(assigned):
            row, column = position_in_map(position, tokens.initial_grid, tuple(features.shape[-2:]))
            sums[sample, token] += features[sample, :, row, column]
            counts[sample, token] += 1
    return sums / (counts + 1e-6)


# Even ratios, odd ratios, and a map finer than the initial grid, some of whose positions have no token.
SIZES = [((8, 12), (4, 6)), ((7, 9), (4, 5)), ((5, 5), (3, 2)), ((3, 4), (5, 4))]


@pytest.mark.parametrize(("initial_grid", "size"), SIZES)
def test_clustered_tokens(initial_grid, size):
    tokens = clustered(initial_grid, count=6)
    torch.testing.assert_close(tokens.to_map(size), map_by_loops(tokens, size))
    features = torch.randn(2, 5, *size, generator=GENERATOR)
    torch.testing.assert_close(tokens.gather_map(features), tokens_by_loops(tokens, features))


@pytest.mark.parametrize(("grid", "size"), [((8, 12), (4, 6)), ((7, 9), (4, 5))])
def test_grid_tokens_to_another_size(grid, size):
    tokens = Tokens.from_map(torch.randn(2, 3, *grid, generator=GENERATOR))
    positions = torch.arange(grid[0] * grid[1]).expand(2, -1)
    as_clusters = Tokens(tokens.x, grid, ClusterTable(positions, grid, positions.shape[1]))
    torch.testing.assert_close(tokens.to_map(size), map_by_loops(as_clusters, size))
    features = torch.randn(2, 3, *size, generator=GENERATOR)
    torch.testing.assert_close(tokens.gather_map(features), tokens_by_loops(as_clusters, features))


def test_grid_tokens_are_the_map():
    features = torch.randn(2, 3, 4, 5)
    tokens = Tokens.from_map(features)
    assert tokens.assignment is None
    assert tokens.initial_grid == tokens.grid == (4, 5)
    assert tokens.to_map().data_ptr() == features.data_ptr()
    assert torch.equal(tokens.to_map(), features)


def test_per_position():
    tokens = clustered((4, 4), count=3)
    features = tokens.per_position()
    assert features.shape == (2, 3, 4, 4)
    assert torch.equal(features[1, :, 2, 3], tokens.x[1, tokens.assignment[1, 11]])


def test_clustering_after_clustering():
    table = clustered((4, 6), count=5).table
    assignment = torch.tensor([[0, 1, 1, 0, 2], [2, 2, 0, 1, 1]])
    merged = table.merge(assignment, 3)
    for sample in range(2):
        assert merged.index[sample].tolist() == [assignment[sample, token].item() for token in table.index[sample]]
    assert merged.size == (4, 6)
    assert merged.num_tokens == 3
    assert len(merged.positions_of_tokens((4, 6)).index) == 2 * 24, "every position of both samples"


def test_centres():
    grid = Tokens(torch.zeros(1, 6, 1), (2, 3))
    expected = [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]
    assert grid.centres((2, 3))[0].tolist() == expected
    # On a grid of half the size, the centre of the first position is at -0.25.
    assert Tokens(torch.zeros(1, 4, 1), (2, 2)).centres((1, 1))[0].tolist()[0] == [-0.25, -0.25]
    halves = Tokens(torch.zeros(1, 2, 1), (1, 2), ClusterTable(torch.tensor([[0, 0, 1, 1] * 2]), (2, 4), 2))
    torch.testing.assert_close(halves.centres((1, 2)), torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]))


def test_gradients_of_both_ways():
    tokens = clustered((4, 4), count=3, channels=2)
    x = tokens.x.double().requires_grad_()
    features = torch.randn(2, 2, 2, 2, dtype=torch.double, generator=GENERATOR, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tokens.with_x(x).to_map((2, 2)), (x,))
    assert torch.autograd.gradcheck(tokens.gather_map, (features,))
