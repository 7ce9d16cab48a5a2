"""What PVT and PVT-v2 have in common: four stages of (merger, blocks), a head, and the interfaces of timm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from hafabench.errors import UserError
from hafabench.models.blocks import Block, MlpKind
from hafabench.models.hafa.tokens import Aggregation, Tokens

MIN_SIZE = 32
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Dimensions:
    """Widths and depths of the four stages."""

    depths: tuple[int, ...]
    embed_dims: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratios: tuple[float, ...]
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)


def check_input(x: torch.Tensor) -> None:
    """Refuse images that would leave a stage without a token.

    Raises:
        UserError: below 32 x 32 pixels.
    """
    height, width = x.shape[-2:]
    if height < MIN_SIZE or width < MIN_SIZE:
        raise UserError(f"input of {height} x {width} pixels is too small: every model needs {MIN_SIZE} x {MIN_SIZE}")


class Stage(nn.Module):
    """One stage: merger, position embedding where there is one, blocks, norm where there is one.

    Args:
        merger: takes `Tokens`, gives an `Aggregation`.
        blocks: of the stage.
        dim: channels.
        pos_grid: (h, w) of a learned position embedding, or None.
        cls_token: whether a class token is prepended, with a position of its own.
        norm: whether a LayerNorm (eps 1e-6) ends the stage.
    """

    def __init__(
        self,
        merger: nn.Module,
        blocks: Sequence[Block],
        dim: int,
        pos_grid: tuple[int, int] | None = None,
        cls_token: bool = False,
        norm: bool = False,
    ):
        super().__init__()
        self.merger = merger
        self.pos_grid = pos_grid
        if pos_grid is not None:
            self.pos_embed = nn.Parameter(torch.zeros(1, pos_grid[0] * pos_grid[1] + cls_token, dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if cls_token else None
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6) if norm else None
        self.grad_checkpointing = False

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of the stage before to tokens of this one; a class token stands first."""
        aggregation: Aggregation = self.merger(tokens)
        tokens = self._add_positions(aggregation.tokens)
        context = aggregation.context
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, context, use_reentrant=False)
            else:
                tokens = block(tokens, context)
            context = None
        return tokens if self.norm is None else tokens.with_x(self.norm(tokens.x))

    def _add_positions(self, tokens: Tokens) -> Tokens:
        if self.pos_grid is None:
            return tokens
        # A backbone keeps the class token's row of the embedding, unread: a classifier's weights then fit unchanged.
        cells = self.pos_grid[0] * self.pos_grid[1]
        first, rest = self.pos_embed[:, :-cells], self.pos_embed[:, -cells:]
        x = tokens.x + resize_positions(rest, self.pos_grid, tokens.grid)
        if self.cls_token is not None:
            x = torch.cat(((self.cls_token + first).expand(x.shape[0], -1, -1), x), dim=1)
        return tokens.with_x(x)


