"""DPC-KNN against a literal transcription of its definition, and what the golden arrays do not pin."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hafabench.models.hafa import clustering
from hafabench.models.hafa.clustering import dpc_knn


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


def test_blocks_equal_whole(monkeypatch):
    x = torch.randn(3, 301, 6, generator=torch.Generator().manual_seed(0))
    whole = dpc_knn(x, 76, 5)
    monkeypatch.setattr(clustering, "MAX_WHOLE_TOKENS", 100)
    monkeypatch.setattr(clustering, "MAX_BLOCK", 301 * 64)
    assert torch.equal(dpc_knn(x, 76, 5), whole)


def test_batches_larger_than_memory_allows_are_split(monkeypatch):
    x = torch.randn(5, 20, 6, generator=torch.Generator().manual_seed(0))
    together = dpc_knn(x, 5, 5)
    monkeypatch.setattr(clustering, "MAX_DISTANCES", 2 * 20 * 20)
    assert torch.equal(dpc_knn(x, 5, 5), together)


def test_large_common_offset_costs_no_digits():
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(1))
    x = (x * 1024).round() / 1024
    assert torch.equal(dpc_knn(x + 512, 10, 5), dpc_knn(x, 10, 5))


@pytest.mark.parametrize("blocks", [False, True])
def test_identical_tokens(blocks, monkeypatch):
    if blocks:
        monkeypatch.setattr(clustering, "MAX_WHOLE_TOKENS", 8)
    assignment = dpc_knn(torch.full((2, 196, 16), 0.3), 49, 5)
    # All densities, deltas and distances tie: the first 49 tokens are the centres, the others join the first.
    expected = torch.cat((torch.arange(49), torch.zeros(147, dtype=torch.long)))
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
    torch.library.opcheck(dpc_knn, (torch.randn(2, 16, 8), 4, 5))
