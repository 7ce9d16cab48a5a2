"""DynamicViT on Swin-T: in stage 3 three predictors send tokens through a cheaper feed-forward path.

Rao et al., *Dynamic Spatial Sparsification for Efficient Vision Transformers and Convolutional Neural Networks*,
TPAMI 2023, https://arxiv.org/abs/2207.01580. HAFA's Table 6 compares with a keep rate of 0.25, for which nothing is
published: its wording, "25% within each stage", is read as the same rate behind all three predictors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn

from hafabench.config.keep_rates import KeepRates, kept
from hafabench.errors import UserError
from hafabench.models.pyramid import check_input
from hafabench.models.swin import ARCHITECTURES as BASES
from hafabench.models.token_pruning import KeepPredictor, Masked, check_rates, initialise, ranked, sample, take

ARCHITECTURES: dict[str, dict[str, Any]] = {"dynamic_swin_tiny": BASES["swin_tiny_patch4_window7_224"]}
STAGE = 2


class DynamicSwin(SwinTransformer):
    """timm's Swin whose third stage spares most tokens the full feed-forward.

    Block 0 of the stage is Swin's own. Predictors stand before blocks 1, 2 and 3; what the last one says holds to the
    stage's end. Window attention stays dense. Behind it, tokens kept take the block's own norm and feed-forward, the
    slow path, the others a norm and one linear layer, the fast path; each predictor ranks all tokens anew.

    Args:
        keep: shares of the stage's tokens on the slow path behind each predictor.
        kwargs: of timm's `SwinTransformer`.

    Raises:
        UserError: for rates that are no shares, or a third stage of fewer than four blocks.
    """

    def __init__(self, keep: KeepRates, **kwargs: Any):
        rates = check_rates(keep)
        kwargs.setdefault("drop_path_rate", 0.0)
        kwargs.setdefault("strict_img_size", False)
        kwargs.setdefault("embed_layer", partial(PatchEmbed, dynamic_img_pad=True))
        super().__init__(**kwargs)
        self.keep = rates
        blocks, dim = self.layers[STAGE].blocks, self.feature_info[STAGE]["num_chs"]
        if len(blocks) <= len(rates):
            raise UserError(f"token keeping: {len(blocks)} blocks in stage 3, expected {len(rates) + 1} or more")
        self.predictors = nn.ModuleList(KeepPredictor(dim) for _ in rates)
        self.fast_paths = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim)) for _ in blocks[1:])
        for module in self.new_modules():
            initialise(module)

    def new_modules(self) -> list[nn.Module]:
        """The modules that Swin does not have."""
        return [self.predictors, self.fast_paths]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refused, as is `forward_intermediates`: the third stage does not run as one."""
        if enable:
            raise UserError("Dynamic-Swin has no gradient checkpointing")

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: the paper uses this model for classification only."""
        raise UserError("Dynamic-Swin is a classifier here; it gives no feature maps")

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to the last stage's map (B, h, w, C) after the last norm."""
        return self._around_stage(x, self._ranked_stage)

    def forward_masked(self, x: torch.Tensor) -> Masked:
        """The training pass; ``tokens`` are the last stage's map after the last norm."""
        decisions: list[torch.Tensor] = []
        features = self._around_stage(x, partial(self._masked_stage, decisions=decisions))
        return Masked(self.forward_head(features), features, tuple(decisions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to logits (B, classes)."""
        return self.forward_masked(x).logits if self.training else self.forward_head(self.forward_features(x))

    def _around_stage(self, x: torch.Tensor, run_stage: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        check_input(x)
        x = self.patch_embed(x)
        for index, stage in enumerate(self.layers):
            x = run_stage(stage.blocks[0](stage.downsample(x))) if index == STAGE else stage(x)
        return self.norm(x)

    def _pruned_blocks(self) -> Iterator[tuple[SwinTransformerBlock, nn.Module, int | None]]:
        """Blocks from 1 on with their fast paths, and the number of the predictor before them."""
        for index, (block, fast) in enumerate(zip(self.layers[STAGE].blocks[1:], self.fast_paths, strict=True)):
            yield block, fast, index if index < len(self.predictors) else None

    def _ranked_stage(self, x: torch.Tensor) -> torch.Tensor:
        grid = x.shape[1:3]
        order, slow_tokens = None, 0
        for block, fast, number in self._pruned_blocks():
            if number is not None:
                tokens = x.flatten(1, 2)
                order = ranked(self.predictors[number](tokens))
                slow_tokens = kept(self.keep[number], tokens.shape[1])
            x = _attend(block, x).flatten(1, 2)
            slow, quick = order[:, :slow_tokens], order[:, slow_tokens:]
            change = torch.cat((block.mlp(block.norm2(take(x, slow))), fast(take(x, quick))), dim=1)
            x = (x + take(change, order.argsort(dim=1))).unflatten(1, grid)
        return x

    def _masked_stage(self, x: torch.Tensor, decisions: list[torch.Tensor]) -> torch.Tensor:
        """Both paths for every token: two streams, of which the mask takes one at each token.

        A token that changes its path goes on from what the stream it joins holds there, as in the published training.
        """
        slow = quick = x
        mask = None
        for block, fast, number in self._pruned_blocks():
            if number is not None:
                tokens = _merge(slow, quick, mask).flatten(1, 2)
                decisions.append(sample(self.predictors[number](tokens)))
                mask = decisions[-1].unflatten(1, x.shape[1:3])[..., None]
            x = _attend(block, _merge(slow, quick, mask))
            slow, quick = _merge(x, slow, mask), _merge(quick, x, mask)
            slow = x + block.drop_path2(block.mlp(block.norm2(slow)))
            quick = x + block.drop_path2(fast(quick))
        return _merge(slow, quick, mask)


def _attend(block: SwinTransformerBlock, x: torch.Tensor) -> torch.Tensor:
    """The attention half of timm's block, on a map (B, H, W, C)."""
    return x + block.drop_path1(block._attn(block.norm1(x)))


def _merge(kept_tokens: torch.Tensor, others: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return kept_tokens if mask is None else kept_tokens * mask + others * (1 - mask)
