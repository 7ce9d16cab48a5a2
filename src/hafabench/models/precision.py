"""Computations that are never rounded to half precision, and the functions that ensure it.

Autocast, and models cast by ``half()`` or ``bfloat16()``, compute matrix products and convolutions with 11 or 8
significant bits. Features tolerate this. Decisions and coordinates do not: two distances that differ by less than
their rounding error are compared at random. The following are therefore computed in *at least single precision*,
which means in float32, or in float64 for float64 inputs:

- distances, densities and centres of DPC-KNN (`hafabench.models.hafa.clustering`);
- the tokens that SIA clusters, their importance scores and the weighted means (`hafabench.models.hafa.sia`), and
  attention to which scores are added (`hafabench.models.blocks`);
- means between tokens and maps, and locations of tokens (`hafabench.models.hafa.tokens`);
- LAA's offsets and sampling points (`hafabench.models.hafa.laa`);
- interpolated position embeddings (`hafabench.models.pyramid`) and position biases (`hafabench.models.swin`);
- keep predictions (`hafabench.models.token_pruning`) and masked attention (`hafabench.models.lvvit`).

Single precision on a GPU is that of PyTorch's settings: by default, convolutions round their inputs to TF32
(`torch.backends.cudnn.allow_tf32`), with and without autocast, and matrix products do not.

The layers of this module also cast their weights, for models that are cast as a whole. Inside `without_autocast`,
inputs and weights that are passed through `at_least_single` are not rounded. The results are converted to the dtype
of the surrounding features where these continue.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import nn


def single_or_double(dtype: torch.dtype) -> torch.dtype:
    """Return float64 for float64, and float32 for every other dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def at_least_single(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in float32, or in float64 if it is float64; tensors of these dtypes are returned as they are."""
    return x.to(single_or_double(x.dtype))


def without_autocast(x: torch.Tensor) -> AbstractContextManager:
    """Return a context in which autocast is disabled on the device of ``x``."""
    # Without autocast there is nothing to disable; on the meta device there is no autocast.
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


class SingleLinear(nn.Linear):
    """A linear layer that computes, and returns, at least single precision, also under autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features) in float32 or float64."""
        with without_autocast(x):
            bias = None if self.bias is None else at_least_single(self.bias)
            return F.linear(at_least_single(x), at_least_single(self.weight), bias)


class SingleConv2d(nn.Conv2d):
    """A convolution that computes, and returns, at least single precision, also under autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve a map (B, C, H, W) in float32 or float64."""
        with without_autocast(x):
            bias = None if self.bias is None else at_least_single(self.bias)
            return self._conv_forward(at_least_single(x), at_least_single(self.weight), bias)


class SingleLayerNorm(nn.LayerNorm):
    """A LayerNorm that computes, and returns, at least single precision, also under autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (..., C) in float32 or float64."""
        with without_autocast(x):
            weight, bias = at_least_single(self.weight), at_least_single(self.bias)
            return F.layer_norm(at_least_single(x), self.normalized_shape, weight, bias, self.eps)
