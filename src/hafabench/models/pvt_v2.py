"""PVT-v2 with HAFA's and TCFormer's mergers. Without mergers, timm's PVT-v2 is used, which is equal to this one.

Wang et al., *PVT v2: Improved Baselines with Pyramid Vision Transformer*, Computational Visual Media 2022,
https://arxiv.org/abs/2106.13797. Token stages: Zeng et al., *Not All Tokens Are Equal: Human-centric Visual Analysis
via Token Clustering Transformer*, CVPR 2022. Mergers: Chen, Liu, Yin and Fan, *Building Vision Transformers with
Hierarchy Aware Feature Aggregation*, ICCV 2023 (Tables 4 and 6, section 4.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import timm
from timm.models import register_model
from torch import nn

from hafabench.config.catalog import GRID_ONLY, ModelSpec
from hafabench.errors import UserError
from hafabench.models.hafa.mergers import GridMerger, MergerStyle, build_merger, key_value_source
from hafabench.models.pyramid import Dimensions, PyramidClassifier, Stage, initialise_linear, stage_blocks
from hafabench.models.registry import ModelFamily, OwnModels, TimmModels, create

_HEADS = (1, 2, 5, 8)
_RATIOS = (8, 8, 4, 4)
ARCHITECTURES = {
    "pvt_v2_b0": Dimensions((2, 2, 2, 2), (32, 64, 160, 256), _HEADS, _RATIOS),
    "pvt_v2_b1": Dimensions((2, 2, 2, 2), (64, 128, 320, 512), _HEADS, _RATIOS),
    "pvt_v2_b2": Dimensions((3, 4, 6, 3), (64, 128, 320, 512), _HEADS, _RATIOS),
    "pvt_v2_b3": Dimensions((3, 4, 18, 3), (64, 128, 320, 512), _HEADS, _RATIOS),
    "pvt_v2_b4": Dimensions((3, 8, 27, 3), (64, 128, 320, 512), _HEADS, _RATIOS),
    "pvt_v2_b5": Dimensions((3, 6, 40, 3), (64, 128, 320, 512), _HEADS, (4, 4, 4, 4)),
}
# For each side of LAA's window: its padding, and whether odd sizes are padded to the output size of the 3x3 grid.
_LAA_WINDOWS = {3: (1, False), 2: (0, True)}


class PyramidVisionTransformerV2(PyramidClassifier):
    """PVT-v2: overlapping patch embedding, no position embeddings, LayerNorm after every stage.

    Stages that begin with SIA work on tokens: their depthwise and reduction convolutions convert tokens to a map and
    back, and the first block adds the importance scores to its attention logits.

    Args:
        dims: Dimensions of the four stages.
        mergers: Merger in front of each stage: ``grid``, ``conv`` (the same here), ``laa`` or ``sia``.
        query_mode: ``q`` or ``qkv``: how SIA uses cluster tokens; see `hafabench.config.catalog.ModelSpec`.
        fidelity: ``published_code`` or ``paper``: keys and values after SIA.
        num_classes: Outputs of the classifier; 0 for no classifier.
        in_chans: Channels of the image.
        global_pool: ``avg`` or ``""``.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth rate of the last block.
        laa_kernel: Side of LAA's window: 3 (padding 1; the published parameter count) or 2.

    Raises:
        UserError: For another pooling or window.
    """

    def __init__(
        self,
        dims: Dimensions,
        mergers: tuple[str, ...] = GRID_ONLY,
        query_mode: str = "q",
        fidelity: str = "published_code",
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        laa_kernel: int = 3,
    ):
        if laa_kernel not in _LAA_WINDOWS:
            raise UserError(f"laa_kernel={laa_kernel} is not supported; expected 2 or 3")
        super().__init__(dims.embed_dims, num_classes, in_chans, global_pool, drop_rate)
        laa_padding, laa_pad_odd = _LAA_WINDOWS[laa_kernel]
        style = MergerStyle(3, 1, laa_kernel, laa_padding, laa_pad_odd, score_in_attention=True)
        key_values = key_value_source(mergers, query_mode, fidelity)
        in_dim = in_chans
        for index, (kind, dim) in enumerate(zip(mergers, dims.embed_dims, strict=True)):
            if index == 0:
                merger: nn.Module = GridMerger(in_dim, dim, kernel=7, stride=4, padding=3)
            else:
                merger = build_merger(kind, in_dim, dim, style, key_values)
            blocks = stage_blocks(dims, index, "token" if kind == "sia" else "depthwise", drop_path_rate)
            self.add_module(f"stage{index + 1}", Stage(merger, blocks, dim, norm=True))
            in_dim = dim
        self.apply(_initialise)
        self.reset_classifier(num_classes)

    @property
    def norms_dense_output(self) -> bool:
        """Every stage ends with a norm, so dense tasks use all of them normalised."""
        return True


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        initialise_linear(module)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _build(
    spec: ModelSpec, depths: Sequence[int] | None = None, embed_dims: Sequence[int] | None = None, **kwargs: Any
) -> PyramidVisionTransformerV2:
    dims = ARCHITECTURES[spec.architecture].scaled(spec).resized(depths, embed_dims)
    return PyramidVisionTransformerV2(dims, spec.mergers, spec.query_mode, spec.fidelity, **kwargs)


def _build_scaled(spec: ModelSpec, _full: nn.Module, **kwargs: Any) -> nn.Module:
    dims = ARCHITECTURES[spec.architecture].scaled(spec)
    return timm.create_model(spec.architecture, **{"depths": dims.depths, "embed_dims": dims.embed_dims, **kwargs})


FAMILY = ModelFamily(
    "pvt_v2",
    own=OwnModels(_build, first_conv="stage1.merger.proj", classifier="head", dense=True),
    timm=TimmModels(scaled=_build_scaled, pyramid_levels=(0, 1, 2, 3)),
    # A 512 -> 512 projection with bias.
    dead_weights={"classification": 262_656, "segmentation": 262_656, "detection": 262_656},
)
default_cfgs = FAMILY.default_cfgs()


@register_model
def pvt_v2_b1_hafa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with HAFA: LAA, LAA, SIA."""
    return create("pvt_v2_b1_hafa", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b2_hafa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B2 with HAFA: LAA, LAA, SIA."""
    return create("pvt_v2_b2_hafa", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_sia_sia_sia(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with SIA, SIA, SIA (Table 4)."""
    return create("pvt_v2_b1_sia_sia_sia", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_laa_sia_sia(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with LAA, SIA, SIA (Table 4)."""
    return create("pvt_v2_b1_laa_sia_sia", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_laa_laa_sia(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with LAA, LAA, SIA (Table 4)."""
    return create("pvt_v2_b1_laa_laa_sia", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_laa_laa_laa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with LAA, LAA, LAA (Table 4)."""
    return create("pvt_v2_b1_laa_laa_laa", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_laa_laa_conv(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with LAA, LAA, convolution (section 4.4)."""
    return create("pvt_v2_b1_laa_laa_conv", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_laa_conv_conv(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with LAA, convolution, convolution (section 4.4)."""
    return create("pvt_v2_b1_laa_conv_conv", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_conv_laa_sia(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with convolution, LAA, SIA (section 4.4)."""
    return create("pvt_v2_b1_conv_laa_sia", pretrained=pretrained, **kwargs)


@register_model
def pvt_v2_b1_conv_conv_sia(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-v2-B1 with convolution, convolution, SIA (section 4.4)."""
    return create("pvt_v2_b1_conv_conv_sia", pretrained=pretrained, **kwargs)
