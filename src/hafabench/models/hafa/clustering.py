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

import torch

# Largest block of squared distances held at once, in elements (64 MiB of float32).
MAX_DISTANCES = 2**24
# Beyond this many tokens a whole distance matrix costs more in memory traffic than computing it twice in row blocks.
MAX_WHOLE_TOKENS = 2048


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
    rank = _rank(density)
    delta = _delta(distances, rank, rank)
    largest = distances.flatten(1).amax(1, keepdim=True)
    centres = _centres(density, torch.where(rank == 0, largest, delta), clusters, channels)
    to_centres = distances.gather(1, centres.unsqueeze(-1).expand(-1, -1, x.shape[1]))
    return _join(to_centres.argmin(1), centres)


def _cluster_in_blocks(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """The same in row blocks, without ever holding all N^2 distances; one sample."""
    tokens, channels = x.shape[1:]
    norms = x.square().sum(-1)
    rows = max(1, MAX_DISTANCES // (4 * tokens))
    blocks = torch.arange(tokens, device=x.device).split(rows)

    def distances_of(block: torch.Tensor) -> torch.Tensor:
        distances = _squared_distances(x[:, block], x, norms[:, block], norms)
        distances.scatter_(2, block.view(1, -1, 1), 0.0)
        return distances

    density, largest = [], []
    for block in blocks:
        distances = distances_of(block)
        density.append(_density(distances, k, channels))
        largest.append(distances.flatten(1).amax(1, keepdim=True))
    density, largest = torch.cat(density, 1), torch.cat(largest, 1).amax(1, keepdim=True)
    rank = _rank(density)
    delta = torch.cat([_delta(distances_of(block), rank[:, block], rank) for block in blocks], 1)
    centres = _centres(density, torch.where(rank == 0, largest, delta), clusters, channels)
    assignment = []
    for block in blocks:
        to_centres = _squared_distances(x[:, block], x[:, centres[0]], norms[:, block], norms[:, centres[0]])
        assignment.append(to_centres.argmin(2))
    return _join(torch.cat(assignment, 1), centres)


def _squared_distances(a: torch.Tensor, b: torch.Tensor, a2: torch.Tensor, b2: torch.Tensor) -> torch.Tensor:
    """(B, n, m) squared distances of (B, n, C) and (B, m, C), given their squared norms."""
    sums = a2.unsqueeze(2) + b2.unsqueeze(1)
    return sums.baddbmm_(a, b.transpose(1, 2), alpha=-2).clamp_(min=0)


def _density(distances: torch.Tensor, k: int, channels: int) -> torch.Tensor:
    return (distances.topk(k, dim=-1, largest=False, sorted=False).values.mean(-1) / -channels).exp()


def _rank(density: torch.Tensor) -> torch.Tensor:
    """(B, N): 0 for the densest token; of equals the lower index is denser."""
    order = density.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _delta(distances: torch.Tensor, rank: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Squared distance to the nearest denser token, infinite for the densest; overwrites nothing."""
    not_denser = ranks.unsqueeze(1) >= rank.unsqueeze(2)
    return distances.masked_fill(not_denser, torch.inf).amin(-1)


def _centres(density: torch.Tensor, delta: torch.Tensor, clusters: int, channels: int) -> torch.Tensor:
    score = density * (delta / channels).sqrt()
    return score.argsort(dim=1, descending=True, stable=True)[:, :clusters]


def _join(assignment: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    labels = torch.arange(centres.shape[1], device=centres.device).expand_as(centres)
    return assignment.scatter(1, centres, labels)
