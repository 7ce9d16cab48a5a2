"""The common parts of backbones with four stages: the interfaces of timm and of dense tasks, and the stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from timm.models._features import feature_take_indices
from torch import nn
from torch.utils.checkpoint import checkpoint

from hafabench.config.catalog import ModelSpec
from hafabench.errors import UserError
from hafabench.models.blocks import Block, MlpKind
from hafabench.models.dense_backbone import STRIDES
from hafabench.models.hafa.tokens import Aggregation, Context, Tokens
from hafabench.models.precision import at_least_single
from hafabench.models.scaling import scaled_depths, scaled_dims

MIN_SIZE = 32


@dataclass(frozen=True)
class Dimensions:
    """Widths and depths of the four stages."""

    depths: tuple[int, ...]
    embed_dims: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratios: tuple[float, ...]
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)

    def scaled(self, spec: ModelSpec) -> Dimensions:
        """Return the dimensions at the width and depth of a model."""
        return replace(
            self,
            depths=scaled_depths(self.depths, spec.depth),
            embed_dims=scaled_dims(self.embed_dims, self.num_heads, spec.width),
        )

    def resized(self, depths: Sequence[int] | None = None, embed_dims: Sequence[int] | None = None) -> Dimensions:
        """Return the dimensions with other depths or channels, if given.

        Raises:
            UserError: If they are not four positive numbers, or the channels are not multiples of the heads.
        """
        changes = {"depths": depths, "embed_dims": embed_dims}
        given = {name: tuple(value) for name, value in changes.items() if value is not None}
        for name, value in given.items():
            if len(value) != 4 or min(value) < 1:
                raise UserError(f"{name}={value!r} is not supported; expected four positive numbers, one per stage")
        dims = replace(
            self, depths=given.get("depths", self.depths), embed_dims=given.get("embed_dims", self.embed_dims)
        )
        if any(width % heads for width, heads in zip(dims.embed_dims, dims.num_heads, strict=True)):
            raise UserError(
                f"embed_dims={dims.embed_dims!r} is not supported; expected multiples of {dims.num_heads}"
            )
        return dims


def check_input(x: torch.Tensor) -> None:
    """Refuse images that would leave a stage without a token.

    Raises:
        UserError: If a side has fewer than 32 pixels.
    """
    height, width = x.shape[-2:]
    if height < MIN_SIZE or width < MIN_SIZE:
        raise UserError(f"input of {height} x {width} pixels is too small: every model needs {MIN_SIZE} x {MIN_SIZE}")


class TokenPyramid(nn.Module):
    """Base of classifiers with four stages of tokens: `DenseBackbone` and timm's interface to feature maps.

    Subclasses define `run_stages` and `last_norm`, and set ``feature_info`` as timm's models do. `PyramidClassifier`
    also provides the classifier and the rest of timm's interface.
    """

    feature_info: list[dict[str, Any]]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(info["num_chs"] for info in self.feature_info)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the stages, in pixels of the image."""
        return tuple(info["reduction"] for info in self.feature_info)

    @property
    def num_prefix_tokens(self) -> int:
        """1 if the last stage's tokens begin with a class token, else 0."""
        return 0

    @property
    def last_norm(self) -> nn.Module:
        """The norm between the last stage and the classifier."""
        raise NotImplementedError

    @property
    def norms_dense_output(self) -> bool:
        """Whether dense tasks use the tokens of the last stage after the last norm."""
        return False

    def run_stages(self, x: torch.Tensor, stop: int | None = None) -> list[Tokens]:
        """Map images (B, in_chans, H, W) to the tokens of the stages, or of the first ``stop`` stages."""
        raise NotImplementedError

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, in_chans, H, W) to the last stage's normalised tokens (B, N, C), class token first."""
        return self.last_norm(self.run_stages(x)[-1].x)

    def forward_tokens(self, x: torch.Tensor) -> list[Tokens]:
        """Map images (B, in_chans, H, W) to the tokens of the stages for dense tasks, without a class token."""
        return self._dense_tokens(self.run_stages(x), norm=False)

    def forward_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map images (B, in_chans, H, W) to a map (B, C_i, h_i, w_i) of each stage."""
        return [tokens.to_map() for tokens in self.forward_tokens(x)]

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """Implement timm's interface to feature maps.

        Args:
            x: Image (B, in_chans, H, W).
            indices: Stages to return: all, the last n, or a list.
            norm: Apply the last norm to the last stage, even if `forward_tokens` does not.
            stop_early: Do not run the stages after the last one that is returned.
            output_fmt: ``NCHW``.
            intermediates_only: Return only the maps.

        Returns:
            The output of `forward_features`, or of the last stage that was run, and the maps (B, C_i, h_i, w_i).
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output format {output_fmt!r} is not supported; expected 'NCHW'")
        selected, last = feature_take_indices(len(self.feature_info), indices)
        outputs = self.run_stages(x, last + 1 if stop_early else None)
        dense = self._dense_tokens(outputs, norm)
        maps = [dense[index].to_map() for index in selected]
        if intermediates_only:
            return maps
        final = outputs[-1].x
        return self.last_norm(final) if self._is_complete(outputs) else final, maps

    def _dense_tokens(self, outputs: list[Tokens], norm: bool) -> list[Tokens]:
        if not self._is_complete(outputs):
            return outputs
        *earlier, last = outputs
        last = last.with_x(last.x[:, self.num_prefix_tokens :])
        return [*earlier, last.with_x(self.last_norm(last.x)) if norm or self.norms_dense_output else last]

    def _is_complete(self, outputs: Sequence[Tokens]) -> bool:
        return len(outputs) == len(self.feature_info)


