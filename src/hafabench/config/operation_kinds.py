"""The kinds of parameters and operations, and the parts of a model, that a convention counts or leaves out."""

from __future__ import annotations

from typing import Literal, get_args

BIAS = "_bias"
"""Suffix of the kinds that count the additions of a bias: ``convolution_bias``, ``linear_bias``."""

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
"""Kinds of additions of a bias. One addition is counted per element of the output."""

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
"""Kinds counted in elements: those of the input for norms and pooling, and those of the output for the others."""

OPERATIONS = (*MULTIPLICATIONS, *ADDITIONS, *ELEMENTWISE)
PARAMETERS: tuple[str, ...] = (*(kind for kind in MULTIPLICATIONS if kind != "attention"), "norm", "bias", "other")
"""Kinds of parameters: weights by their operation, ``norm`` (weights and biases of norms), ``bias`` (other biases)
and ``other`` (class tokens, position embeddings and position tables)."""

BUFFERS = "statistics"
"""Kind of the running means and variances of batch norms, which are buffers and not parameters."""

Part = Literal["backbone", "predictors", "neck", "head"]
"""Part of a model. ``head`` is the classifier or a dense head; ``predictors`` choose the tokens to keep."""
PARTS: tuple[Part, ...] = get_args(Part)
