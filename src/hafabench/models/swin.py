"""Swin with HAFA's mergers, on timm's Swin. Without mergers Swin is timm's own.

Liu et al., *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows*, ICCV 2021,
https://arxiv.org/abs/2103.14030. Mergers: Chen, Liu, Yin and Fan, *Building Vision Transformers with Hierarchy Aware
Feature Aggregation*, ICCV 2023 (Table 6).

Nothing is published of HAFA on Swin but its name and figures. The reading here: LAA replaces patch merging as on PVT
(2x2 windows, odd sizes completed with zeros as patch merging does), and stage 4 after SIA attends globally among
cluster tokens, for which windows have no meaning, with the very modules of timm's blocks. Swin's relative position
bias is kept: cluster tokens lie at the mean position of their cells, and the bias of a pair is the window's table,
interpolated bilinearly at the difference of their positions and clamped at its border. For tokens that are the grid
of one window this is Swin's own bias.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

from hafabench.config.catalog import GRID_ONLY
from hafabench.errors import UserError
from hafabench.models.hafa.plugin import MergerStyle, build_merger, key_value_source
from hafabench.models.hafa.tokens import Context, Tokens
from hafabench.models.pyramid import check_input, initialise_linear, taken_stages

ARCHITECTURES = {
    "swin_tiny_patch4_window7_224": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
}
# Kernel and padding of the grid merger are unused: Swin's own is patch merging.
_STYLE = MergerStyle(kernel=2, padding=0, laa_kernel=2, laa_padding=0, laa_pad_odd=True)


class Downsample(nn.Module):
    """A merger of this project in the place of patch merging: (B, H, W, C) to (B, H/2, W/2, C'), rounding up."""

    def __init__(self, merger: nn.Module):
        super().__init__()
        self.merger = merger

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _as_nhwc(self.merger(_from_nhwc(x)).tokens)


class TokenBlock(nn.Module):
    """timm's Swin block, on cluster tokens instead of windows."""

    def __init__(self, block: SwinTransformerBlock):
        super().__init__()
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2

    def forward(self, tokens: Tokens, context: Context | None = None) -> Tokens:
        """Attend to ``context`` or among the tokens themselves; a context passes the same first norm."""
        queries = tokens.with_x(self.norm1(tokens.x))
        if context is not None:
            source = context.tokens.with_x(self.norm1(context.tokens.x))
            context = Context(source, context.scores, context.encoders)
        x = tokens.x + self.drop_path1(self._attend(queries, context))
        return tokens.with_x(x + self.drop_path2(self.mlp(self.norm2(x))))

    def _attend(self, queries: Tokens, context: Context | None) -> torch.Tensor:
        source = queries if context is None else context.tokens
        keys = values = source.x
        if context is not None and context.encoders is not None:
            features = source.to_map()
            keys, values = (Tokens.from_map(encode(features)).x for encode in context.encoders)
        weights, biases = self.attn.qkv.weight.chunk(3), self.attn.qkv.bias.chunk(3)
        heads = (self.attn.num_heads, -1)
        q, k, v = (
            F.linear(x, weights[index], biases[index]).unflatten(-1, heads).transpose(1, 2)
            for index, x in enumerate((queries.x, keys, values))
        )
        window = self.attn.window_size
        bias = relative_position_bias(self.attn.relative_position_bias_table, window, queries, source)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.attn.proj(x.transpose(1, 2).flatten(2))


class TokenStage(nn.Module):
    """Stage 4 behind SIA.

    Args:
        merger: SIA.
        blocks: timm's blocks of the stage; their modules, and the names of their parameters, are kept.
    """

    def __init__(self, merger: nn.Module, blocks: nn.Sequential):
        super().__init__()
        self.merger = merger
        self.blocks = nn.ModuleList(TokenBlock(block) for block in blocks)
        self.grad_checkpointing = False

    def forward(self, tokens: Tokens) -> Tokens:
        """Grid tokens of stage 3 to cluster tokens of stage 4."""
        aggregation = self.merger(tokens)
        tokens, context = aggregation.tokens, aggregation.context
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, context, use_reentrant=False)
            else:
                tokens = block(tokens, context)
            context = None
        return tokens


