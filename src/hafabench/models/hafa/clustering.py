"""DPC-KNN: density peaks clustering with k nearest neighbours, which HAFA uses to group tokens.

Du, Ding and Jia, *Study on density peaks clustering based on k-nearest neighbors and principal component analysis*,
Knowledge-Based Systems 2016. TCFormer (Zeng et al., CVPR 2022) first used it in a vision transformer. HAFA section
3.3.

For tokens x_i of C channels, with d_ij = ||x_i - x_j|| / sqrt(C):

- density rho_i = exp(-mean of the k smallest d_ij^2, itself included);
- delta_i (the paper's sigma) = min d_ij over the denser j; for the densest, the largest distance of the sample;
- the centres are the tokens of largest rho * delta, labelled in descending order;
- every token joins its nearest centre; a centre joins itself.

The factor 1 / sqrt(C) is that of the published code. Equations 2 and 3 of the paper do not have it. Taken literally,
they give squared distances of about the number of channels between normalised tokens, and exp(-d^2) is zero in
float32 for d^2 above 104, so that most densities would be equal.

Ties are resolved by index: the equal token with the lower index is denser and comes first. The published
code adds random noise to the densities instead.

The computation is shortened as follows. The part |b|^2 - 2ab of a squared distance is one matrix product; |a|^2 is
constant along a row and is added after the row has been reduced. The densest token has the largest rho and the
largest delta, so it is the first centre and its delta is not computed. For more than `MAX_WHOLE_TOKENS` tokens, the N
x N matrix is not stored as a whole. The nearest neighbours of a token, which its density needs, usually include its
nearest denser token and its nearest centre; distances are computed again only for the other tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hafabench.models.precision import at_least_single, without_autocast

# Squared distances in memory at the same time, in elements: whole matrices of several samples (64 MiB of float32), or
# one row block (2 MiB, which fits into a processor's cache).
MAX_DISTANCES = 2**24
MAX_BLOCK = 2**19
# For more tokens than this, row blocks are faster than a whole distance matrix.
MAX_WHOLE_TOKENS = 512


def dpc_knn(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """Cluster the tokens of each sample.

    It is registered as an operator, so that compilers treat it as one node and distances do not count as
    multiply-accumulates. It has no gradient: the assignment is piecewise constant.

    Args:
        x: Tokens (B, N, C). Distances, densities and the choice of the centres are computed in float32, or in float64
            for float64 tokens. Neither autocast nor a lower precision of matrix products, such as TF32, changes this.
        clusters: Number of clusters, 1 <= clusters <= N.
        k: Neighbours in the density, at most N.

    Returns:
        Cluster (B, N) of each token, int64, 0 <= cluster < clusters. No cluster is empty. In a sample with values
        that are not finite, the assignment is arbitrary but valid.
    """
    return torch.ops.hafabench.dpc_knn.default(x, clusters, k)


def _dpc_knn(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    tokens = x.shape[1]
    if not 1 <= clusters <= tokens:
        raise ValueError(f"cannot form {clusters} clusters of {tokens} tokens")
    x = at_least_single(x.detach())
    # Autocast and a lower precision of matrix products would apply here too, because the operator is Python code.
    with without_autocast(x), _full_matmul_precision(x.device):
        return _cluster(x, clusters, min(k, tokens))


def _cluster(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    batch, tokens, _ = x.shape
    # Centring does not change the distances, and reduces the cancellation in |a|^2 + |b|^2 - 2ab.
    x = x - x.mean(dim=1, keepdim=True)
    if tokens > MAX_WHOLE_TOKENS:
        return torch.stack([_cluster_in_blocks(sample, clusters, k) for sample in x])
    samples = max(1, MAX_DISTANCES // tokens**2)
    if batch <= samples:
        return _cluster_whole(x, clusters, k)
    return torch.cat([_cluster_whole(part, clusters, k) for part in x.split(samples)])


@contextmanager
def _full_matmul_precision(device: torch.device) -> Iterator[None]:
    """Switch off what `torch.set_float32_matmul_precision` allows: float32 products rounded to TF32 or bfloat16."""
    # torch's stubs do not know these settings.
    backends: Any = torch.backends
    matmul = backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul
    before = matmul.fp32_precision
    if before in ("ieee", "none"):
        yield
        return
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _shape_only(x: torch.Tensor, _clusters: int, _k: int) -> torch.Tensor:
    return x.new_empty(x.shape[:2], dtype=torch.long)


# The overhead of `torch.library.custom_op` would be a tenth of the time of clustering 196 tokens.
torch.library.define("hafabench::dpc_knn", "(Tensor x, int clusters, int k) -> Tensor")
torch.library.impl("hafabench::dpc_knn", "CompositeExplicitAutograd", _dpc_knn)
torch.library.register_fake("hafabench::dpc_knn", _shape_only)


def _cluster_whole(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """Cluster samples (B, N, C). One batched product is used for densities, deltas and assignment."""
    channels = x.shape[-1]
    products = torch.bmm(x, x.transpose(1, 2))
    norms = products.diagonal(dim1=1, dim2=2).clone()
    partial = torch.sub(norms.unsqueeze(1), products, alpha=2, out=products)
    nearest = _candidates(partial, k)[0].topk(k, largest=False).values
    density = _density((nearest + norms.unsqueeze(-1)).clamp_(min=0), channels)
    rank = _rank(density)
    # Infinity where j is not denser than i, minus infinity where it is; ranks below 2^24 are exact in float32.
    order = rank.to(x.dtype)
    barrier = ((order + 0.5).unsqueeze(1) - order.unsqueeze(2)).mul_(torch.inf)
    delta = torch.maximum(partial, barrier, out=barrier).amin(-1) + norms
    centres = _centres(density, delta, rank, clusters, channels)
    rows = centres + torch.arange(0, norms.numel(), norms.shape[1], device=x.device).unsqueeze(1)
    to_centres = partial.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape)
    to_centres += norms.gather(1, centres).unsqueeze(-1)
    return to_centres.min(1).indices.scatter_(1, centres, _labels(centres))


def _cluster_in_blocks(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """Cluster one sample (N, C) in row blocks."""
    tokens, channels = x.shape
    norms = x.square().sum(-1, keepdim=True)
    # |b|^2 - 2ab is a single product with one more channel.
    rows, columns = torch.cat((-2 * x, torch.ones_like(norms)), 1), torch.cat((x, norms), 1)
    nearest, neighbours = x.new_empty(tokens, k), torch.empty(tokens, k, dtype=torch.long, device=x.device)
    for block in _blocks(tokens, tokens):
        partial = rows[block] @ columns.t()
        partial[:, block].diagonal().copy_(-norms[block, 0])
        nearest[block], neighbours[block] = _smallest(partial, k)
    nearest = (nearest + norms).clamp_(min=0)
    density = _density(nearest, channels)
    rank = _rank(density)

    # The nearest denser token is a neighbour, unless no neighbour is denser.
    delta = nearest.masked_fill(rank[neighbours] >= rank.unsqueeze(1), torch.inf).amin(1)
    by_density = torch.empty_like(rank).scatter_(0, rank, torch.arange(tokens, device=x.device))
    peaks = by_density[delta[by_density].isinf() & (by_density != by_density[0])]
    sorted_columns = columns[by_density]
    for block in _blocks(len(peaks), tokens):
        own = peaks[block]
        own_rank = rank[own]
        partial = rows[own] @ sorted_columns[: own_rank[-1]].t()
        partial.masked_fill_(_labels(partial) >= own_rank.unsqueeze(1), torch.inf)
        delta[own] = partial.amin(1) + norms[own, 0]
    centres = _centres(density, delta, rank, clusters, channels)

    # The nearest centre is a neighbour, unless no neighbour is a centre or another centre may be as near.
    label = torch.full_like(rank, clusters).scatter_(0, centres, _labels(centres))
    labels = label[neighbours]
    to_centre = nearest.masked_fill(labels == clusters, torch.inf)
    shortest = to_centre.amin(1, keepdim=True)
    known = torch.where(to_centre == shortest, labels, clusters).amin(1)
    known = torch.where(shortest[:, 0] < nearest.amax(1), known, clusters)
    assignment = torch.where(label < clusters, label, known)
    others = (assignment == clusters).nonzero().squeeze(1)
    for block in _blocks(len(others), clusters):
        own = others[block]
        assignment[own] = (rows[own] @ columns[centres].t()).min(1).indices
    return assignment


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, MAX_BLOCK // columns)
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def _smallest(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k smallest values of each row in ascending order, and their columns."""
    values, columns = _candidates(x, k)
    found = values.topk(k, largest=False)
    return found.values, found.indices if columns is None else columns.gather(-1, found.indices)


