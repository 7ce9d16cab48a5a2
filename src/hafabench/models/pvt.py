"""PVT: Pyramid Vision Transformer, with HAFA's mergers.

Wang et al., *Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions*, ICCV 2021,
https://arxiv.org/abs/2102.12122. With mergers: Chen, Liu, Yin and Fan, *Building Vision Transformers with Hierarchy
Aware Feature Aggregation*, ICCV 2023.
"""

from __future__ import annotations

from torch import nn

from hafabench.config.catalog import GRID_ONLY
from hafabench.errors import UserError
from hafabench.models.hafa.plugin import GridMerger, MergerStyle, build_merger, key_value_source
from hafabench.models.pyramid import Dimensions, PyramidTransformer, Stage, initialise_linear, stage_blocks

_WIDTHS = {"embed_dims": (64, 128, 320, 512), "num_heads": (1, 2, 5, 8), "mlp_ratios": (8, 8, 4, 4)}
ARCHITECTURES = {
    "pvt_tiny": Dimensions((2, 2, 2, 2), **_WIDTHS),
    "pvt_small": Dimensions((3, 4, 6, 3), **_WIDTHS),
    "pvt_medium": Dimensions((3, 4, 18, 3), **_WIDTHS),
    "pvt_large": Dimensions((3, 8, 27, 3), **_WIDTHS),
}


class PyramidVisionTransformer(PyramidTransformer):
    """PVT v1.

    Stages are (merger, learned positions, blocks). With a grid or LAA before stage 4 a class token joins there and is
    classified; cluster tokens (SIA) need none: they are averaged, and have no positions.

    Args:
        dims: of the four stages.
        mergers: in front of each stage: ``grid``, ``conv``, ``laa`` or, on stage 4, ``sia``.
        variant, fidelity: of SIA; see `hafabench.config.catalog.ModelSpec`.
        num_classes: of the classifier; 0 for none.
        in_chans: channels of the image.
        global_pool: ``token``, ``avg`` or ``""``; by default ``avg`` with SIA, else ``token``.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block.
        img_size: side of the square images for which position embeddings are made; others are interpolated.

    Raises:
        UserError: for a class token among cluster tokens, or an unknown pooling.
    """

    poolings = ("token", "avg", "")

    def __init__(
        self,
        dims: Dimensions,
        mergers: tuple[str, ...] = GRID_ONLY,
        variant: str = "q",
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
            raise UserError(
                "global_pool='token' needs a class token, which has no place among cluster tokens; use 'avg'"
            )
        super().__init__(dims, num_classes, in_chans, global_pool, drop_rate)
        self.clusters = clusters
        style = MergerStyle(kernel=2, padding=0, laa_kernel=2, laa_padding=0)
        key_values = key_value_source(mergers, variant, fidelity)
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
        """Grids are taken as they are, cluster tokens after the last norm."""
        return self.clusters


def _initialise(module: nn.Module) -> None:
    # Convolutions keep PyTorch's default, LayerNorm's is 1 and 0 already.
    if isinstance(module, nn.Linear):
        initialise_linear(module)
    elif isinstance(module, Stage):
        for parameter in (getattr(module, "pos_embed", None), module.cls_token):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
