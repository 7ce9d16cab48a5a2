"""PVT-v2 with HAFA's and TCFormer's mergers. Without them PVT-v2 is timm's; this one equals it on the same weights.

Wang et al., *PVT v2: Improved Baselines with Pyramid Vision Transformer*, Computational Visual Media 2022,
https://arxiv.org/abs/2106.13797. Token stages: Zeng et al., *Not All Tokens Are Equal: Human-centric Visual Analysis
via Token Clustering Transformer*, CVPR 2022. Mergers: Chen, Liu, Yin and Fan, *Building Vision Transformers with
Hierarchy Aware Feature Aggregation*, ICCV 2023 (Tables 4 and 6, section 4.4).
"""

from __future__ import annotations

import math

from torch import nn

from hafabench.config.catalog import GRID_ONLY
from hafabench.errors import UserError
from hafabench.models.hafa.plugin import GridMerger, MergerStyle, build_merger, key_value_source
from hafabench.models.pyramid import Dimensions, PyramidTransformer, Stage, initialise_linear, stage_blocks

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
# LAA's window by its kernel: padding, and whether odd sizes need completing to equal the 3x3 grid merger's output.
_LAA_WINDOWS = {3: (1, False), 2: (0, True)}


class PyramidVisionTransformerV2(PyramidTransformer):
    """PVT-v2: overlapping patch embedding, no position embeddings, LayerNorm after every stage.

    Stages behind SIA work on tokens: their depthwise and reduction convolutions go token -> map -> token, and the
    first block adds the importance scores to its attention logits.

    Args:
        dims: of the four stages.
        mergers: in front of each stage: ``grid``, ``conv`` (the same here), ``laa`` or ``sia``.
        variant, fidelity: of SIA; see `hafabench.config.catalog.ModelSpec`.
        num_classes: of the classifier; 0 for none.
        in_chans: channels of the image.
        global_pool: ``avg`` or ``""``.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block.
        laa_kernel: side of LAA's window, 3 (padding 1; the published parameter count) or 2.

    Raises:
        UserError: for another pooling or window.
    """

    def __init__(
        self,
        dims: Dimensions,
        mergers: tuple[str, ...] = GRID_ONLY,
        variant: str = "q",
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
        super().__init__(dims, num_classes, in_chans, global_pool, drop_rate)
        laa_padding, laa_pad_odd = _LAA_WINDOWS[laa_kernel]
        style = MergerStyle(3, 1, laa_kernel, laa_padding, laa_pad_odd, score_in_attention=True)
        key_values = key_value_source(mergers, variant, fidelity)
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
        """Every stage ends with its norm; there is no other."""
        return True


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        initialise_linear(module)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