def _candidates(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return values of each row that include its k smallest, and their columns (None for all columns).

    Columns are grouped by repeated halving, which is a vectorised minimum. Only the k groups with the smallest minima
    can contain the k smallest values.
    """
    columns = x.shape[-1]
    # The groups are searched first, then the members of k groups. torch searches rows of 64 k and more with a heap,
    # which is fast enough.
    enough = 64 * k if columns >= 128 * k else math.isqrt(k * columns)
    minima = x
    while minima.shape[-1] % 2 == 0 and minima.shape[-1] // 2 >= enough:
        half = minima.shape[-1] // 2
        minima = torch.minimum(minima[..., :half], minima[..., half:])
    if minima is x:
        return x, None
    groups = minima.topk(k, largest=False, sorted=False).indices
    members = torch.arange(0, columns, minima.shape[-1], device=x.device)
    candidates = (groups.unsqueeze(-1) + members).flatten(-2)
    return x.gather(-1, candidates), candidates


def _density(nearest: torch.Tensor, channels: int) -> torch.Tensor:
    """Compute densities from the k smallest squared distances (..., N, k).

    The distances are in ascending order, so that equal distances give exactly equal densities.
    """
    return (nearest.mean(-1) / -channels).exp()


def _rank(density: torch.Tensor) -> torch.Tensor:
    """Return the rank of each token by density, 0 for the densest; ties are resolved by the lower index."""
    return density.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def _centres(
    density: torch.Tensor, delta: torch.Tensor, rank: torch.Tensor, clusters: int, channels: int
) -> torch.Tensor:
    """Return the tokens of largest rho * delta in descending order, from squared deltas; the densest is the first.

    Args:
        density: Densities (..., N).
        delta: Squared deltas (..., N).
        rank: Ranks (..., N) by density.
        clusters: Number of centres.
        channels: Channels of the tokens.

    Returns:
        Indices (..., clusters).
    """
    score = density * (delta.clamp(min=0) / channels).sqrt()
    # The density of the densest token may underflow to zero, and zero times infinity is not a number.
    score = score.masked_fill(rank == 0, torch.inf)
    return score.argsort(dim=-1, descending=True, stable=True)[..., :clusters]


def _labels(like: torch.Tensor) -> torch.Tensor:
    """Return the numbers 0, 1, 2, ... along the last dimension, in the shape of ``like``."""
    return torch.arange(like.shape[-1], device=like.device).expand_as(like)
