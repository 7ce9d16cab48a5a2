"""Tokens that may have left the grid, and the ways between tokens and maps.

A token may cover any set of cells of the *initial grid*, the one on which clustering first happened. One index per
cell is kept, the token it belongs to; everything else follows from it. Cell (i, j) of an H x W initial grid belongs
to position (floor(i h / H), floor(j w / W)) of an h x w map. Averages divide by their count + 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6


@dataclass(frozen=True)
class Bags:
    """Means of rows as weighted sums: bag b averages the rows ``index[starts[b]:starts[b + 1]]``.

    Attributes:
        index: (I,) rows of a flattened batch.
        starts: (S,) where each bag starts in ``index``.
        weights: (I,) one over the bag's size + 1e-6.
    """

    index: torch.Tensor
    starts: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def means(cls, index: torch.Tensor, starts: torch.Tensor, sizes: torch.Tensor) -> Bags:
        """From the bags' sizes; all tensors flattened in the order given."""
        sizes = sizes.flatten()
        weights = (1 / (sizes + EPS)).repeat_interleave(sizes, output_size=index.numel())
        return cls(index.flatten(), starts.flatten(), weights)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(R, C) rows to (S, C) means; 0 for empty bags."""
        weights = self.weights.to(rows.dtype)
        return F.embedding_bag(self.index, rows, self.starts, mode="sum", per_sample_weights=weights)


@dataclass(frozen=True)
class CellTable:
    """Which token each cell of the initial grid belongs to.

    Attributes:
        index: (B, H*W) token of each cell, row-major.
        size: (H, W) of the initial grid.
        num_tokens: N, per sample.
    """

    index: torch.Tensor
    size: tuple[int, int]
    num_tokens: int

    # What follows from the index, made when first asked for: a classifier that ends on cluster tokens never asks.
    _made: dict[tuple, Bags | tuple[torch.Tensor, ...]] = field(default_factory=dict, repr=False, compare=False)

    def merge(self, assignment: torch.Tensor, num_tokens: int) -> CellTable:
        """The table after token t of sample b became token ``assignment[b, t]`` of ``num_tokens``."""
        return CellTable(assignment.gather(1, self.index), self.size, num_tokens)

    def tokens_of_positions(self, size: tuple[int, int]) -> Bags:
        """The tokens of each position's cells, on a map of ``size``."""
        if ("map", size) not in self._made:
            order, offsets, counts = _cells_by_position(self.size, size, self.index.device)
            batch = len(self.index)
            index = self.index[:, order] + _sample_offsets(batch, self.num_tokens, order.device)
            starts = offsets + _sample_offsets(batch, len(order), order.device)
            self._made["map", size] = Bags.means(index, starts, counts.expand(batch, -1))
        return self._made["map", size]

    def positions_of_tokens(self, size: tuple[int, int]) -> Bags:
        """The positions of each token's cells, on a map of ``size``."""
        if ("token", size) not in self._made:
            order, starts, counts = self._cells_by_token()
            positions = _position_of_cells(self.size, size, self.index.device)
            positions = positions + _sample_offsets(len(self.index), size[0] * size[1], positions.device)
            self._made["token", size] = Bags.means(positions.flatten()[order], starts, counts)
        return self._made["token", size]

    def _cells_by_token(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The cells of the flattened index sorted by sample and token, where each token's start, how many they are.

        Sorted once, every mean over tokens is one segmented sum.
        """
        if ("cells",) not in self._made:
            batch, cells = self.index.shape
            counts = self.index.new_zeros(batch, self.num_tokens)
            counts = counts.scatter_add_(1, self.index, torch.ones_like(self.index)).flatten()
            order = self.index.argsort(dim=1, stable=True) + _sample_offsets(batch, cells, self.index.device)
            self._made[("cells",)] = (order.flatten(), counts.cumsum(0) - counts, counts)
        return self._made[("cells",)]


@dataclass(frozen=True)
class Tokens:
    """Features of one stage.

    Attributes:
        x: (B, N, C) token features.
        grid: (h, w) of the stage's map; N = h * w where tokens are that grid.
        table: the cells of each token, or None where tokens are the row-major grid itself.
    """

    x: torch.Tensor
    grid: tuple[int, int]
    table: CellTable | None = None

    @classmethod
    def from_map(cls, x: torch.Tensor) -> Tokens:
        """Row-major tokens of a map (B, C, H, W), as a view."""
        height, width = x.shape[-2:]
        return cls(x.flatten(2).transpose(1, 2), (height, width))

    @property
    def cells(self) -> torch.Tensor | None:
        """(B, H0*W0) token index of each cell of the initial grid, or None for tokens that are the grid."""
        return None if self.table is None else self.table.index

    @property
    def cell_grid(self) -> tuple[int, int]:
        """(H0, W0): the initial grid; the stage's own grid where no clustering has happened."""
        return self.grid if self.table is None else self.table.size

    def with_x(self, x: torch.Tensor) -> Tokens:
        """The same tokens with other features (B, N, C')."""
        return replace(self, x=x)

    def per_cell(self) -> torch.Tensor:
        """Each cell's token: a map (B, C, H0, W0) at the resolution of the initial grid."""
        x = self.x
        if self.table is not None:
            batch, num_tokens, channels = x.shape
            index = self.table.index + _sample_offsets(batch, num_tokens, x.device)
            x = F.embedding(index, x.reshape(batch * num_tokens, channels))
        return _as_map(x, self.cell_grid)

    def to_map(self, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Mean of each map position's cells.

        Args:
            size: (h, w) of the map; the stage's own grid by default.

        Returns:
            (B, C, h, w); positions without a cell are 0.
        """
        size = self.grid if size is None else size
        if self.table is None and size == self.grid:
            return _as_map(self.x, size)
        batch, num_tokens, channels = self.x.shape
        table = self.table
        if table is None:
            cells = torch.arange(num_tokens, device=self.x.device).expand(batch, -1)
            table = CellTable(cells, self.grid, num_tokens)
        means = table.tokens_of_positions(size)(self.x.reshape(-1, channels))
        return _as_map(means.view(batch, -1, channels), size)

    def gather_map(self, features: torch.Tensor) -> torch.Tensor:
        """Mean over each token's cells of a map (B, C, h, w); returns (B, N, C)."""
        batch, channels, *size = features.shape
        size = (size[0], size[1])
        if self.table is None:
            rows = features.flatten(2).transpose(1, 2)
            # A grid's token is one cell: its mean is a copy from the cell's position.
            same = size == self.grid
            return rows if same else rows.index_select(1, _position_of_cells(self.grid, size, rows.device))
        rows = features.flatten(2).transpose(1, 2).reshape(-1, channels)
        return self.table.positions_of_tokens(size)(rows).view(batch, -1, channels)

    def centres(self, grid: tuple[int, int]) -> torch.Tensor:
        """(B or 1, N, 2): mean (y, x) of each token's cells, in positions of ``grid``: its first is (0, 0)."""
        device, cells = self.x.device, self.cell_grid
        axes = [(torch.arange(cells[i], device=device) + 0.5) * (grid[i] / cells[i]) - 0.5 for i in (0, 1)]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        if self.table is None:
            return places.flatten(1).transpose(0, 1).unsqueeze(0)
        return self.gather_map(places.expand(self.x.shape[0], -1, -1, -1))


@dataclass(frozen=True)
class Context:
    """Where the first block of a stage takes its keys and values from, other than its own tokens.

    Attributes:
        tokens: the source.
        scores: (B, N, 1) importance added to the attention logits of each source token, or None.
        encoders: modules on a map (B, C, H, W) that K and V pass, each its own, after the block's norm and before
            their linear projections; None where K and V see the same features.
    """

    tokens: Tokens
    scores: torch.Tensor | None = None
    encoders: tuple[nn.Module, nn.Module] | None = None


@dataclass(frozen=True)
class Aggregation:
    """What a merger gives to its stage: the stage's tokens, and their context where it is not the tokens."""

    tokens: Tokens
    context: Context | None = None


def _as_map(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


def _sample_offsets(batch: int, items: int, device: torch.device) -> torch.Tensor:
    """(B, 1): what to add to per-sample indices so that they count through a flattened batch."""
    return torch.arange(batch, device=device).unsqueeze(1) * items


def _position_of_cells(cells: tuple[int, int], size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """(H0*W0,): row-major position, on a map of ``size``, of each cell of the initial grid."""
    rows = torch.arange(cells[0], device=device) * size[0] // cells[0]
    columns = torch.arange(cells[1], device=device) * size[1] // cells[1]
    return (rows.unsqueeze(1) * size[1] + columns).flatten()


def _cells_by_position(
    cells: tuple[int, int], size: tuple[int, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The cells sorted by map position, where each position's cells start, and how many they are."""
    order = _position_of_cells(cells, size, device).argsort(stable=True)
    rows, columns = (_cells_per_position(cells[axis], size[axis], device) for axis in (0, 1))
    counts = (rows.unsqueeze(1) * columns).flatten()
    return order, counts.cumsum(0) - counts, counts


def _cells_per_position(cells: int, size: int, device: torch.device) -> torch.Tensor:
    """(size,): how many i < cells have floor(i * size / cells) = r, for each r; in closed form, no counting."""
    first = -(-torch.arange(size + 1, device=device) * cells // size)
    return first.diff()
