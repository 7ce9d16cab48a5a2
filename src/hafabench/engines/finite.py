"""Outputs that are not finite. Finite weights can be so large that a model still computes NaN from them.

Without a check, NaN would become a number: the largest of the class scores, no detection, or the first class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from hafabench.errors import UserError

# The parts of dense models whose outputs predictions are made of; mmseg does not call its decode heads as modules.
DENSE_PARTS = ("backbone", "neck", "decode_head.conv_seg", "rpn_head", "roi_head.bbox_head", "roi_head.mask_head")


@contextmanager
def finite_outputs(model: nn.Module, *parts: str) -> Iterator[None]:
    """Check the outputs of a model in this context.

    Args:
        model: The model.
        parts: Names of its modules whose outputs are checked; those that it does not have are left out. Without
            names, the outputs of the model itself are checked.

    Raises:
        UserError: In the forward pass, if a value is NaN or infinite.
    """
    modules = dict(model.named_modules())
    handles = [
        modules[part].register_forward_hook(lambda _module, _input, output, part=part: _check(output, part))
        for part in parts or ("",)
        if part in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(output: Any, part: str) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in _tensors(output) if tensor.is_floating_point()):
        what = f"the outputs of {part}" if part else "the outputs of the model"
        raise UserError(
            f"{what} are not finite (NaN or infinity), although all weights are; the training has diverged: train "
            "again with a lower lr or a clipped gradient (clip_grad)"
        )


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from _tensors(item)
    elif is_dataclass(output):
        yield from _tensors([getattr(output, field.name) for field in fields(output)])
