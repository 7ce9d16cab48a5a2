"""DynamicViT on LV-ViT-S: three predictors drop patch tokens between the blocks.

Rao et al., *DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification*, NeurIPS 2021,
https://arxiv.org/abs/2106.02034. HAFA's Table 6 compares with keep rate 0.5.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import register_model
from timm.models._features import feature_take_indices
from torch import nn
from torch.utils.checkpoint import checkpoint

from hafabench.config.catalog import ModelSpec
from hafabench.config.keep_rates import KeepRates, tokens_to_keep
from hafabench.errors import UserError
from hafabench.models.lvvit import ARCHITECTURES as LVVIT_ARCHITECTURES
from hafabench.models.lvvit import LVViT, scaled_arguments
from hafabench.models.registry import ModelFamily, OwnModels, create
from hafabench.models.token_pruning import KeepPredictor, Masked, check_rates, initialise, ranked, sample, take

ARCHITECTURES: dict[str, dict[str, Any]] = {"dynamicvit_lvs": LVVIT_ARCHITECTURES["lvvit_small"]}


class DynamicViT(LVViT):
    """LV-ViT that drops patch tokens before blocks 4, 8 and 12 of 16 (after every quarter of the depth).

    In evaluation only the tokens with the highest probability of being kept are processed further. In training all
    tokens are processed, and sampled masks exclude dropped tokens from the attention of other tokens.

    Args:
        keep: Shares of the image's patch tokens that are kept after each predictor.
        **kwargs: Arguments of timm's `VisionTransformer`.

    Raises:
        UserError: For keep rates outside (0, 1], or fewer than four blocks.
    """

    def __init__(self, keep: KeepRates, **kwargs: Any):
        rates = check_rates(keep)
        if min(rates) == 0:
            raise UserError("token pruning: LV-ViT's token classifier needs a token; expected rates above 0")
        super().__init__(**kwargs)
        self.keep = rates
        quarter = len(self.blocks) // (len(rates) + 1)
        if not quarter:
            raise UserError(f"token pruning: {len(self.blocks)} blocks, expected four or more")
        # The number of the predictor in front of each block that has one, by the index of the block.
        self._predictor_at = {quarter * (number + 1): number for number in range(len(self.keep))}
        self.predictors = nn.ModuleList(KeepPredictor(self.embed_dim) for _ in self.keep)
        initialise(self.predictors)

    def new_modules(self) -> list[nn.Module]:
        """Return the modules that LV-ViT does not have."""
        return [self.predictors]

    def forward_features(  # type: ignore[override]  # timm's attention masks are not supported
        self, x: torch.Tensor
    ) -> torch.Tensor:
        """Map images (B, in_chans, H, W) to the class token and the kept tokens (B, 1 + k, C) after the last norm."""
        x = self.embed(x)
        tokens = x.shape[1] - 1
        for index in range(len(self.blocks)):
            x = self._run_block(index, self._drop_tokens(index, x, tokens)[0])
        return self.norm(x)

    def forward_intermediates(  # type: ignore[override]  # timm's attention masks and dictionaries are not supported
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """Implement timm's interface to feature maps. Dropped tokens keep the features that they were dropped with.

        Args:
            x: Image (B, in_chans, H, W).
            indices: Blocks to return: all, the last n, or a list.
            norm: Apply the last norm to all maps.
            stop_early: Do not run the blocks after the last one that is returned.
            output_fmt: ``NCHW``.
            intermediates_only: Return only the maps.

        Returns:
            The output of `forward_features`, of the blocks that were run, and the maps (B, C, H/16, W/16).
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output format {output_fmt!r} is not supported; expected 'NCHW'")
        selected, last = feature_take_indices(len(self.blocks), indices)
        grid = self.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1]))
        x = self.embed(x)
        everything = x[:, 1:]
        tokens = everything.shape[1]
        positions = torch.arange(tokens, device=x.device).expand(x.shape[0], -1)
        maps = []
        for index in range(last + 1 if stop_early else len(self.blocks)):
            x, order = self._drop_tokens(index, x, tokens)
            if order is not None:
                positions = positions.gather(1, order)
            x = self._run_block(index, x)
            everything = everything.scatter(1, positions[..., None].expand(-1, -1, self.embed_dim), x[:, 1:])
            if index in selected:
                features = self.norm(everything) if norm else everything
                maps.append(features.transpose(1, 2).unflatten(2, grid).contiguous())
        return maps if intermediates_only else (self.norm(x), maps)

    def forward_masked(self, x: torch.Tensor) -> Masked:
        """Run the training pass. ``tokens`` are the logits of all patch tokens, including dropped ones."""
        x, decisions = self._masked_features(x)
        logits, token_logits = self.classify(x)
        return Masked(logits, token_logits, decisions)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # as for `forward_features`
        """Map images (B, in_chans, H, W) to logits (B, classes)."""
        features = self._masked_features(x)[0] if self.training else self.forward_features(x)
        return self.forward_head(features)

    def _drop_tokens(self, index: int, x: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the tokens (B, 1 + k, C) for a block, and the indices (B, k) of the kept ones if any are dropped."""
        number = self._predictor_at.get(index)
        if number is None:
            return x, None
        patches = x[:, 1:]
        order = ranked(self.predictors[number](patches))[:, : tokens_to_keep(self.keep[number], tokens)]
        return torch.cat((x[:, :1], take(patches, order)), dim=1), order

    def _run_block(self, index: int, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        block = self.blocks[index]
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, keep, use_reentrant=False)
        return block(x, keep)

    def _masked_features(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        x = self.embed(x)
        present = x.new_ones(x.shape[0], x.shape[1] - 1, dtype=torch.float32)
        class_token = present[:, :1]
        keep, decisions = None, []
        for index in range(len(self.blocks)):
            if (number := self._predictor_at.get(index)) is not None:
                present = sample(self.predictors[number](x[:, 1:], present)) * present
                decisions.append(present)
                keep = torch.cat((class_token, present), dim=1)
            x = self._run_block(index, x, keep)
        return self.norm(x), tuple(decisions)


def _build(spec: ModelSpec, **kwargs: Any) -> DynamicViT:
    return DynamicViT(spec.keep or (), **{**scaled_arguments(ARCHITECTURES[spec.architecture], spec), **kwargs})


FAMILY = ModelFamily(
    "dynamicvit",
    own=OwnModels(_build, first_conv="patch_embed.backbone.0", classifier=("head", "aux_head"), drops_tokens=True),
)
default_cfgs = FAMILY.default_cfgs()


@register_model
def dynamicvit_lvs_0_5(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DynamicViT-LV-S with keep rate 0.5, ``dynamicvit_lvs_0.5`` in the catalog."""
    return create("dynamicvit_lvs_0.5", pretrained=pretrained, **kwargs)
