"""DynamicViT on Swin-T: in stage 3, three predictors select the tokens that take the full feed-forward layer.

Rao et al., *Dynamic Spatial Sparsification for Efficient Vision Transformers and Convolutional Neural Networks*,
TPAMI 2023, https://arxiv.org/abs/2207.01580. HAFA's Table 6 compares with a keep rate of 0.25, for which no weights
are published. The paper's "25% within each stage" is interpreted as the same rate after all three predictors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from timm.models import register_model
from timm.models._features import feature_take_indices
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

from hafabench.config.catalog import ModelSpec
from hafabench.config.keep_rates import KeepRates, tokens_to_keep
from hafabench.errors import UserError
from hafabench.models.pyramid import check_input
from hafabench.models.registry import ModelFamily, OwnModels, create
from hafabench.models.swin import ANY_IMAGE_SIZE, scaled_arguments
from hafabench.models.swin import ARCHITECTURES as SWIN_ARCHITECTURES
from hafabench.models.token_pruning import KeepPredictor, Masked, check_rates, initialise, ranked, sample, take

ARCHITECTURES: dict[str, dict[str, Any]] = {"dynamic_swin_tiny": SWIN_ARCHITECTURES["swin_tiny_patch4_window7_224"]}
STAGE = 2
"""Index of the stage with predictors."""


class DynamicSwin(SwinTransformer):
    """timm's Swin in whose third stage most tokens skip the full feed-forward layer.

    Block 0 of the stage is Swin's own. There are predictors in front of the blocks 1, 2 and 3, and the decision of
    the last one applies until the end of the stage. Window attention processes all tokens. After it, kept tokens take
    the *slow path*, the block's own norm and feed-forward layer. The others take the *fast path*, a norm and one
    linear layer. Each predictor ranks all tokens.

    Args:
        keep: Shares of the stage's tokens on the slow path after each predictor.
        **kwargs: Arguments of timm's `SwinTransformer`.

    Raises:
        UserError: For keep rates outside [0, 1], or a third stage of fewer than four blocks.
    """

    def __init__(self, keep: KeepRates, **kwargs: Any):
        rates = check_rates(keep)
        super().__init__(**{"drop_path_rate": 0.0, **ANY_IMAGE_SIZE, **kwargs})
        self.keep = rates
        blocks, dim = self._pruned_stage_blocks(), self.feature_info[STAGE]["num_chs"]
        if len(blocks) <= len(rates):
            raise UserError(f"token pruning: {len(blocks)} blocks in stage 3, expected {len(rates) + 1} or more")
        self.predictors = nn.ModuleList(KeepPredictor(dim) for _ in rates)
        self.fast_paths = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim)) for _ in blocks[1:])
        for module in self.new_modules():
            initialise(module)

    def new_modules(self) -> list[nn.Module]:
        """Return the modules that Swin does not have."""
        return [self.predictors, self.fast_paths]

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, in_chans, H, W) to the last stage's map (B, h, w, C) after the last norm."""
        return self.norm(self._run_stages(x, self._ranked_stage)[-1])

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
            norm: Apply the last norm to the last stage.
            stop_early: Do not run the stages after the last one that is returned.
            output_fmt: ``NCHW``.
            intermediates_only: Return only the maps.

        Returns:
            The output of `forward_features`, or of the last stage that was run, and the maps (B, C_i, h_i, w_i).
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output format {output_fmt!r} is not supported; expected 'NCHW'")
        selected, last = feature_take_indices(len(self.layers), indices)
        stages = self._run_stages(x, self._ranked_stage, last + 1 if stop_early else None)
        final = self.norm(stages[-1]) if len(stages) == len(self.feature_info) else stages[-1]
        if norm and len(stages) == len(self.feature_info):
            stages[-1] = final
        maps = [stages[index].permute(0, 3, 1, 2).contiguous() for index in selected]
        return maps if intermediates_only else (final, maps)

    def forward_masked(self, x: torch.Tensor) -> Masked:
        """Run the training pass. ``tokens`` are the last stage's map after the last norm."""
        decisions: list[torch.Tensor] = []
        features = self.norm(self._run_stages(x, partial(self._masked_stage, decisions=decisions))[-1])
        return Masked(self.forward_head(features), features, tuple(decisions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, in_chans, H, W) to logits (B, classes)."""
        return self.forward_masked(x).logits if self.training else self.forward_head(self.forward_features(x))

    def _run_stages(
        self, x: torch.Tensor, run_pruned_stage: Callable[[torch.Tensor], torch.Tensor], stop: int | None = None
    ) -> list[torch.Tensor]:
        """Map images to the maps (B, h_i, w_i, C_i) of the stages, or of the first ``stop`` stages."""
        check_input(x)
        x, outputs = self.patch_embed(x), []
        for index, stage in enumerate(self.layers[:stop]):
            if index == STAGE:
                first = self._pruned_stage_blocks()[0]
                x = run_pruned_stage(self._run(first, cast(nn.Module, stage.downsample)(x)))
            else:
                x = stage(x)
            outputs.append(x)
        return outputs

    def _pruned_stage_blocks(self) -> nn.Sequential:
        return cast(nn.Sequential, self.layers[STAGE].blocks)

    def _pruned_blocks(self) -> Iterator[tuple[SwinTransformerBlock, nn.Module, int | None]]:
        """Yield the blocks from 1 on, with their fast paths and the number of the predictor in front, if any."""
        for index, (block, fast) in enumerate(zip(self._pruned_stage_blocks()[1:], self.fast_paths, strict=True)):
            yield cast(SwinTransformerBlock, block), fast, index if index < len(self.predictors) else None

    def _run(self, function: Callable[..., Any], *inputs: torch.Tensor | None) -> Any:
        """Call a part of the pruned stage; with gradient checkpointing it is recomputed in the backward pass."""
        if self.layers[STAGE].grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *inputs, use_reentrant=False)
        return function(*inputs)

    def _ranked_stage(self, x: torch.Tensor) -> torch.Tensor:
        """Run the stage in evaluation: the tokens of highest probability take the slow path."""
        order, slow_tokens = x.new_zeros(0, dtype=torch.long), 0
        for block, fast, number in self._pruned_blocks():
            if number is not None:
                tokens = x.flatten(1, 2)
                order = ranked(self.predictors[number](tokens))
                slow_tokens = tokens_to_keep(self.keep[number], tokens.shape[1])
            x = self._run(partial(_two_paths, block, fast, slow_tokens), x, order)
        return x

    def _masked_stage(self, x: torch.Tensor, decisions: list[torch.Tensor]) -> torch.Tensor:
        """Run the stage in training: two streams compute both paths of every token, and the mask selects one.

        A token that changes its path continues from the features that the other stream has at its position, as in the
        published training.
        """
        slow = fast = x
        mask: torch.Tensor | None = None
        for block, fast_path, number in self._pruned_blocks():
            if number is not None:
                tokens = _merge(slow, fast, mask).flatten(1, 2)
                decisions.append(sample(self.predictors[number](tokens)))
                mask = decisions[-1].unflatten(1, x.shape[1:3])[..., None]
            slow, fast = self._run(partial(_two_streams, block, fast_path), slow, fast, mask)
        return _merge(slow, fast, mask)


def _attend(block: SwinTransformerBlock, x: torch.Tensor) -> torch.Tensor:
    """Run the attention half of timm's block on a map (B, H, W, C)."""
    return x + block.drop_path1(block._attn(block.norm1(x)))


def _two_paths(
    block: SwinTransformerBlock, fast: nn.Module, slow_tokens: int, x: torch.Tensor, order: torch.Tensor
) -> torch.Tensor:
    """Run a block on a map (B, H, W, C); the first ``slow_tokens`` tokens in ``order`` (B, N) take the slow path."""
    grid = x.shape[1:3]
    x = _attend(block, x).flatten(1, 2)
    slow, rest = order[:, :slow_tokens], order[:, slow_tokens:]
    change = torch.cat((block.mlp(block.norm2(take(x, slow))), fast(take(x, rest))), dim=1)
    return (x + take(change, order.argsort(dim=1))).unflatten(1, grid)


def _two_streams(
    block: SwinTransformerBlock,
    fast_path: nn.Module,
    slow: torch.Tensor,
    fast: torch.Tensor,
    mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a block on both maps (B, H, W, C); the mask (B, H, W, 1) is 1 for tokens on the slow path."""
    x = _attend(block, _merge(slow, fast, mask))
    slow, fast = _merge(x, slow, mask), _merge(fast, x, mask)
    slow = slow + block.drop_path2(block.mlp(block.norm2(slow)))
    return slow, fast + block.drop_path2(fast_path(fast))


def _merge(kept_tokens: torch.Tensor, others: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return kept_tokens
    # The mask is float32 in models of half precision too.
    return (kept_tokens * mask + others * (1 - mask)).to(kept_tokens.dtype)


def _build(spec: ModelSpec, **kwargs: Any) -> DynamicSwin:
    return DynamicSwin(spec.keep or (), **{**scaled_arguments(ARCHITECTURES[spec.architecture], spec), **kwargs})


FAMILY = ModelFamily(
    "dynamic_swin",
    own=OwnModels(_build, first_conv="patch_embed.proj", classifier="head.fc", pool_size=(7, 7), drops_tokens=True),
    img_size_from_recipe=True,
)
default_cfgs = FAMILY.default_cfgs()


@register_model
def dynamic_swin_tiny_0_25(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Dynamic-Swin-T with keep rate 0.25, ``dynamic_swin_tiny_0.25`` in the catalog."""
    return create("dynamic_swin_tiny_0.25", pretrained=pretrained, **kwargs)
