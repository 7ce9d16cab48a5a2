"""Local adaptive aggregation (LAA): a window whose sampling points move by learned offsets. HAFA section 3.2.

This is a deformable convolution without modulation (Dai et al., ICCV 2017), in torchvision's convention: offsets in
pixels of the input, (y, x) per kernel point, kernel points in row-major order, bilinear sampling, zeros outside the
map. On a GPU it uses torchvision's operator. On other devices every sampling point is a weighted sum of four rows of
the channels-last map (`embedding_bag`), followed by one matrix product over windows. The result is the same, and it
is computed several times faster.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import deform_conv2d

from hafabench.models.hafa.tokens import Aggregation, Tokens
from hafabench.models.precision import at_least_single, without_autocast


class OffsetConv(nn.Module):
    """Convolution that predicts offsets; its weights are initialised with zeros.

    It does not derive from `nn.Conv2d`, so that initialisers of whole models do not change its weights: with random
    offsets at the start, training collapses.

    Args:
        in_channels: Channels of the map.
        out_channels: Two offsets, y and x, for each point of LAA's window.
        kernel: Side of the window in pixels.
        stride: Stride in pixels.
        padding: Padding in pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute from a map (B, C, H, W) the offsets (B, 2 k k, Ho, Wo) in pixels, in at least single precision."""
        weight, bias = at_least_single(self.weight), at_least_single(self.bias)
        with without_autocast(x):
            return F.conv2d(at_least_single(x), weight, bias, self.stride, self.padding)


class DeformableConv(nn.Module):
    """Deformable convolution with its own initialisation (Kaiming-uniform, a = sqrt(5)), as in `OffsetConv`.

    Args:
        in_channels: Channels C of the map.
        out_channels: Channels C' of the output.
        kernel: Side of the window in pixels.
        stride: Stride in pixels.
        padding: Padding in pixels.
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
        """Convolve a map (B, C, H, W), with offsets (B, 2 k k, Ho, Wo) in pixels, into (B, C', Ho, Wo).

        Sampling points and their bilinear weights are computed in at least single precision. An offset that is not
        finite makes the features of its window NaN, so that the loss tells that the training has diverged.
        """
        if x.is_cuda:
            return self._deform_on_gpu(x, offset)
        batch, _, rows, columns = offset.shape
        windows = self._sample(x, offset).view(batch, rows, columns, -1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(windows, weight, self.bias).permute(0, 3, 1, 2)

    def _deform_on_gpu(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        finite = offset.isfinite()
        # torchvision would read outside the map at NaN, and take infinity for a point outside, which gives zero.
        offset = at_least_single(offset.masked_fill(~finite, 0))
        inputs = [tensor.to(offset.dtype) for tensor in (x, self.weight, self.bias)]
        with without_autocast(x):
            out = deform_conv2d(inputs[0], offset, inputs[1], inputs[2], stride=self.stride, padding=self.padding)
        return out.masked_fill(~finite.all(1, keepdim=True), torch.nan).to(x.dtype)

    def _sample(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Return the features (B Ho Wo k k, C) at every sampling point; the points of a window are adjacent rows."""
        batch, channels, height, width = x.shape
        index, weight = _corners(self._points(offset), (height, width))
        if batch > 1:
            first = torch.arange(0, batch * height * width, height * width, dtype=index.dtype, device=x.device)
            index = index + first.view(-1, 1)
        bags = [corner.reshape(4, -1).t().contiguous() for corner in (index, weight)]
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels).to(weight.dtype)
        return F.embedding_bag(bags[0], pixels, per_sample_weights=bags[1], mode="sum").to(x.dtype)

    def _points(self, offset: torch.Tensor) -> torch.Tensor:
        """Return the row and column (B, Ho Wo k k, 2) of every sampling point, in pixels."""
        batch, _, rows, columns = offset.shape
        kernel, device = self.kernel, offset.device
        # At least single precision: half precision cannot distinguish neighbouring pixels of a large map.
        anchors = offset.new_empty(
            rows, columns, kernel, kernel, 2, dtype=torch.promote_types(offset.dtype, torch.float32)
        )
        steps = torch.arange(kernel, device=device)
        for axis, count, shape in ((0, rows, (-1, 1, kernel, 1)), (1, columns, (1, -1, 1, kernel))):
            starts = torch.arange(count, device=device).mul_(self.stride).sub_(self.padding)
            anchors[..., axis] = (starts.view(-1, 1) + steps).view(shape)
        return (offset.permute(0, 2, 3, 1).unflatten(-1, (kernel, kernel, 2)) + anchors).reshape(batch, -1, 2)


def _corners(points: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the four pixels around points, for bilinear sampling with zeros outside the map.

    Args:
        points: Rows and columns (B, P, 2) in pixels.
        size: Size (H, W) of the map.

    Returns:
        Row-major indices (2, 2, B, P) of the pixels, clamped to the map, and their weights (2, 2, B, P), which are
        zero for pixels outside the map, and NaN for points that are not finite.
    """
    before = points.floor()
    beyond = points - before
    corners = torch.stack((before, before + 1))
    lowest, highest = points.new_zeros(2), points.new_tensor(size) - 1
    inside = corners.clamp(lowest, highest)
    weights = torch.stack((1 - beyond, beyond)) * (corners == inside)
    # Points that are not numbers read any pixel, with a weight that is not a number.
    rows, columns = inside.nan_to_num(0).int().unbind(-1)
    row_weights, column_weights = weights.unbind(-1)
    index = rows.unsqueeze(1) * size[1] + columns
    return index, row_weights.unsqueeze(1) * column_weights


class LocalAdaptiveAggregation(nn.Module):
    """LAA: offsets, deformable convolution, BatchNorm, GELU.

    Args:
        in_dim: Channels of the input.
        out_dim: Channels of the output.
        kernel: Side of the window; the stride is 2.
        padding: Padding of the window. Without padding, an odd last row or column is left out, as in a 2x2
            convolution.
        pad_odd: Whether odd heights and widths are padded with zeros first, as in Swin's patch merging.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int = 2, padding: int = 0, pad_odd: bool = False):
        super().__init__()
        self.pad_odd = pad_odd
        self.offset = OffsetConv(in_dim, 2 * kernel * kernel, kernel, 2, padding)
        self.conv = DeformableConv(in_dim, out_dim, kernel, 2, padding)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, tokens: Tokens) -> Aggregation:
        """Map grid tokens (B, H*W, C) to grid tokens (B, Ho*Wo, C') of half the height and width."""
        x = tokens.to_map()
        if self.pad_odd and (x.shape[-2] % 2 or x.shape[-1] % 2):
            x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        x = self.conv(x, self.offset(x))
        return Aggregation(Tokens.from_map(F.gelu(self.norm(x))))
