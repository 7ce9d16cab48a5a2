"""Token pruning: the predictor that scores tokens, and differentiable decisions to keep or drop them.

Rao et al., *DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification*, NeurIPS 2021,
https://arxiv.org/abs/2106.02034; on Swin in *Dynamic Spatial Sparsification*, https://arxiv.org/abs/2207.01580.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from hafabench.config.keep_rates import KeepRates, keep_rates_problem
from hafabench.errors import UserError
from hafabench.models.precision import SingleLayerNorm, SingleLinear
from hafabench.models.pyramid import initialise_linear


class Masked(NamedTuple):
    """Outputs of a training pass, in which masks replace the dropping of tokens.

    Attributes:
        logits: Logits (B, classes) of the class token or of the pooled tokens.
        tokens: Values that the token loss compares with the teacher's: logits per token (B, N, classes) or features
            (B, H, W, C).
        decisions: One (B, N) per predictor, 1 for kept and 0 for dropped tokens; differentiable.
    """

    logits: torch.Tensor
    tokens: torch.Tensor
    decisions: tuple[torch.Tensor, ...]


class KeepPredictor(nn.Module):
    """Predicts for each token the log-probabilities of keeping and dropping it, from the token and the mean of all.

    It computes in at least single precision (see `hafabench.models.precision`): half precision would exchange tokens
    of similar probability, so that training and evaluation would keep different ones.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = SingleLayerNorm(dim)
        self.embed = SingleLinear(dim, dim)
        self.fc1 = SingleLinear(dim, dim // 2)
        self.fc2 = SingleLinear(dim // 2, dim // 4)
        self.fc3 = SingleLinear(dim // 4, 2)

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Map tokens (B, N, C) to log-probabilities (B, N, 2) in float32, or in float64 for float64 tokens.

        Args:
            x: Tokens (B, N, C).
            present: Mask (B, N) of the tokens that enter the mean; None for all.
        """
        x = F.gelu(self.embed(self.norm(x)))
        own, shared = x.chunk(2, dim=-1)
        if present is None:
            mean = shared.mean(dim=1, keepdim=True)
        else:
            # The mean is zero for a sample that has no tokens left.
            mean = (shared * present[..., None]).sum(1, keepdim=True) / present.sum(1).clamp(min=1)[:, None, None]
        x = torch.cat((own, mean.expand_as(shared)), dim=-1)
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x))))).log_softmax(dim=-1)


def sample(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Sample decisions (B, N), 0 or 1, from (B, N, 2) by the straight-through Gumbel-softmax at temperature 1."""
    return F.gumbel_softmax(log_probabilities, tau=1.0, hard=True, dim=-1)[..., 0]


def ranked(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Return the indices (B, N) of tokens by descending keep probability; ties are resolved by the lower index."""
    return log_probabilities[..., 0].argsort(dim=1, descending=True, stable=True)


def take(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return the tokens (B, k, C) of ``x`` (B, N, C) at ``indices`` (B, k)."""
    return x.gather(1, indices[..., None].expand(-1, -1, x.shape[-1]))


def check_rates(rates: KeepRates) -> KeepRates:
    """Check keep rates and return them as a tuple.

    Raises:
        UserError: If they are not three shares between 0 and 1.
    """
    rates = tuple(rates)
    if problem := keep_rates_problem(rates):
        raise UserError(f"token pruning: {problem}")
    return rates


def initialise(parts: nn.Module) -> None:
    """Initialise every linear layer of ``parts`` as in the models that they are added to."""
    for module in parts.modules():
        if isinstance(module, nn.Linear):
            initialise_linear(module)
