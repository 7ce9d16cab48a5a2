"""The rule by which models are built at a fraction of their width and depth.

A scaled model has the stages, attention heads, kernels and mergers of the full model. With a smaller width, every
head is narrower, and every other number of channels is multiplied by the width. With a smaller depth, every stage has
fewer blocks, but at least one. Cardinalities of grouped convolutions stay the same as long as a group has a channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hafabench.config.catalog import MIN_DEPTH, MIN_WIDTH, ModelSpec
from hafabench.errors import UserError


def check_scale(spec: ModelSpec) -> None:
    """Refuse a width or depth at which some model cannot be built.

    Raises:
        UserError: If one of them is out of its bounds.
    """
    for key, value, least in (("width", spec.width, MIN_WIDTH), ("depth", spec.depth, MIN_DEPTH)):
        if not least <= value <= 1:
            raise UserError(f"model {spec.name!r}: expected a {key} from {least:g} to 1, found {value:g}")


def scaled_channels(channels: int, width: float, multiple: int = 1) -> int:
    """Return the channels at a width, rounded to a positive multiple of ``multiple``; as they are at width 1."""
    return channels if width == 1 else multiple * max(1, round(channels * width / multiple))


def scaled_dims(dims: Sequence[int], heads: Sequence[int], width: float) -> tuple[int, ...]:
    """Return the channels of attention stages at a width. The number of heads does not change."""
    return tuple(scaled_channels(dim, width, multiple=count) for dim, count in zip(dims, heads, strict=True))


def scaled_depths(depths: Sequence[int], depth: float, multiple: int = 1) -> tuple[int, ...]:
    """Return the blocks of the stages at a depth, rounded up to multiples of ``multiple``; as they are at depth 1."""
    if depth == 1:
        return tuple(depths)
    # 0.7 * 10 is 7.000000000000001.
    return tuple(multiple * math.ceil(round(blocks * depth / multiple, 6)) for blocks in depths)