def resize_positions(positions: torch.Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> torch.Tensor:
    """Position embeddings (1, h*w, C) of an h x w grid for another grid, bilinearly (corners not aligned)."""
    if size == new_size:
        return positions
    positions = positions.transpose(1, 2).reshape(1, -1, *size)
    positions = F.interpolate(positions, size=new_size, mode="bilinear", align_corners=False)
    return positions.flatten(2).transpose(1, 2)


def stage_blocks(dims: Dimensions, stage: int, mlp: MlpKind, drop_path_rate: float) -> list[Block]:
    """The blocks of stage 0-3; drop-path grows linearly from 0 over all blocks of the model."""
    rates = torch.linspace(0, drop_path_rate, sum(dims.depths), device="cpu").tolist()
    first = sum(dims.depths[:stage])
    shape = (dims.embed_dims[stage], dims.num_heads[stage], dims.sr_ratios[stage], dims.mlp_ratios[stage])
    return [Block(*shape, mlp, drop_path=rates[first + index]) for index in range(dims.depths[stage])]


class PyramidTransformer(nn.Module):
    """Base of PVT and PVT-v2; subclasses build `stage1` to `stage4`.

    Args:
        dims: of the four stages.
        num_classes: outputs of the classifier; 0 for none.
        global_pool: ``token`` (class token), ``avg`` (unweighted mean of the tokens) or ``""`` (no pooling).
        drop_rate: dropout before the classifier.

    Raises:
        UserError: for a pooling that the subclass does not know.
    """

    poolings: tuple[str, ...] = ("avg", "")

    def __init__(self, dims: Dimensions, num_classes: int, in_chans: int, global_pool: str, drop_rate: float):
        super().__init__()
        if global_pool not in self.poolings:
            expected = ", ".join(repr(pooling) for pooling in self.poolings)
            raise UserError(f"global_pool={global_pool!r} is not supported; expected one of {expected}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.global_pool = global_pool
        self.num_features = self.head_hidden_size = dims.embed_dims[-1]
        self.feature_info = [
            {"num_chs": dim, "reduction": stride, "module": f"stage{index}"}
            for index, (dim, stride) in enumerate(zip(dims.embed_dims, STRIDES, strict=True), start=1)
        ]
        self.num_stages = 4
        self.head_norm: nn.Module = nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()

    @property
    def stages(self) -> list[Stage]:
        """The stages in order."""
        return [getattr(self, f"stage{index}") for index in range(1, self.num_stages + 1)]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage's features."""
        return tuple(info["num_chs"] for info in self.feature_info)

    def _run_stages(self, x: torch.Tensor) -> list[Tokens]:
        check_input(x)
        tokens, outputs = Tokens.from_map(x), []
        for stage in self.stages:
            tokens = stage(tokens)
            outputs.append(tokens)
        return outputs

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to the last stage's tokens (B, N, C) after the last norm, class token first."""
        return self.head_norm(self._run_stages(x)[-1].x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Tokens of `forward_features` to logits (B, num_classes), or to pooled features where ``pre_logits``."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x.mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_tokens(self, x: torch.Tensor) -> list[Tokens]:
        """Image (B, in_chans, H, W) to the four stages' tokens as dense tasks take them, without a class token."""
        outputs = self._run_stages(x)
        last = outputs[-1]
        if self.stages[-1].cls_token is not None:
            last = last.with_x(last.x[:, 1:])
        outputs[-1] = last.with_x(self.head_norm(last.x)) if self.norms_dense_output else last
        return outputs

    @property
    def norms_dense_output(self) -> bool:
        """Whether dense tasks take the last tokens after the last norm."""
        raise NotImplementedError

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """timm's interface to feature maps: (B, C, h, w) of the stages in ``indices``, strides 4 to 32.

        Norms are those of `forward_tokens`, whatever ``norm`` says; ``stop_early`` is not needed, since
        `prune_intermediate_layers` removes what nobody asked for.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output format {output_fmt!r} is not supported; expected 'NCHW'")
        take = taken_stages(self.num_stages, indices)
        tokens = self.forward_tokens(x)
        maps = [tokens[index].to_map() for index in take]
        return maps if intermediates_only else (tokens[-1].x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 4, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Turn the classifier into a backbone of the stages up to the last of ``indices``: nothing stays unused."""
        take = taken_stages(self.num_stages, indices)
        last = max(take)
        self.reset_classifier(0, "")
        self.stages[-1].cls_token = None
        if last < self.num_stages - 1 or not self.norms_dense_output:
            self.head_norm = nn.Identity()
        for index in range(last + 2, self.num_stages + 1):
            delattr(self, f"stage{index}")
        self.num_stages = last + 1
        return take

    def as_backbone(self) -> PyramidTransformer:
        """This model without what only classification needs; returns itself."""
        self.prune_intermediate_layers([0, 1, 2, 3])
        return self

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one, or by none for 0 classes."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        self.head = _classifier(self.num_features, num_classes)
        reference = next(self.parameters())
        self.head.to(device=reference.device, dtype=reference.dtype)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay beyond biases and 1-D weights: the class token."""
        return {"stage4.cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's description of layers, for layer-wise learning rates."""
        stem = r"^stage1\.(?:merger|pos_embed)"
        if coarse:
            return {"stem": stem, "blocks": r"^stage(\d+)"}
        blocks = [
            (r"^stage(\d+)\.(?:merger|pos_embed|cls_token)", (0,)),
            (r"^stage(\d+)\.blocks\.(\d+)", None),
            (r"^stage(\d+)\.norm", (99998,)),
            (r"^head_norm", (99999,)),
        ]
        return {"stem": stem, "blocks": blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: recompute blocks in the backward pass."""
        for stage in self.stages:
            stage.grad_checkpointing = enable


def taken_stages(count: int, indices: int | list[int] | None) -> list[int]:
    """timm's three ways to name ``count`` stages: all, the last n, or a list with negative indices from the end."""
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        return list(range(count - indices, count))
    return [index % count for index in indices]


def _classifier(in_features: int, num_classes: int) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(in_features, num_classes)
    initialise_linear(head)
    return head


def initialise_linear(module: nn.Linear) -> None:
    """Truncated normal of std 0.02 (cut at two absolute units, as the published models do), bias 0."""
    nn.init.trunc_normal_(module.weight, std=0.02)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
