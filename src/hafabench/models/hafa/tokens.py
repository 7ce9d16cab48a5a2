"""Grid tokens and cluster tokens, and the conversions between tokens and maps.

A cluster token covers any set of positions of the *initial grid*, the grid on which clustering first happened. The
only state is one index per position of this grid: the token that covers it. Position (i, j) of an H x W initial grid
corresponds to position (floor(i h / H), floor(j w / W)) of an h x w map. Means divide by the count + 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

from hafabench.models.precision import single_or_double

EPS = 1e-6


@dataclass(frozen=True)
class Bags:
    """Means of rows as weighted sums: bag b averages the rows ``index[starts[b]:starts[b + 1]]``.

    Attributes:
        index: Rows (I,) of a flattened batch.
        starts: Start (S,) of each bag in ``index``.
        weights: Weight (I,) of each row: one divided by the bag's size + 1e-6; float32 or float64.
    """

    index: torch.Tensor
    starts: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def means(cls, index: torch.Tensor, starts: torch.Tensor, sizes: torch.Tensor, dtype: torch.dtype) -> Bags:
        """Make bags; tensors of more than one dimension are flattened.

        Args:
            index: Rows of a flattened batch.
            starts: Start of each bag in ``index``.
            sizes: Number of rows of each bag.
            dtype: Dtype of the weights, float32 or float64.
        """
        sizes = sizes.flatten()
        weights = (1 / (sizes.to(dtype) + EPS)).repeat_interleave(sizes, output_size=index.numel())
        return cls(index.flatten(), starts.flatten(), weights)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the means (S, C) of rows (R, C), in their dtype; empty bags give 0.

        They are computed in the dtype of the weights, since half precision would change their sum.
        """
        values = rows.to(self.weights.dtype)
        means = F.embedding_bag(self.index, values, self.starts, mode="sum", per_sample_weights=self.weights)
        return means.to(rows.dtype)


