"""Swin with HAFA's mergers, based on timm's Swin. Without mergers, timm's own model is used.

Liu et al., *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows*, ICCV 2021,
https://arxiv.org/abs/2103.14030. Mergers: Chen, Liu, Yin and Fan, *Building Vision Transformers with Hierarchy Aware
Feature Aggregation*, ICCV 2023 (Table 6).

The paper gives results of HAFA on Swin, but no code or description. This implementation interprets it as follows. LAA
replaces patch merging as in PVT (2x2 windows; odd sizes are padded with zeros, as patch merging does). Stage 4 after
SIA has no windows: all cluster tokens attend to each other, with the modules of timm's blocks. The relative position
bias is kept. A cluster token is located at the mean of its positions. The bias of two tokens is read from the
window's table at the difference of their locations, interpolated bilinearly and clamped at the border. For tokens
that form the grid of one window, this equals Swin's own bias.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn

from hafabench.config.catalog import GRID_ONLY, ModelSpec
from hafabench.errors import UserError
from hafabench.models.hafa.mergers import MergerStyle, build_merger, key_value_source
from hafabench.models.hafa.tokens import Context, Tokens
from hafabench.models.pyramid import TokenPyramid, check_input, initialise_linear, run_blocks
from hafabench.models.registry import ModelFamily, OwnModels, TimmModels, create
from hafabench.models.scaling import scaled_depths, scaled_dims

# With these options, timm's Swin accepts any image size.
ANY_IMAGE_SIZE: dict[str, Any] = {
    "strict_img_size": False,
    "embed_layer": partial(PatchEmbed, dynamic_img_pad=True),
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
}
# Kernel and padding of the grid merger are not used: Swin's grid merger is patch merging.
_STYLE = MergerStyle(kernel=2, padding=0, laa_kernel=2, laa_padding=0, laa_pad_odd=True)


def scaled_arguments(full: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments of timm's Swin at a model's width and depth.

    Blocks come in pairs of windows and shifted windows. Stage 3 keeps four blocks, which Dynamic-Swin needs.

    Args:
        full: The arguments in full size; one of `ARCHITECTURES`.
        spec: The model.
    """
    depths = scaled_depths(full["depths"], spec.depth, multiple=2)
    third = max(depths[2], min(4, full["depths"][2]))
    (dim,) = scaled_dims([full["embed_dim"]], full["num_heads"][:1], spec.width)
    return {**full, "embed_dim": dim, "depths": (*depths[:2], third, *depths[3:])}


class Downsample(nn.Module):
    """A merger of this project instead of patch merging: (B, H, W, C) to (B, H/2, W/2, C'), rounded up."""

    def __init__(self, merger: nn.Module):
        super().__init__()
        self.merger = merger

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _as_nhwc(self.merger(_from_nhwc(x)).tokens)


class TokenBlock(nn.Module):
    """timm's Swin block on cluster tokens instead of windows."""

    def __init__(self, block: SwinTransformerBlock):
        super().__init__()
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2

    def forward(self, tokens: Tokens, context: Context | None = None) -> Tokens:
        """Attend to ``context``, after the same first norm, or to the tokens themselves if it is None."""
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
    """Stage 4 after SIA.

    Args:
        merger: SIA.
        blocks: timm's blocks of the stage. Their modules and the names of their parameters are kept.
    """

    def __init__(self, merger: nn.Module, blocks: Iterable[SwinTransformerBlock]):
        super().__init__()
        self.merger = merger
        self.blocks = nn.ModuleList(TokenBlock(block) for block in blocks)
        self.grad_checkpointing = False

    def forward(self, tokens: Tokens) -> Tokens:
        """Map grid tokens of stage 3 to cluster tokens of stage 4."""
        aggregation = self.merger(tokens)
        return run_blocks(self.blocks, aggregation, aggregation.tokens, self.grad_checkpointing)


