"""Reference implementation of DPC-KNN with `cdist`, `topk`, masks and `gather` over whole matrices.

`hafabench.models.hafa.dpc_knn` is tested and timed against it.
"""

from __future__ import annotations

import math

import torch


def reference_dpc_knn(x: torch.Tensor, clusters: int, k: int) -> torch.Tensor:
    """Cluster (B, N, C) tokens into (B, N) labels. Ties of density are not broken."""
    batch, tokens, channels = x.shape
    distances = torch.cdist(x, x) / math.sqrt(channels)
    nearest = distances.topk(k, dim=-1, largest=False).values
    density = (-nearest.square().mean(-1)).exp()
    denser = (density.unsqueeze(1) > density.unsqueeze(2)).to(x.dtype)
    largest = distances.flatten(1).max(1).values.view(batch, 1, 1)
    delta = (distances * denser + largest * (1 - denser)).min(-1).values
    centres = (density * delta).topk(clusters, dim=-1).indices
    to_centres = distances.gather(1, centres.unsqueeze(-1).expand(-1, -1, tokens))
    labels = torch.arange(clusters, device=x.device).expand(batch, -1)
    return to_centres.argmin(1).scatter(1, centres, labels)
