"""The kinds of parameters and operations that a counting convention may name, and the parts of a model."""

from __future__ import annotations

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
