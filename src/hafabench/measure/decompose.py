"""The parameters and operations of a model by part and kind, counted in one pass on the meta device.

`hafabench.measure.complexity` counts a model by one convention. Papers use many conventions: with or without norms
and biases, without attention, custom convolutions or frozen parameters. This module counts all these parts and kinds
separately. A convention is then a sum of kinds, for which no model is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torchvision.ops
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hafabench.config.operation_kinds import BIAS, BUFFERS
from hafabench.models.blocks import DepthwiseTokens
from hafabench.models.hafa.laa import DeformableConv, OffsetConv
from hafabench.models.hafa.sia import SemanticInformationAggregation
from hafabench.results.decomposition import Amount, Decomposition

aten = torch.ops.aten
_DEFORMABLE = torch.ops.torchvision.deform_conv2d
_BATCHED_PRODUCTS = (aten.bmm, aten.baddbmm)
# Operations that `complexity.CONVENTION` does not count, by the tensor whose elements other counters count.
_BY_INPUT = {
    aten.native_batch_norm: "batch_norm",
    aten._native_batch_norm_legit_no_training: "batch_norm",
    aten.native_layer_norm: "layer_norm",
    aten.native_group_norm: "group_norm",
    aten.max_pool2d_with_indices: "pooling",
    aten.avg_pool2d: "pooling",
    aten._adaptive_avg_pool2d: "pooling",
}
_BY_OUTPUT = {
    aten.relu: "relu",
    aten.relu_: "relu",
    aten.gelu: "gelu",
    aten._softmax: "softmax",
    aten._safe_softmax: "softmax",
    aten.upsample_bilinear2d: "upsampling",
    aten.upsample_nearest2d: "upsampling",
}
_NORMS = (nn.LayerNorm, nn.GroupNorm, _BatchNorm)


def decompose(model: nn.Module, image_size: tuple[int, int] | None, in_chans: int = 3) -> Decomposition:
    """Count the parameters and operations of a model by part and kind; nothing is computed.

    Args:
        model: A model of image batches (B, ``in_chans``, H, W) on the meta device. It is put into evaluation mode.
        image_size: (H, W), pixels. With None only parameters are counted.
        in_chans: Channels of the image.
    """
    roles = _Roles(model)
    if image_size is None:
        return Decomposition(roles.parameters())
    recorder = _Recorder(roles)
    model.eval()
    with (
        torch.no_grad(),
        register_module_forward_pre_hook(recorder.enter),
        register_module_forward_hook(recorder.leave),
        recorder,
    ):
        model(torch.empty(1, in_chans, *image_size, device="meta"))
    found = recorder.found.items()
    return Decomposition(roles.parameters(), tuple(Amount(part, kind, count) for (part, kind), count in found))


class _Roles:
    """The part and the kind of every module of a model."""

    def __init__(self, model: nn.Module):
        names, classifiers = {module: name.split(".") for name, module in model.named_modules()}, _classifiers(model)
        # mmseg's and mmdet's models have a backbone; the latter are wrapped once more.
        is_dense = not classifiers and any("backbone" in words[:2] for words in names.values())
        self.part = {
            module: _dense_part(words) if is_dense else _part(words, module in classifiers)
            for module, words in names.items()
        }
        # The authors' code calls these token convolutions: they act on a map of tokens and have a skip connection.
        self.token_convolutions = {module for module in model.modules() if isinstance(module, DepthwiseTokens)} | {
            module.map_conv for module in model.modules() if isinstance(module, SemanticInformationAggregation)
        }

    def kind(self, module: nn.Module) -> str:
        """Return the kind of a module's weight; ``other`` if it is neither convolution, linear layer nor norm."""
        if module in self.token_convolutions:
            return "token_convolution"
        if isinstance(module, OffsetConv):
            return "offset"
        if isinstance(module, DeformableConv | torchvision.ops.DeformConv2d):
            return "deformable"
        if isinstance(module, _ConvNd):
            return "depthwise" if 1 < module.groups == module.in_channels else "convolution"
        if isinstance(module, nn.Linear):
            return "linear"
        return "norm" if isinstance(module, _NORMS) else "other"

    def parameters(self) -> tuple[Amount, ...]:
        """Count parameters by part, kind and whether they are trained, and the statistics of batch norms."""
        found: Counter[tuple[str, str, bool]] = Counter()
        seen: set[nn.Parameter] = set()
        for module, part in self.part.items():
            kind = self.kind(module)
            for name, parameter in module.named_parameters(recurse=False):
                if parameter not in seen:
                    is_bias = name.endswith("bias") and kind not in ("norm", "other")
                    found[part, "bias" if is_bias else kind, parameter.requires_grad] += parameter.numel()
                    seen.add(parameter)
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                # The running mean and the running variance.
                found[part, BUFFERS, False] += 2 * module.num_features
        return tuple(Amount(part, kind, count, trainable) for (part, kind, trainable), count in found.items())


