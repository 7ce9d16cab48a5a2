"""Local adaptive aggregation (LAA): a window whose sampling points move by learned offsets. HAFA section 3.2.

A deformable convolution without modulation (Dai et al., ICCV 2017), in torchvision's convention: offsets in input
pixels, (y, x) per kernel point, kernel points row-major, bilinear sampling, zero outside the map. It is computed as
sampling at per-point coordinates into a (k Ho, k Wo) map followed by an ordinary convolution with kernel = stride =
k, which is equal and, on a CPU, several times faster than torchvision's operator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

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
        grid = self._grid(offset, x.shape[-2:])
        # In single precision at least: half of it cannot tell neighbouring pixels of a large map apart.
        sampled = F.grid_sample(x.to(grid.dtype), grid, padding_mode="zeros", align_corners=False).to(x.dtype)
        return F.conv2d(sampled, self.weight, self.bias, stride=self.kernel)

    def _grid(self, offset: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(B, k Ho, k Wo, 2): normalised (x, y) of every sampling point, k x k points per output position."""
        batch, _, rows, columns = offset.shape
        kernel = self.kernel
        offset = offset.float() if offset.dtype in (torch.float16, torch.bfloat16) else offset
        axes = []
        for axis, count in enumerate((rows, columns)):
            steps = torch.arange(kernel * count, device=offset.device)
            point = steps // kernel * self.stride - self.padding + steps % kernel
            axes.append(point.to(offset.dtype).view((-1, 1) if axis == 0 else (1, -1)))
        moved = offset.view(batch, kernel, kernel, 2, rows, columns).permute(3, 0, 4, 1, 5, 2)
        moved = moved.reshape(2, batch, kernel * rows, kernel * columns)
        # grid_sample counts from edge to edge: pixel p of n has its centre at (2 p + 1) / n - 1.
        y = (2 * (moved[0] + axes[0]) + 1) / size[0] - 1
        x = (2 * (moved[1] + axes[1]) + 1) / size[1] - 1
        return torch.stack((x, y), dim=-1)


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
        x = tokens.to_map().contiguous()
        if self.pad_odd and (x.shape[-2] % 2 or x.shape[-1] % 2):
            x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        x = self.conv(x, self.offset(x))
        return Aggregation(Tokens.from_map(F.gelu(self.norm(x))))