class SwinTransformerHafa(SwinTransformer):
    """Swin whose patch mergings are chosen stage by stage.

    Args:
        mergers: ``grid`` (patch merging), ``conv``, ``laa``, and on stage 4 ``sia``.
        variant, fidelity: of SIA; see `hafabench.config.catalog.ModelSpec`.
        kwargs: of timm's `SwinTransformer`.
    """

    def __init__(
        self,
        mergers: tuple[str, ...] = GRID_ONLY,
        variant: str = "q",
        fidelity: str = "published_code",
        **kwargs,
    ):
        kwargs.setdefault("strict_img_size", False)
        kwargs.setdefault("embed_layer", partial(PatchEmbed, dynamic_img_pad=True))
        super().__init__(**kwargs)
        self.clusters = mergers[3] == "sia"
        key_values = key_value_source(mergers, variant, fidelity)
        for index, kind in enumerate(mergers):
            if kind == "grid":
                continue
            in_dim, dim = self.feature_info[index - 1]["num_chs"], self.feature_info[index]["num_chs"]
            merger = build_merger(kind, in_dim, dim, _STYLE, key_values)
            merger.apply(lambda module: initialise_linear(module) if isinstance(module, nn.Linear) else None)
            if kind == "sia":
                self.layers[index] = TokenStage(merger, self.layers[index].blocks)
            else:
                self.layers[index].downsample = Downsample(merger)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage's features."""
        return tuple(info["num_chs"] for info in self.feature_info)

    def _run_stages(self, x: torch.Tensor) -> list[Tokens]:
        check_input(x)
        tokens, outputs = _from_nhwc(self.patch_embed(x)), []
        for stage in self.layers:
            is_tokens = isinstance(stage, TokenStage)
            tokens = stage(tokens) if is_tokens else _from_nhwc(stage(_as_nhwc(tokens)))
            outputs.append(tokens)
        return outputs

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to the last stage's tokens (B, N, C) after the last norm."""
        return self.norm(self._run_stages(x)[-1].x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Tokens (B, N, C) to logits, by the unweighted mean over tokens."""
        # timm's head pools a map of channels last: the tokens are one of height 1.
        return super().forward_head(x.unsqueeze(1), pre_logits)

    def forward_tokens(self, x: torch.Tensor) -> list[Tokens]:
        """Image (B, in_chans, H, W) to the stages' tokens: grids as they are, cluster tokens after the last norm."""
        outputs = self._run_stages(x)
        if self.clusters and len(outputs) == 4:
            outputs[-1] = outputs[-1].with_x(self.norm(outputs[-1].x))
        return outputs

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """timm's interface to feature maps; norms are those of `forward_tokens`."""
        if output_fmt != "NCHW":
            raise ValueError(f"output format {output_fmt!r} is not supported; expected 'NCHW'")
        tokens = self.forward_tokens(x)
        maps = [tokens[index].to_map() for index in taken_stages(len(tokens), indices)]
        return maps if intermediates_only else (tokens[-1].x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 4, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what only classification needs; cluster tokens keep their norm."""
        return super().prune_intermediate_layers(indices, prune_norm and not self.clusters, prune_head)

    def as_backbone(self) -> SwinTransformerHafa:
        """This model without what only classification needs; returns itself."""
        self.prune_intermediate_layers([0, 1, 2, 3], prune_norm=True)
        return self

    def set_input_size(self, *args, **kwargs) -> None:
        """Not needed: every input size works as it is, and the windows stay those of the published model."""
        raise UserError("Swin with HAFA takes any input size; it has none to set")


def relative_position_bias(
    table: torch.Tensor, window: tuple[int, int], queries: Tokens, source: Tokens
) -> torch.Tensor:
    """Swin's bias table read at the differences of token positions.

    Args:
        table: ((2 Wh - 1)(2 Ww - 1), heads) of a Wh x Ww window.
        window: (Wh, Ww).
        queries, source: N tokens and M tokens; positions are in cells of the queries' grid.

    Returns:
        (B or 1, heads, N, M).
    """
    offsets = queries.centres(queries.grid).unsqueeze(2) - source.centres(queries.grid).unsqueeze(1)
    # Normalised so that -1 and 1 are the table's outermost entries, as (x, y), which is what grid_sample reads.
    limits = offsets.new_tensor([max(side - 1, 1) for side in window])
    places = (offsets / limits).flip(-1)
    image = table.view(1, 2 * window[0] - 1, 2 * window[1] - 1, -1).permute(0, 3, 1, 2)
    image = image.to(places.dtype).expand(places.shape[0], -1, -1, -1)
    return F.grid_sample(image, places, mode="bilinear", padding_mode="border", align_corners=True)


def _from_nhwc(x: torch.Tensor) -> Tokens:
    return Tokens(x.flatten(1, 2), (x.shape[1], x.shape[2]))


def _as_nhwc(tokens: Tokens) -> torch.Tensor:
    return tokens.x.unflatten(1, tokens.grid)
