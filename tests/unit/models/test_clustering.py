"""DPC-KNN against a transcription of its definition, and cases that the golden arrays do not cover."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hafabench.models.hafa import clustering
from hafabench.models.hafa.clustering import dpc_knn
from tools.reference_dpc_knn import reference_dpc_knn


def by_definition(x: torch.Tensor, clusters: int, k: int) -> list[int]:
    """One sample's assignment, written from the definition with loops, in float64."""
    x = x.double()
    count, channels = x.shape
    d = [[(x[i] - x[j]).norm().item() / math.sqrt(channels) for j in range(count)] for i in range(count)]
    rho = [math.exp(-sum(value**2 for value in sorted(row)[:k]) / k) for row in d]

    def is_denser(j: int, i: int) -> bool:
        return rho[j] > rho[i] or (rho[j] == rho[i] and j < i)

    delta = []
    for i in range(count):
        denser = [d[i][j] for j in range(count) if is_denser(j, i)]
        delta.append(min(denser) if denser else max(max(row) for row in d))
    centres = sorted(range(count), key=lambda i: (-rho[i] * delta[i], i))[:clusters]
    labels = []
    for i in range(count):
        label = min(range(clusters), key=lambda c: (d[i][centres[c]], c))
        labels.append(centres.index(i) if i in centres else label)
    return labels


@pytest.mark.parametrize(("count", "channels", "clusters", "k"), [(12, 3, 4, 5), (33, 8, 9, 5), (20, 4, 1, 1)])
def test_equals_definition(count, channels, clusters, k):
    x = torch.randn(3, count, channels, generator=torch.Generator().manual_seed(count))
    expected = [by_definition(sample, clusters, k) for sample in x]
    assert dpc_knn(x, clusters, k).tolist() == expected


# From 23 x 23 tokens on, distances are computed in blocks of rows; 40 x 40 tokens take five blocks.
@pytest.mark.parametrize(
    ("side", "channels", "clusters"),
    [(14, 32, 49), (17, 6, 73), (23, 6, 73), (28, 16, 3), (40, 8, 400)],
)
@pytest.mark.parametrize("smooth", [False, True], ids=["noise", "smooth map"])
def test_equals_the_reference(side, channels, clusters, smooth):
    """In noise, most tokens have their denser token and their centre among their neighbours; on a smooth map, few."""
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(2, channels, side, side, generator=generator, dtype=torch.float64)
    if smooth:
        x = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
    x = x.flatten(2).transpose(1, 2)
    assert torch.equal(dpc_knn(x, clusters, 5), reference_dpc_knn(x, clusters, 5))


@pytest.mark.parametrize("repeat", [2, 7])
def test_blocks_equal_whole_among_equal_tokens(repeat, monkeypatch):
    """With more equal tokens than neighbours, the nearest centre of lowest label may not be one of the neighbours."""
    # Small integers of mean zero: every product and sum is exact, so that equal tokens have equal distances.
    half = torch.randint(-4, 5, (2, 20, 4), generator=torch.Generator().manual_seed(0)).float()
    x = torch.cat((half, -half), dim=1).repeat_interleave(repeat, dim=1)
    whole = dpc_knn(x, 10 * repeat, 5)
    monkeypatch.setattr(clustering, "MAX_WHOLE_TOKENS", 0)
    assert torch.equal(dpc_knn(x, 10 * repeat, 5), whole)


@pytest.mark.parametrize(("columns", "k"), [(196, 5), (64, 1), (7, 7), (3136, 5)])
def test_smallest_values_and_their_places(columns, k):
    x = torch.randint(0, 50, (3, 4, columns), generator=torch.Generator().manual_seed(columns)).float()
    values, places = clustering._smallest(x, k)
    assert torch.equal(values, x.sort().values[..., :k])
    assert torch.equal(x.gather(-1, places), values)
    assert all(len(set(row.tolist())) == k for row in places.flatten(0, 1))


def test_large_batches_are_clustered_in_parts():
    # 512 tokens are the most whose distances are held as one matrix, and 64 such matrices are held at once.
    x = torch.randn(65, 512, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(dpc_knn(x, 100, 5)[60:], dpc_knn(x[60:], 100, 5))


def test_large_common_offset_costs_no_digits():
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(1))
    x = (x * 1024).round() / 1024
    assert torch.equal(dpc_knn(x + 512, 10, 5), dpc_knn(x, 10, 5))


@pytest.mark.parametrize("tokens", [196, 784])
def test_identical_tokens(tokens):
    assignment = dpc_knn(torch.full((2, tokens, 16), 0.3), 49, 5)
    # All densities, deltas and distances tie: the first 49 tokens are the centres, the others join the first.
    expected = torch.cat((torch.arange(49), torch.zeros(tokens - 49, dtype=torch.long)))
    assert torch.equal(assignment, expected.expand(2, -1))


def test_every_cluster_has_its_centre():
    # Pairs of equal tokens: a centre's twin may be a centre too, at distance zero.
    x = torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(2)).repeat_interleave(2, dim=1)
    assert set(dpc_knn(x, 15, 5)[0].tolist()) == set(range(15))


def test_fewer_tokens_than_neighbours():
    assert dpc_knn(torch.zeros(1, 1, 4), 1, 5).tolist() == [[0]]
    assert sorted(dpc_knn(torch.tensor([[[0.0], [1.0], [5.0]]]), 3, 5)[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("clusters", [0, 5])
def test_impossible_numbers_of_clusters(clusters):
    with pytest.raises(ValueError, match=f"cannot form {clusters} clusters of 4 tokens"):
        dpc_knn(torch.zeros(1, 4, 2), clusters, 5)


def test_half_precision_is_computed_in_single():
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(3)).half()
    assert torch.equal(dpc_knn(x, 10, 5), dpc_knn(x.float(), 10, 5))


def test_counters_and_meta_device():
    x = torch.randn(2, 16, 8)
    with FlopCounterMode(display=False) as counter:
        dpc_knn(x, 4, 5)
    assert counter.get_total_flops() == 0
    assert dpc_knn(x.to("meta"), 4, 5).shape == (2, 16)


def test_operator_contract():
    torch.library.opcheck(torch.ops.hafabench.dpc_knn.default, (torch.randn(2, 16, 8), 4, 5))