class _Recorder(TorchDispatchMode):
    """Counts operations by the kind of the weight that they use, or by their operator if they use none.

    The weight matters more than the operator, because a convolution may be computed as a matrix product over windows,
    and a linear layer as a batched product. The weights are therefore followed through views and copies.
    """

    def __init__(self, roles: _Roles):
        super().__init__()
        self.roles = roles
        self.running: list[nn.Module] = []
        self.found: Counter[tuple[str, str]] = Counter()
        # The keys are identities of tensors. The tensors are kept, so that no identity is used twice.
        self.owners: dict[int, tuple[Tensor, nn.Module]] = {
            id(parameter): (parameter, module)
            for module in roles.part
            for parameter in module.parameters(recurse=False)
        }

    def enter(self, module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        self.running.append(module)

    def leave(self, _module: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
        self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.running:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            owner = next((self.owners[id(tensor)][1] for tensor in tensors if id(tensor) in self.owners), None)
            if owner is not None and len(tensors) == 1:
                self.owners |= {id(part): (part, owner) for part in tree_leaves(out) if isinstance(part, Tensor)}
            module = owner or self.running[-1]
            for kind, count in self._amounts(func.overloadpacket, owner, args, out):
                self.found[self.roles.part[module], kind] += count
        return out

    def _amounts(
        self, operation: Any, owner: nn.Module | None, args: tuple[Any, ...], out: Any
    ) -> Iterator[tuple[str, int]]:
        pools = operation is aten.mean and isinstance(self.running[-1], _AdaptiveAvgPoolNd)
        if operation in _BY_INPUT or pools:
            yield _BY_INPUT.get(operation, "pooling"), args[0].numel()
        elif operation in _BY_OUTPUT:
            yield _BY_OUTPUT[operation], out.numel()
        elif operation is _DEFORMABLE:
            yield "deformable", out.numel() * math.prod(args[1].shape[1:])
            yield f"deformable{BIAS}", out.numel()
        elif operation in flop_registry:
            kind = self._kind(operation, owner)
            yield kind, flop_registry[operation](*args, out_val=out) // 2
            # The bias is added by the same operator or by a later one.
            if getattr(owner, "bias", None) is not None:
                yield f"{kind}{BIAS}", out.numel()

    def _kind(self, operation: Any, owner: nn.Module | None) -> str:
        own = self.roles.kind(owner) if owner is not None else "other"
        if own not in ("norm", "other"):
            return own
        if operation is aten.convolution:
            return "convolution"
        return "attention" if operation in _BATCHED_PRODUCTS else "linear"


def _classifiers(model: nn.Module) -> set[nn.Module]:
    get_classifier: Any = getattr(model, "get_classifier", tuple)
    found = get_classifier()
    return set(found) if isinstance(found, tuple | list) else {found}


def _part(words: list[str], is_classifier: bool) -> str:
    if "predictors" in words:
        return "predictors"
    return "head" if is_classifier or words[-1] == "aux_head" else "backbone"


def _dense_part(words: list[str]) -> str:
    return next((part for part in ("backbone", "neck") if part in words[:2]), "head")
