"""DynamicViT on LV-ViT-S: three predictors drop patch tokens along the way.

Rao et al., *DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification*, NeurIPS 2021,
https://arxiv.org/abs/2106.02034. HAFA's Table 6 compares with its keep rate 0.5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hafabench.config.keep_rates import KeepRates, kept
from hafabench.errors import UserError
from hafabench.models.lvvit import ARCHITECTURES as BASES
from hafabench.models.lvvit import LVViT
from hafabench.models.token_pruning import KeepPredictor, Masked, check_rates, initialise, ranked, sample, take

ARCHITECTURES: dict[str, dict[str, Any]] = {"dynamicvit_lvs": BASES["lvvit_small"]}


class DynamicViT(LVViT):
    """LV-ViT whose patch tokens thin out before blocks 4, 8 and 12 of 16 (every quarter of the depth).

    In evaluation the tokens with the highest probability of being kept go on and the others are gone. In training
    all of them stay, and masks that were drawn keep the dropped ones out of the others' attention.

    Args:
        keep: shares of the image's patch tokens left behind each predictor.
        kwargs: of timm's `VisionTransformer`.

    Raises:
        UserError: for rates that are no shares above zero, or fewer than four blocks.
    """

    def __init__(self, keep: KeepRates, **kwargs: Any):
        rates = check_rates(keep)
        if min(rates) == 0:
            raise UserError("token keeping: the token classifier of LV-ViT needs a token; expected rates above 0")
        super().__init__(**kwargs)
        self.keep = rates
        quarter = len(self.blocks) // (len(rates) + 1)
        if not quarter:
            raise UserError(f"token keeping: {len(self.blocks)} blocks, expected four or more")
        # Blocks that a predictor stands before, and its number.
        self._predictor_at = {quarter * (number + 1): number for number in range(len(self.keep))}
        self.predictors = nn.ModuleList(KeepPredictor(self.embed_dim) for _ in self.keep)
        initialise(self.predictors)

    def new_modules(self) -> list[nn.Module]:
        """The modules that LV-ViT does not have."""
        return [self.predictors]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refused, as is `forward_intermediates`: a pass with fewer and fewer tokens is not taken apart."""
        if enable:
            raise UserError("DynamicViT has no gradient checkpointing")

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: the tokens that are left form no map."""
        raise UserError("DynamicViT gives no feature maps: the tokens that are left form none")

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to the class token and the tokens left (B, 1 + k, C) after the last norm."""
        x = self.embed(x)
        tokens = x.shape[1] - 1
        for index, block in enumerate(self.blocks):
            if (number := self._predictor_at.get(index)) is not None:
                patches = x[:, 1:]
                order = ranked(self.predictors[number](patches))[:, : kept(self.keep[number], tokens)]
                x = torch.cat((x[:, :1], take(patches, order)), dim=1)
            x = block(x)
        return self.norm(x)

    def forward_masked(self, x: torch.Tensor) -> Masked:
        """The training pass; ``tokens`` are the patch tokens' logits, dropped ones included."""
        x, decisions = self._masked_features(x)
        logits, token_logits = self.classify(x)
        return Masked(logits, token_logits, decisions)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Image (B, in_chans, H, W) to logits (B, classes)."""
        features = self._masked_features(x)[0] if self.training else self.forward_features(x)
        return self.forward_head(features)

    def _masked_features(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        x = self.embed(x)
        present = x.new_ones(x.shape[0], x.shape[1] - 1, dtype=torch.float32)
        class_token = present[:, :1]
        keep, decisions = None, []
        for index, block in enumerate(self.blocks):
            if (number := self._predictor_at.get(index)) is not None:
                present = sample(self.predictors[number](x[:, 1:], present)) * present
                decisions.append(present)
                keep = torch.cat((class_token, present), dim=1)
            x = block(x, keep)
        return self.norm(x), tuple(decisions)
