"""Local adaptive aggregation (LAA): a window whose sampling points move by learned offsets. HAFA section 3.2.

A deformable convolution without modulation (Dai et al., ICCV 2017), in torchvision's convention: offsets in input
pixels, (y, x) per kernel point, kernel points row-major, bilinear sampling, zero outside the map. On a GPU it is
torchvision's operator. Elsewhere every sampling point is a weighted sum of four rows of the channels-last map
(`embedding_bag`), laid out so that one matrix product over windows remains: equal, and several times faster.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import deform_conv2d

from hafabench.models.hafa.tokens import Aggregation, Tokens


class OffsetConv(nn.Module):
    """Convolution that predicts offsets, zero at the start.

    Deliberately no `nn.Conv2d`: a model-wide initialiser that looks for convolutions must not find it. Offsets that
    start at random scatter the sampling points, and training then collapses.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class DeformableConv(nn.Module):
    """Deformable convolution; keeps its own initialisation (Kaiming-uniform, a = sqrt(5)) for the same reason.

    Args:
        in_channels, out_channels: C and C'.
        kernel, stride, padding: of the window, in input pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(in_channels * kernel * kernel)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) and offsets (B, 2 k k, Ho, Wo) in pixels to (B, C', Ho, Wo)."""
        if x.is_cuda:
            return deform_conv2d(x, offset, self.weight, self.bias, stride=self.stride, padding=self.padding)
        batch, _, rows, columns = offset.shape
        windows = self._sample(x, offset).view(batch, rows, columns, -1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(windows, weight, self.bias).permute(0, 3, 1, 2)

    def _sample(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """(B Ho Wo k k, C): the map at every sampling point, the points of a window side by side."""
        batch, channels, height, width = x.shape
        index, weight = _corners(self._points(offset), (height, width))
        if batch > 1:
            first = torch.arange(0, batch * height * width, height * width, dtype=index.dtype, device=x.device)
            index = index + first.view(-1, 1)
        bags = [corner.reshape(4, -1).t().contiguous() for corner in (index, weight)]
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels).to(weight.dtype)
        return F.embedding_bag(bags[0], pixels, per_sample_weights=bags[1], mode="sum").to(x.dtype)

    def _points(self, offset: torch.Tensor) -> torch.Tensor:
        """(B, Ho Wo k k, 2): row and column of every sampling point, in pixels."""
        batch, _, rows, columns = offset.shape
        kernel, device = self.kernel, offset.device
        # In single precision at least: half of it cannot tell neighbouring pixels of a large map apart.
        anchors = offset.new_empty(
            rows, columns, kernel, kernel, 2, dtype=torch.promote_types(offset.dtype, torch.float32)
        )
        steps = torch.arange(kernel, device=device)
        for axis, count, shape in ((0, rows, (-1, 1, kernel, 1)), (1, columns, (1, -1, 1, kernel))):
            starts = torch.arange(count, device=device).mul_(self.stride).sub_(self.padding)
            anchors[..., axis] = (starts.view(-1, 1) + steps).view(shape)
        return (offset.permute(0, 2, 3, 1).unflatten(-1, (kernel, kernel, 2)) + anchors).reshape(batch, -1, 2)


def _corners(points: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels around points, for bilinear sampling with zeros outside of the map.

    Args:
        points: (B, P, 2) rows and columns, in pixels.
        size: (H, W) of the map.

    Returns:
        (2, 2, B, P) row-major indices of the four pixels, those outside moved into the map, and (2, 2, B, P) their
        weights, zero for those that were moved.
    """
    before = points.floor()
    beyond = points - before
    places = torch.stack((before, before + 1))
    lowest, highest = points.new_zeros(2), points.new_tensor(size) - 1
    inside = places.clamp(lowest, highest)
    weights = torch.stack((1 - beyond, beyond)) * (places == inside)
    rows, columns = inside.int().unbind(-1)
    row_weights, column_weights = weights.unbind(-1)
    index = rows.unsqueeze(1) * size[1] + columns
    return index, row_weights.unsqueeze(1) * column_weights


class LocalAdaptiveAggregation(nn.Module):
    """LAA: offsets, deformable convolution, BatchNorm, GELU.

    Args:
        in_dim, out_dim: channels before and after.
        kernel, padding: of the window; stride is 2. Without padding an odd last row or column is left out, as by a
            2x2 convolution.
        pad_odd: complete odd heights and widths with zeros first, as Swin's patch merging does.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int = 2, padding: int = 0, pad_odd: bool = False):
        super().__init__()
        self.pad_odd = pad_odd
        self.offset = OffsetConv(in_dim, 2 * kernel * kernel, kernel, 2, padding)
        self.conv = DeformableConv(in_dim, out_dim, kernel, 2, padding)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, tokens: Tokens) -> Aggregation:
        """Grid tokens (B, H*W, C) to grid tokens (B, Ho*Wo, C'), of half the height and width."""
        x = tokens.to_map()
        if self.pad_odd and (x.shape[-2] % 2 or x.shape[-1] % 2):
            x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        x = self.conv(x, self.offset(x))
        return Aggregation(Tokens.from_map(F.gelu(self.norm(x))))
