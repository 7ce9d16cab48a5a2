"""PVT (Pyramid Vision Transformer) with HAFA's mergers.

Wang et al., *Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions*, ICCV 2021,
https://arxiv.org/abs/2102.12122. With mergers: Chen, Liu, Yin and Fan, *Building Vision Transformers with Hierarchy
Aware Feature Aggregation*, ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import register_model
from torch import nn

from hafabench.config.catalog import GRID_ONLY, ModelSpec
from hafabench.errors import UserError
from hafabench.models.hafa.mergers import GridMerger, MergerStyle, build_merger, key_value_source
from hafabench.models.pyramid import Dimensions, PyramidClassifier, Stage, initialise_linear, stage_blocks
from hafabench.models.registry import ModelFamily, OwnModels, create

_WIDTHS = ((64, 128, 320, 512), (1, 2, 5, 8), (8, 8, 4, 4))
ARCHITECTURES = {
    "pvt_tiny": Dimensions((2, 2, 2, 2), *_WIDTHS),
    "pvt_small": Dimensions((3, 4, 6, 3), *_WIDTHS),
    "pvt_medium": Dimensions((3, 4, 18, 3), *_WIDTHS),
    "pvt_large": Dimensions((3, 8, 27, 3), *_WIDTHS),
}


class PyramidVisionTransformer(PyramidClassifier):
    """PVT v1.

    A stage consists of a merger, learned position embeddings and blocks. If stage 4 begins with a grid or LAA, a
    class token is added there and classified. Cluster tokens (SIA) are averaged instead, and have no position
    embeddings.

    Args:
        dims: Dimensions of the four stages.
        mergers: Merger in front of each stage: ``grid``, ``conv``, ``laa`` or, on stage 4, ``sia``.
        query_mode: ``q`` or ``qkv``: how SIA uses cluster tokens; see `hafabench.config.catalog.ModelSpec`.
        fidelity: ``published_code`` or ``paper``: keys and values after SIA.
        num_classes: Outputs of the classifier; 0 for no classifier.
        in_chans: Channels of the image.
        global_pool: ``token``, ``avg`` or ``""``; by default ``avg`` with SIA, else ``token``.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth rate of the last block.
        img_size: Side in pixels of the square images that the position embeddings are made for; they are interpolated
            for other sizes.

    Raises:
        UserError: For a class token among cluster tokens, or an unknown pooling.
    """

    poolings = ("token", "avg", "")

    def __init__(
        self,
        dims: Dimensions,
        mergers: tuple[str, ...] = GRID_ONLY,
        query_mode: str = "q",
        fidelity: str = "published_code",
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        img_size: int = 224,
    ):
        clusters = mergers[3] == "sia"
        global_pool = ("avg" if clusters else "token") if global_pool is None else global_pool
        if clusters and global_pool == "token":
            raise UserError("global_pool='token' needs a class token, and cluster tokens have none; use 'avg'")
        super().__init__(dims.embed_dims, num_classes, in_chans, global_pool, drop_rate)
        self.clusters = clusters
        style = MergerStyle(kernel=2, padding=0, laa_kernel=2, laa_padding=0)
        key_values = key_value_source(mergers, query_mode, fidelity)
        in_dim, side = in_chans, img_size // 4
        for index, (kind, dim) in enumerate(zip(mergers, dims.embed_dims, strict=True)):
            if index == 0:
                merger: nn.Module = GridMerger(in_dim, dim, kernel=4, stride=4)
            else:
                merger = build_merger(kind, in_dim, dim, style, key_values)
                side = (side + 1) // 2 if kind == "conv" else side // 2
            stage = Stage(
                merger,
                stage_blocks(dims, index, "plain", drop_path_rate),
                dim,
                pos_grid=None if kind == "sia" else (side, side),
                cls_token=index == 3 and global_pool == "token",
            )
            self.add_module(f"stage{index + 1}", stage)
            in_dim = dim
        self.head_norm = nn.LayerNorm(in_dim, eps=1e-6)
        self.apply(_initialise)
        self.reset_classifier(num_classes)

    @property
    def norms_dense_output(self) -> bool:
        """Dense tasks use grids as they are, and cluster tokens after the last norm."""
        return self.clusters


def _initialise(module: nn.Module) -> None:
    # Convolutions and LayerNorms keep PyTorch's initialisation.
    if isinstance(module, nn.Linear):
        initialise_linear(module)
    elif isinstance(module, Stage):
        for parameter in (getattr(module, "pos_embed", None), module.cls_token):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)


def _build(
    spec: ModelSpec, depths: Sequence[int] | None = None, embed_dims: Sequence[int] | None = None, **kwargs: Any
) -> PyramidVisionTransformer:
    dims = ARCHITECTURES[spec.architecture].scaled(spec).resized(depths, embed_dims)
    return PyramidVisionTransformer(dims, spec.mergers, spec.query_mode, spec.fidelity, **kwargs)


FAMILY = ModelFamily(
    "pvt",
    own=OwnModels(_build, first_conv="stage1.merger.proj", classifier="head", dense=True),
    # A 512 -> 512 projection with bias (262,656), a norm (1,024) and, in the classifier only, a class token (512).
    dead_weights={"classification": 264_192, "segmentation": 263_680, "detection": 263_680},
)
default_cfgs = FAMILY.default_cfgs()


@register_model
def pvt_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Tiny."""
    return create("pvt_tiny", pretrained=pretrained, **kwargs)


@register_model
def pvt_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Small."""
    return create("pvt_small", pretrained=pretrained, **kwargs)


@register_model
def pvt_medium(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Medium."""
    return create("pvt_medium", pretrained=pretrained, **kwargs)


@register_model
def pvt_large(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Large."""
    return create("pvt_large", pretrained=pretrained, **kwargs)


@register_model
def pvt_tiny_hafa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Tiny with HAFA: LAA, LAA, SIA."""
    return create("pvt_tiny_hafa", pretrained=pretrained, **kwargs)


@register_model
def pvt_small_hafa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Small with HAFA: LAA, LAA, SIA."""
    return create("pvt_small_hafa", pretrained=pretrained, **kwargs)


@register_model
def pvt_medium_hafa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Medium with HAFA: LAA, LAA, SIA."""
    return create("pvt_medium_hafa", pretrained=pretrained, **kwargs)


@register_model
def pvt_large_hafa(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Large with HAFA: LAA, LAA, SIA."""
    return create("pvt_large_hafa", pretrained=pretrained, **kwargs)


@register_model
def pvt_tiny_hafa_qkv(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Tiny with HAFA, cluster tokens as queries, keys and values (Table 5)."""
    return create("pvt_tiny_hafa_qkv", pretrained=pretrained, **kwargs)


@register_model
def pvt_tiny_hafa_paper(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PVT-Tiny with HAFA, keys and values as in the text of the paper."""
    return create("pvt_tiny_hafa_paper", pretrained=pretrained, **kwargs)
