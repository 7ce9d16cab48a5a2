"""DPC-KNN: density peaks clustering with k nearest neighbours, as HAFA uses it to group tokens.

Du, Ding and Jia, *Study on density peaks clustering based on k-nearest neighbors and principal component analysis*,
Knowledge-Based Systems 2016; in vision transformers first in TCFormer (Zeng et al., CVPR 2022). HAFA section 3.3.

For tokens x_i of C channels, with d_ij = ||x_i - x_j|| / sqrt(C):

- density rho_i = exp(-mean of the k smallest d_ij^2, itself included);
- delta_i (the paper's sigma) = min d_ij over the denser j; for the densest, the largest distance of the sample;
- centres are the tokens of largest rho * delta, labelled in descending order of it;
- every token joins its nearest centre, and every centre itself.

Ties are broken by index (lower = denser = earlier), where the published code adds random noise to the densities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

# Squared distances held at once, in elements: whole matrices of several samples (64 MiB of float32), or one row block
# (4 MiB, which a processor's cache holds).
MAX_DISTANCES = 2**24
MAX_BLOCK = 2**20
# Beyond this many tokens a whole distance matrix costs more in memory traffic than computing it again in row blocks.
MAX_WHOLE_TOKENS = 1536


@torch.library.custom_op("hafabench::dpc_knn", mutates_args=())
def dpc_knn(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """Cluster the tokens of each sample.

    An operator of its own, so that compilers take it as one node and counters of multiply-accumulates do not see
    distances. It has no gradient: the assignment is piecewise constant.

    Args:
        x: (B, N, C) tokens; distances are computed in float32 (float64 stays float64).
        clusters: how many, 1 <= clusters <= N.
        k: neighbours of the density, clamped to N.

    Returns:
        (B, N) int64: each token's cluster, 0 <= cluster < clusters, none of them empty.
    """
    if not 1 <= clusters <= x.shape[1]:
        raise ValueError(f"cannot form {clusters} clusters of {x.shape[1]} tokens")
    if x.dtype != torch.float64:
        x = x.float()
    # Distances do not change, and lose fewer digits to cancellation in |a|^2 + |b|^2 - 2ab.
    x = x - x.mean(dim=1, keepdim=True)
    k = min(k, x.shape[1])
    tokens = x.shape[1]
    if tokens > MAX_WHOLE_TOKENS:
        return torch.cat([_cluster_in_blocks(sample, clusters, k) for sample in x.split(1)])
    samples = max(1, MAX_DISTANCES // tokens**2)
    return torch.cat([_cluster_whole(part, clusters, k) for part in x.split(samples)])


@dpc_knn.register_fake
def _(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    return x.new_empty(x.shape[:2], dtype=torch.long)


def _cluster_whole(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """One batched product serves densities, deltas and assignment."""
    norms = x.square().sum(-1)
    distances = _squared_distances(x, x, norms, norms)
    distances.diagonal(dim1=1, dim2=2).zero_()
    channels = x.shape[-1]
    density = _density(distances, k, channels)
    centres = _centres(density, _delta(distances, density), clusters, channels)
    to_centres = distances.gather(1, centres.unsqueeze(-1).expand(-1, -1, x.shape[1]))
    return _join(to_centres.argmin(1), centres)


def _cluster_in_blocks(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """The same in row blocks, without ever holding all N^2 distances; one sample."""
    tokens, channels = x.shape[1:]
    norms = x.square().sum(-1)
    rows = max(1, MAX_BLOCK // tokens)
    blocks = [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]
    density, largest = [], []
    for block in blocks:
        distances = _squared_distances(x[:, block], x, norms[:, block], norms)
        distances[:, :, block].diagonal(dim1=1, dim2=2).zero_()
        density.append(_density(distances, k, channels))
        largest.append(distances.flatten(1).amax(1, keepdim=True))
    density, largest = torch.cat(density, 1), torch.cat(largest, 1).amax(1, keepdim=True)
    delta = torch.cat([largest, *_deltas_by_density(x, norms, _order(density), blocks)], 1)
    delta = torch.empty_like(delta).scatter_(1, _order(density), delta)
    centres = _centres(density, delta, clusters, channels)
    assignment = []
    for block in blocks:
        to_centres = _squared_distances(x[:, block], x[:, centres[0]], norms[:, block], norms[:, centres[0]])
        assignment.append(to_centres.argmin(2))
    return _join(torch.cat(assignment, 1), centres)


def _deltas_by_density(
    x: torch.Tensor, norms: torch.Tensor, order: torch.Tensor, blocks: Iterable[slice]
) -> Iterator[torch.Tensor]:
    """Squared distances to the nearest denser token, from the second densest down; one sample.

    In that order the denser tokens of a row are those to its left: half of the distances are never computed.
    """
    x, norms = x[:, order[0]], norms[:, order[0]]
    for block in blocks:
        distances = _squared_distances(x[:, block], x[:, : block.stop], norms[:, block], norms[:, : block.stop])
        square = distances[:, :, block]
        square.masked_fill_(torch.ones_like(square, dtype=torch.bool).triu_(), torch.inf)
        delta = distances.amin(-1)
        yield delta[:, 1:] if block.start == 0 else delta


def _squared_distances(a: torch.Tensor, b: torch.Tensor, a2: torch.Tensor, b2: torch.Tensor) -> torch.Tensor:
    """(B, n, m) squared distances of (B, n, C) and (B, m, C), given their squared norms."""
    sums = a2.unsqueeze(2) + b2.unsqueeze(1)
    return sums.baddbmm_(a, b.transpose(1, 2), alpha=-2).clamp_(min=0)


def _density(distances: torch.Tensor, k: int, channels: int) -> torch.Tensor:
    return (distances.topk(k, dim=-1, largest=False, sorted=False).values.mean(-1) / -channels).exp()


def _order(density: torch.Tensor) -> torch.Tensor:
    """(B, N) indices from the densest token down; of equals the lower index is denser."""
    return density.argsort(dim=1, descending=True, stable=True)


def _delta(distances: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
    """Squared distance to the nearest denser token; for the densest, the largest distance of the sample."""
    order = _order(density)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    not_denser = rank.unsqueeze(1) >= rank.unsqueeze(2)
    nearest = distances.masked_fill(not_denser, torch.inf).amin(-1)
    return torch.where(rank == 0, distances.flatten(1).amax(1, keepdim=True), nearest)


def _centres(density: torch.Tensor, delta: torch.Tensor, clusters: int, channels: int) -> torch.Tensor:
    score = density * (delta / channels).sqrt()
    return score.argsort(dim=1, descending=True, stable=True)[:, :clusters]


def _join(assignment: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    labels = torch.arange(centres.shape[1], device=centres.device).expand_as(centres)
    return assignment.scatter(1, centres, labels)