class SwinTransformerHafa(TokenPyramid, SwinTransformer):
    """Swin with a choice of merger per stage.

    Args:
        mergers: Merger in front of each stage: ``grid`` (patch merging), ``conv``, ``laa`` and, on stage 4, ``sia``.
        query_mode: ``q`` or ``qkv``: how SIA uses cluster tokens; see `hafabench.config.catalog.ModelSpec`.
        fidelity: ``published_code`` or ``paper``: keys and values after SIA.
        **kwargs: Arguments of timm's `SwinTransformer`.
    """

    def __init__(
        self,
        mergers: tuple[str, ...] = GRID_ONLY,
        query_mode: str = "q",
        fidelity: str = "published_code",
        **kwargs: Any,
    ):
        super().__init__(**{**ANY_IMAGE_SIZE, **kwargs})
        self.output_fmt = "NLC"
        self.clusters = mergers[3] == "sia"
        key_values = key_value_source(mergers, query_mode, fidelity)
        for index, kind in enumerate(mergers):
            if kind == "grid":
                continue
            merger = build_merger(kind, self.channels[index - 1], self.channels[index], _STYLE, key_values)
            merger.apply(lambda module: initialise_linear(module) if isinstance(module, nn.Linear) else None)
            stage: Any = self.layers[index]
            if kind == "sia":
                self.layers[index] = TokenStage(merger, stage.blocks)
            else:
                stage.downsample = Downsample(merger)

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the classifier."""
        return self.norm

    @property
    def norms_dense_output(self) -> bool:
        """Dense tasks use grids as they are, and cluster tokens after the last norm."""
        return self.clusters

    def run_stages(self, x: torch.Tensor, stop: int | None = None) -> list[Tokens]:
        """Map images (B, in_chans, H, W) to the tokens of the stages, or of the first ``stop`` stages."""
        check_input(x)
        tokens, outputs = _from_nhwc(self.patch_embed(x)), []
        for stage in self.layers[:stop]:
            is_tokens = isinstance(stage, TokenStage)
            tokens = stage(tokens) if is_tokens else _from_nhwc(stage(_as_nhwc(tokens)))
            outputs.append(tokens)
        return outputs

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map tokens (B, N, C) to logits (B, num_classes) of their unweighted mean."""
        # timm's head pools a channels-last map: the tokens form one of height 1.
        x = super().forward_head(x.unsqueeze(1), pre_logits)
        return x if self.global_pool else x.squeeze(1)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 4, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what only classification needs; see timm's `SwinTransformer`. Cluster tokens keep their norm."""
        return super().prune_intermediate_layers(indices, prune_norm and not self.clusters, prune_head)

    def as_backbone(self) -> SwinTransformerHafa:
        """Remove what only classification needs, and return the model itself, a `DenseBackbone`."""
        self.prune_intermediate_layers([0, 1, 2, 3], prune_norm=True)
        return self

    def set_input_size(self, *args: Any, **kwargs: Any) -> None:
        """Refuse the call: the model works on every input size, with the windows that it was built with.

        Raises:
            UserError: Always.
        """
        raise UserError("Swin with HAFA works on every input size; set_input_size is not supported")


def relative_position_bias(
    table: torch.Tensor, window: tuple[int, int], queries: Tokens, source: Tokens
) -> torch.Tensor:
    """Return Swin's bias table at the differences of token positions.

    Args:
        table: Biases ((2 Wh - 1)(2 Ww - 1), heads) of a Wh x Ww window.
        window: Size (Wh, Ww) of the window.
        queries: N tokens. Differences are measured in positions of their grid.
        source: M tokens.

    Returns:
        Biases (B or 1, heads, N, M). Differences and interpolation are float32, or float64 for float64 tokens.
    """
    offsets = queries.centres(queries.grid).unsqueeze(2) - source.centres(queries.grid).unsqueeze(1)
    # grid_sample expects (x, y), scaled so that -1 and 1 are the table's outermost entries.
    limits = offsets.new_tensor([max(side - 1, 1) for side in window])
    points = (offsets / limits).flip(-1)
    image = table.view(1, 2 * window[0] - 1, 2 * window[1] - 1, -1).permute(0, 3, 1, 2)
    image = image.to(points.dtype).expand(points.shape[0], -1, -1, -1)
    return F.grid_sample(image, points, mode="bilinear", padding_mode="border", align_corners=True)


def _from_nhwc(x: torch.Tensor) -> Tokens:
    return Tokens(x.flatten(1, 2), (x.shape[1], x.shape[2]))


def _as_nhwc(tokens: Tokens) -> torch.Tensor:
    return tokens.x.unflatten(1, tokens.grid)


def _build(spec: ModelSpec, **kwargs: Any) -> SwinTransformerHafa:
    kwargs = {**scaled_arguments(ARCHITECTURES[spec.architecture], spec), **kwargs}
    return SwinTransformerHafa(spec.mergers, spec.query_mode, spec.fidelity, **kwargs)


def _build_scaled(spec: ModelSpec, _full: nn.Module, **kwargs: Any) -> nn.Module:
    arguments = scaled_arguments(ARCHITECTURES[spec.architecture], spec)
    return timm.create_model(spec.architecture, **{**arguments, **kwargs})


FAMILY = ModelFamily(
    "swin",
    own=OwnModels(_build, first_conv="patch_embed.proj", classifier="head.fc", dense=True),
    timm=TimmModels(pyramid_levels=(0, 1, 2, 3), scaled=_build_scaled, options=ANY_IMAGE_SIZE),
    # Windows of 7 x 7 positions, made for 224 pixels, would be mostly padding on small images.
    img_size_from_recipe=True,
)
default_cfgs = FAMILY.default_cfgs()


@register_model
def swin_tiny_hafa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Swin-T with HAFA: LAA, LAA, SIA."""
    return create("swin_tiny_hafa", pretrained=pretrained, **kwargs)