def run_blocks(
    blocks: Iterable[nn.Module], aggregation: Aggregation, tokens: Tokens, grad_checkpointing: bool
) -> Tokens:
    """Run the blocks of a stage; only the first one attends to the context of the merger.

    Args:
        blocks: Modules that take `Tokens` and a `Context` or None.
        aggregation: Output of the stage's merger.
        tokens: Input of the first block.
        grad_checkpointing: Recompute the blocks in the backward pass instead of storing activations.
    """
    context: Context | None = aggregation.context
    for block in blocks:
        if grad_checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, context, use_reentrant=False)
        else:
            tokens = block(tokens, context)
        context = None
    return tokens


class Stage(nn.Module):
    """One stage of a `PyramidClassifier`: merger, position embedding if any, blocks, norm if any.

    Args:
        merger: Module from `Tokens` to an `Aggregation`.
        blocks: Blocks of the stage: modules that take `Tokens` and a `Context` or None, and return `Tokens`.
        dim: Channels.
        pos_grid: Grid (h, w) of a learned position embedding, or None.
        cls_token: Whether a class token with its own position embedding is prepended.
        norm: Whether the stage ends with a LayerNorm (eps 1e-6).
    """

    cls_token: nn.Parameter | None

    def __init__(
        self,
        merger: nn.Module,
        blocks: Sequence[nn.Module],
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
        """Map tokens of the previous stage to tokens of this stage, class token first."""
        aggregation: Aggregation = self.merger(tokens)
        tokens = self._add_positions(aggregation.tokens)
        tokens = run_blocks(self.blocks, aggregation, tokens, self.grad_checkpointing)
        return tokens if self.norm is None else tokens.with_x(self.norm(tokens.x))

    def _add_positions(self, tokens: Tokens) -> Tokens:
        if self.pos_grid is None:
            return tokens
        # A dense backbone keeps the class token's row of the embedding, so that a classifier's weights fit unchanged.
        positions = self.pos_grid[0] * self.pos_grid[1]
        first, rest = self.pos_embed[:, :-positions], self.pos_embed[:, -positions:]
        x = tokens.x + resize_positions(rest, self.pos_grid, tokens.grid)
        if self.cls_token is not None:
            x = torch.cat(((self.cls_token + first).expand(x.shape[0], -1, -1), x), dim=1)
        return tokens.with_x(x)


def resize_positions(positions: torch.Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> torch.Tensor:
    """Interpolate position embeddings (1, h*w, C) of an h x w grid bilinearly (corners not aligned).

    Args:
        positions: Embeddings (1, h*w, C).
        size: Their grid (h, w).
        new_size: The other grid (h', w').

    Returns:
        Embeddings (1, h'*w', C), interpolated in at least single precision and returned in their dtype.
    """
    if size == new_size:
        return positions
    maps = at_least_single(positions).transpose(1, 2).reshape(1, -1, *size)
    maps = F.interpolate(maps, size=new_size, mode="bilinear", align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(positions.dtype)


def stage_blocks(dims: Dimensions, stage: int, mlp: MlpKind, drop_path_rate: float) -> list[Block]:
    """Build the blocks of one stage. Stochastic depth grows linearly from 0 over all blocks of the model.

    Args:
        dims: Dimensions of the model.
        stage: Index of the stage, 0-3.
        mlp: Kind of feed-forward layer.
        drop_path_rate: Rate of the model's last block.
    """
    rates = torch.linspace(0, drop_path_rate, sum(dims.depths), device="cpu").tolist()
    first = sum(dims.depths[:stage])
    shape = (dims.embed_dims[stage], dims.num_heads[stage], dims.sr_ratios[stage], dims.mlp_ratios[stage])
    return [Block(*shape, mlp, drop_path=rates[first + index]) for index in range(dims.depths[stage])]


class PyramidClassifier(TokenPyramid):
    """Base of backbones that are built from `Stage`: the classifier and timm's interface.

    Subclasses add ``stage1`` to ``stage4``, replace ``head_norm`` if their last stage does not end with a norm, and
    then call `reset_classifier`.

    Args:
        embed_dims: Channels of the four stages.
        num_classes: Outputs of the classifier; 0 for no classifier.
        in_chans: Channels of the image.
        global_pool: ``token`` (class token), ``avg`` (unweighted mean of the tokens) or ``""`` (no pooling).
        drop_rate: Dropout before the classifier.

    Raises:
        UserError: If the subclass does not support the pooling.
    """

    poolings: tuple[str, ...] = ("avg", "")
    output_fmt = "NLC"

    def __init__(
        self, embed_dims: Sequence[int], num_classes: int, in_chans: int, global_pool: str, drop_rate: float
    ):
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.global_pool = self._checked_pooling(global_pool)
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.feature_info = [
            {"num_chs": dim, "reduction": stride, "module": f"stage{index}"}
            for index, (dim, stride) in enumerate(zip(embed_dims, STRIDES, strict=True), start=1)
        ]
        self.num_stages = 4
        self.head_norm: nn.Module = nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()

    def _checked_pooling(self, global_pool: str) -> str:
        if global_pool not in self.poolings:
            expected = ", ".join(repr(pooling) for pooling in self.poolings)
            raise UserError(f"global_pool={global_pool!r} is not supported; expected one of {expected}")
        return global_pool

    @property
    def stages(self) -> list[Stage]:
        """The stages in order."""
        return [getattr(self, f"stage{index}") for index in range(1, self.num_stages + 1)]

    @property
    def num_prefix_tokens(self) -> int:
        """1 if the last stage's tokens begin with a class token, else 0."""
        return int(self.stages[-1].cls_token is not None)

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the classifier; the identity if the stages end with norms."""
        return self.head_norm

    def run_stages(self, x: torch.Tensor, stop: int | None = None) -> list[Tokens]:
        """Map images (B, in_chans, H, W) to the tokens of the stages, or of the first ``stop`` stages."""
        check_input(x)
        tokens, outputs = Tokens.from_map(x), []
        for stage in self.stages[:stop]:
            tokens = stage(tokens)
            outputs.append(tokens)
        return outputs

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map tokens (B, N, C) to logits (B, num_classes), or to pooled features if ``pre_logits``."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x.mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def prune_intermediate_layers(
        self, indices: int | list[int] = 4, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last one in ``indices``, and the parts that only classification needs.

        Args:
            indices: Stages to keep features of: the last n, or a list.
            prune_norm: Remove the last norm, unless `forward_tokens` applies it.
            prune_head: Remove the classifier and the class token.
        """
        selected, last = feature_take_indices(self.num_stages, indices)
        incomplete = last < self.num_stages - 1
        if incomplete or (prune_norm and not self.norms_dense_output):
            self.head_norm = nn.Identity()
        if incomplete or prune_head:
            self.reset_classifier(0, "")
            self.stages[-1].cls_token = None
        for index in range(last + 2, self.num_stages + 1):
            delattr(self, f"stage{index}")
        self.num_stages = last + 1
        self.num_features = self.head_hidden_size = self.channels[last]
        return selected

    def as_backbone(self) -> PyramidClassifier:
        """Remove what only classification needs, and return the model itself, a `DenseBackbone`."""
        self.prune_intermediate_layers([0, 1, 2, 3], prune_norm=True)
        return self

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, or by none for 0 classes."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = self._checked_pooling(global_pool)
        self.head = _classifier(self.num_features, num_classes)
        reference = next(self.parameters())
        self.head.to(device=reference.device, dtype=reference.dtype)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters without weight decay other than biases and other vectors: the class token."""
        return {"stage4.cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's description of the layers, for layer-wise learning rates."""
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
        """Recompute blocks in the backward pass instead of storing their activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable


def _classifier(in_features: int, num_classes: int) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(in_features, num_classes)
    initialise_linear(head)
    return head


def initialise_linear(module: nn.Linear) -> None:
    """Draw weights from a normal of std 0.02, truncated at 2 in absolute units as in the published models; bias 0."""
    nn.init.trunc_normal_(module.weight, std=0.02)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
