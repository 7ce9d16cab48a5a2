"""What a model's parameters and operations are taken apart into: names and plain data, no torch.

A `Decomposition` is made by `hafabench.measure.decomposition`; `hafabench.measure.conventions` adds it up again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

BIAS = "_bias"
"""Suffix of the additions of a bias: one per output element of ``convolution``, ``linear`` ..."""

MULTIPLICATIONS: tuple[str, ...] = (
    "convolution",
    "depthwise",
    "offset",
    "deformable",
    "token_convolution",
    "linear",
    "attention",
)
"""Kinds whose counts are multiply-accumulates, as `hafabench.measure.complexity` counts them."""

ADDITIONS: tuple[str, ...] = tuple(f"{kind}{BIAS}" for kind in MULTIPLICATIONS if kind != "attention")
"""Biases added, in elements of the output."""

ELEMENTWISE: tuple[str, ...] = (
    "batch_norm",
    "layer_norm",
    "group_norm",
    "pooling",
    "relu",
    "gelu",
    "softmax",
    "upsampling",
)
"""Counted in elements: of the input for norms and pooling, of the output for the others."""

OPERATIONS = (*MULTIPLICATIONS, *ADDITIONS, *ELEMENTWISE)
PARAMETERS: tuple[str, ...] = (*(kind for kind in MULTIPLICATIONS if kind != "attention"), "norm", "bias", "other")
"""Kinds of parameters: weights by the operation they serve; norms' weights and biases; other biases; and what is of
no such module: class tokens, position embeddings and tables."""

BUFFERS = "statistics"
"""Kind of the running means and variances of batch norms, which are no parameters."""

PARTS: tuple[str, ...] = ("backbone", "predictors", "neck", "head")
"""``head`` is the classifier, or Semantic FPN's or Mask R-CNN's head; ``predictors`` decide which tokens to keep."""


@dataclass(frozen=True)
class Amount:
    """So much of one kind in one part.

    Attributes:
        part: one of `PARTS`.
        kind: one of `PARAMETERS`, `BUFFERS` or `OPERATIONS`.
        count: parameters, multiply-accumulates, additions or elements.
        trainable: False for frozen parameters.
    """

    part: str
    kind: str
    count: int
    trainable: bool = True


@dataclass(frozen=True)
class Decomposition:
    """A model's parameters (buffers among them) and its operations on one image; no pair of part and kind twice."""

    parameters: tuple[Amount, ...]
    operations: tuple[Amount, ...] = ()

    @property
    def params(self) -> int:
        """All parameters, as `hafabench.measure.complexity` counts them."""
        return total(self.parameters, PARAMETERS)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, as `hafabench.measure.complexity` counts them."""
        return total(self.operations, MULTIPLICATIONS)


def total(amounts: Collection[Amount], kinds: Collection[str], parts: Collection[str] = PARTS) -> int:
    """Sum of the counts of the given kinds in the given parts."""
    return sum(amount.count for amount in amounts if amount.kind in kinds and amount.part in parts)