@dataclass(frozen=True)
class ClusterTable:
    """The token that covers each position of the initial grid.

    Attributes:
        index: Token (B, H*W) of each position, row-major.
        size: Size (H, W) of the initial grid.
        num_tokens: Tokens N of each sample.
    """

    index: torch.Tensor
    size: tuple[int, int]
    num_tokens: int

    # These are computed from the index on first use. A classifier that ends with cluster tokens never needs them.
    _bags: dict[tuple[str, tuple[int, int], torch.dtype], Bags] = field(
        default_factory=dict, repr=False, compare=False
    )
    _sorted: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(
        default_factory=list, repr=False, compare=False
    )

    def merge(self, assignment: torch.Tensor, num_tokens: int) -> ClusterTable:
        """Return the table after another clustering: token t of sample b joins token ``assignment[b, t]``."""
        return ClusterTable(assignment.gather(1, self.index), self.size, num_tokens)

    def tokens_of_positions(self, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Bags:
        """Return the tokens that cover each position of a map of ``size``, for features of ``dtype``."""
        dtype = single_or_double(dtype)
        key = ("tokens", size, dtype)
        if key not in self._bags:
            order, offsets, counts = _sort_by_map_position(self.size, size, self.index.device)
            batch = len(self.index)
            index = self.index[:, order] + _sample_offsets(batch, self.num_tokens, order.device)
            starts = offsets + _sample_offsets(batch, len(order), order.device)
            self._bags[key] = Bags.means(index, starts, counts.expand(batch, -1), dtype)
        return self._bags[key]

    def positions_of_tokens(self, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Bags:
        """Return the positions that each token covers on a map of ``size``, for features of ``dtype``."""
        dtype = single_or_double(dtype)
        key = ("positions", size, dtype)
        if key not in self._bags:
            order, starts, counts = self._sort_by_token()
            positions = map_positions(self.size, size, self.index.device)
            positions = positions + _sample_offsets(len(self.index), size[0] * size[1], positions.device)
            self._bags[key] = Bags.means(positions.flatten()[order], starts, counts, dtype)
        return self._bags[key]

    def _sort_by_token(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sort the flattened index by sample and token; also return each token's start and count.

        After this sort, every mean over tokens is one segmented sum.
        """
        if not self._sorted:
            batch, positions = self.index.shape
            counts = self.index.new_zeros(batch, self.num_tokens)
            counts = counts.scatter_add_(1, self.index, torch.ones_like(self.index)).flatten()
            order = self.index.argsort(dim=1, stable=True) + _sample_offsets(batch, positions, self.index.device)
            self._sorted.append((order.flatten(), counts.cumsum(0) - counts, counts))
        return self._sorted[0]


@dataclass(frozen=True)
class Tokens:
    """Features of one stage.

    Attributes:
        x: Token features (B, N, C).
        grid: Size (h, w) of the stage's map; N = h * w for grid tokens.
        table: The positions of each cluster token; None for grid tokens, which are in row-major order.
    """

    x: torch.Tensor
    grid: tuple[int, int]
    table: ClusterTable | None = None

    @classmethod
    def from_map(cls, x: torch.Tensor) -> Tokens:
        """Return the row-major tokens of a map (B, C, H, W), as a view."""
        height, width = x.shape[-2:]
        return cls(x.flatten(2).transpose(1, 2), (height, width))

    @property
    def assignment(self) -> torch.Tensor | None:
        """Token (B, H0*W0) of each position of the initial grid; None for grid tokens."""
        return None if self.table is None else self.table.index

    @property
    def initial_grid(self) -> tuple[int, int]:
        """Size (H0, W0) of the grid on which clustering first happened; the stage's own grid for grid tokens."""
        return self.grid if self.table is None else self.table.size

    def with_x(self, x: torch.Tensor) -> Tokens:
        """Return the same tokens with other features (B, N, C')."""
        return replace(self, x=x)

    def per_position(self) -> torch.Tensor:
        """Return the features of each position's token as a map (B, C, H0, W0) of the initial grid."""
        x = self.x
        if self.table is not None:
            batch, num_tokens, channels = x.shape
            index = self.table.index + _sample_offsets(batch, num_tokens, x.device)
            x = F.embedding(index, x.reshape(batch * num_tokens, channels))
        return _as_map(x, self.initial_grid)

    def to_map(self, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Average the tokens that cover each position of a map.

        Args:
            size: Size (h, w) of the map; the stage's own grid by default.

        Returns:
            Map (B, C, h, w); positions that no token covers are 0.
        """
        size = self.grid if size is None else size
        if self.table is None and size == self.grid:
            return _as_map(self.x, size)
        batch, num_tokens, channels = self.x.shape
        table = self.table
        if table is None:
            index = torch.arange(num_tokens, device=self.x.device).expand(batch, -1)
            table = ClusterTable(index, self.grid, num_tokens)
        means = table.tokens_of_positions(size, self.x.dtype)(self.x.reshape(-1, channels))
        return _as_map(means.view(batch, -1, channels), size)

    def gather_map(self, features: torch.Tensor) -> torch.Tensor:
        """Average a map (B, C, h, w) over the positions of each token; return (B, N, C)."""
        batch, channels, height, width = features.shape
        size = (height, width)
        if self.table is None:
            rows = features.flatten(2).transpose(1, 2)
            # A grid token has one position, so that its mean is a copy.
            same = size == self.grid
            return rows if same else rows.index_select(1, map_positions(self.grid, size, rows.device))
        rows = features.flatten(2).transpose(1, 2).reshape(-1, channels)
        return self.table.positions_of_tokens(size, rows.dtype)(rows).view(batch, -1, channels)

    def centres(self, grid: tuple[int, int]) -> torch.Tensor:
        """Return the mean location (y, x) of each token, (B or 1, N, 2), in positions of ``grid`` from (0, 0).

        Locations are float32, or float64 for float64 tokens; half precision cannot separate them on large maps.
        """
        device, dtype, initial = self.x.device, single_or_double(self.x.dtype), self.initial_grid
        axes = [
            (torch.arange(initial[i], device=device, dtype=dtype) + 0.5) * (grid[i] / initial[i]) - 0.5
            for i in (0, 1)
        ]
        locations = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        if self.table is None:
            return locations.flatten(1).transpose(0, 1).unsqueeze(0)
        return self.gather_map(locations.expand(self.x.shape[0], -1, -1, -1))


@dataclass(frozen=True)
class Context:
    """A source of keys and values other than a block's own tokens.

    Attributes:
        tokens: The source.
        scores: Importance (B, N, 1) that is added to the attention logits of each source token, or None.
        encoders: Modules on a map (B, C, H, W), applied to keys and values after the block's norm and before their
            linear projections; None if there are no such modules.
    """

    tokens: Tokens
    scores: torch.Tensor | None = None
    encoders: tuple[nn.Module, nn.Module] | None = None


@dataclass(frozen=True)
class Aggregation:
    """Output of a merger: the tokens of the next stage, and the context of its first block if there is one."""

    tokens: Tokens
    context: Context | None = None


def _as_map(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


def _sample_offsets(batch: int, items: int, device: torch.device) -> torch.Tensor:
    """Return offsets (B, 1) that turn indices within each sample into indices of a flattened batch."""
    return torch.arange(batch, device=device).unsqueeze(1) * items


def map_positions(initial: tuple[int, int], size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return the row-major position (H0*W0,) of each position of the initial grid on a map of ``size``."""
    rows = torch.arange(initial[0], device=device) * size[0] // initial[0]
    columns = torch.arange(initial[1], device=device) * size[1] // initial[1]
    return (rows.unsqueeze(1) * size[1] + columns).flatten()


def _sort_by_map_position(
    initial: tuple[int, int], size: tuple[int, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sort the positions of the initial grid by map position; also return each map position's start and count."""
    order = map_positions(initial, size, device).argsort(stable=True)
    rows, columns = (_count_per_position(initial[axis], size[axis], device) for axis in (0, 1))
    counts = (rows.unsqueeze(1) * columns).flatten()
    return order, counts.cumsum(0) - counts, counts


def _count_per_position(initial: int, size: int, device: torch.device) -> torch.Tensor:
    """For each r < size, count the i < initial with floor(i * size / initial) = r, in closed form."""
    first = -(-torch.arange(size + 1, device=device) * initial // size)
    return first.diff()
