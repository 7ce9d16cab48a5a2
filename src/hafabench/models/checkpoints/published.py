"""Fitting weights with the names of other projects to a model of this project. Every tensor is used or refused.

Names are translated from the published PVT and PVT-v2 (whai362/PVT), from TCFormer (SIA derives from its merger),
from mmdet's PVT, and from the names that timm loads into its own models. Other names need renames. Of the published
HAFA classes, only the names that they share with PVT and TCFormer are known. Their dead weights are recognised by
their shapes (docs/imports.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hafabench.config.catalog import ModelSpec
from hafabench.errors import UserError
from hafabench.models.checkpoints.classifier import resize_position_embeddings, undecorated
from hafabench.models.hafa.sia import SemanticInformationAggregation
from hafabench.models.registry import is_own

# Published names and their names in this project; the first match applies.
_PUBLISHED = [
    (r"^patch_embed(\d)\.", r"stage\1.merger."),
    (r"^pos_embed(\d)$", r"stage\1.pos_embed"),
    (r"^block(\d)\.", r"stage\1.blocks."),
    (r"^norm(\d)\.", r"stage\1.norm."),
    (r"^norm\.", "head_norm."),
    (r"^cls_token$", "stage4.cls_token"),
]
_MERGER = {
    "conv.skip.weight": "token_proj.weight",
    "conv.weight": "map_conv.weight",
    "conv.bias": "map_conv.bias",
    "norm.weight": "token_norm.weight",
    "norm.bias": "token_norm.bias",
    "score.weight": "score.weight",
    "score.bias": "score.bias",
}
_WRAPPERS = ("module.", "_orig_mod.", "model.")
# These are not learned: they follow from the model's shape or count batches.
_NOT_LEARNED = ("num_batches_tracked", "relative_position_index", "attn_mask", "total_ops", "total_params")
_CLASSIFIER_ONLY = ("head.", "head_norm.", "stage4.cls_token", "fc.", "norm.")


@dataclass(frozen=True)
class Fitted:
    """Weights that fit a model.

    Attributes:
        state: Complete input of the model's ``load_state_dict``.
        naming: The naming scheme of the file.
        dropped: One sentence for each kind of tensor that is not used, with the names in the file.
    """

    state: dict[str, Tensor]
    naming: str
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class _Tensor:
    value: Tensor
    name: str  # in the file


_Named = dict[str, _Tensor]


def fit(model: nn.Module, weights: Mapping[str, Tensor], spec: ModelSpec, renames: Mapping[str, str]) -> Fitted:
    """Translate weights to the names and the order of ``model``.

    Args:
        model: A classifier of `hafabench.models.create`, or a dense model with such a backbone, on any device.
        weights: Tensors by their names in the file.
        spec: The model, or the model of the backbone.
        renames: For each prefix of names in the file, which ends before a dot or is a whole name, the prefix in the
            model.

    Raises:
        UserError: If a tensor is missing, unknown or of another shape, with renames that the shapes suggest; also if
            a rename matches no tensor.
    """
    own = model.state_dict()
    weights = _unwrapped(weights)
    named, rest = _renamed(weights, renames)
    dense = any(name.startswith("backbone.") for name in own)
    prefix = _backbone_prefix(own) if dense else ""
    target = model.get_submodule(prefix.removesuffix(".")) if dense else model
    inner = {name: tensor for name, tensor in rest.items() if not dense or name.startswith("backbone.")}
    inner = {name.removeprefix("backbone.") if dense else name: tensor for name, tensor in inner.items()}
    naming, translated = _translate(target, inner, spec, dense)
    named |= {prefix + name: tensor for name, tensor in translated.items()}
    if dense:
        outer = {name: tensor for name, tensor in rest.items() if not name.startswith("backbone.")}
        named |= {_neck_name(name, own): tensor for name, tensor in outer.items()}
    named, leftovers = _learned(named, own)
    dropped = []
    if own.keys() <= named.keys():
        dropped = _drop_unused(leftovers, target, prefix, dense)
    _refuse_mismatches(own, named, leftovers, spec)
    return Fitted({name: named[name].value for name in own}, naming, tuple(dropped))


def fit_backbone(
    backbone: nn.Module, weights: Mapping[str, Tensor], spec: ModelSpec, renames: Mapping[str, str]
) -> Fitted:
    """Translate the weights of a classifier to the names of a backbone for dense tasks.

    Position embeddings are resized if they were made for another image size. What only the classifier has, its head
    and its class token, is dropped.

    Args:
        backbone: A model of `hafabench.models.create` with ``dense=True``, on any device.
        weights: Tensors by their names in the file: those of a classifier or of its backbone.
        spec: The model.
        renames: For each prefix of names in the file, which ends before a dot or is a whole name, the prefix in the
            model.

    Returns:
        The weights; ``state`` belongs to `undecorated` ``backbone``.

    Raises:
        UserError: If a tensor is missing, unknown or of another shape, with renames that the shapes suggest; also if
            a rename matches no tensor.
    """
    target = undecorated(backbone)
    own = target.state_dict()
    named, rest = _renamed(_unwrapped(weights), renames)
    # mmpretrain's classifiers, and dense models, have their backbone under this prefix.
    is_part = any(name.startswith("backbone.") for name in rest)
    outer = {name: tensor for name, tensor in rest.items() if is_part and not name.startswith("backbone.")}
    inner = {name.removeprefix("backbone."): tensor for name, tensor in rest.items() if name not in outer}
    naming, translated = _translate(target, inner, spec, dense=True)
    if is_part:
        naming += " after the prefix backbone"
    named, leftovers = _learned(named | translated | outer, own)
    _fit_positions(target, named)
    dropped = []
    if own.keys() <= named.keys():
        dropped = _drop_unused(leftovers, target, "", dense=True)
    _refuse_mismatches(own, named, leftovers, spec)
    return Fitted({name: named[name].value for name in own}, naming, tuple(dropped))


def _fit_positions(target: nn.Module, named: _Named) -> None:
    values = {name: tensor.value for name, tensor in named.items()}
    resize_position_embeddings(target, values)
    named |= {name: _Tensor(values[name], tensor.name) for name, tensor in named.items()}


def _learned(named: _Named, own: Mapping[str, Tensor]) -> tuple[_Named, _Named]:
    """Return the tensors that the model has, with all counters of batches, and the other tensors that are learned."""
    found = {name: tensor for name, tensor in named.items() if name in own}
    counters = (name for name in own if name.endswith("num_batches_tracked") and name not in found)
    found |= {name: _Tensor(torch.zeros((), dtype=torch.long), name) for name in counters}
    others = {n: tensor for n, tensor in named.items() if n not in own and not n.endswith(_NOT_LEARNED)}
    return found, others


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that DistributedDataParallel, torch.compile and Lightning modules add to all names."""
    # torch.optim.swa_utils.AveragedModel counts its updates.
    weights = {name: value for name, value in weights.items() if name != "n_averaged"}
    for wrapper in _WRAPPERS:
        if weights and all(name.startswith(wrapper) for name in weights):
            return _unwrapped({name.removeprefix(wrapper): value for name, value in weights.items()})
    return dict(weights)


def _renamed(weights: Mapping[str, Tensor], renames: Mapping[str, str]) -> tuple[_Named, _Named]:
    named: _Named = {}
    rest: _Named = {}
    used: set[str] = set()
    for name, value in weights.items():
        for old, new in renames.items():
            if name == old or name.startswith(f"{old}."):
                named[new + name.removeprefix(old)] = _Tensor(value, name)
                used.add(old)
                break
        else:
            rest[name] = _Tensor(value, name)
    unused = [old for old in renames if old not in used]
    if unused:
        raise UserError([f"--rename {old}: no tensor name in the file begins with this" for old in unused])
    return named, rest


def _backbone_prefix(own: Iterable[str]) -> str:
    # `hafabench.models.dense_backbone.TimmDenseBackbone` adds one level of names.
    wrapped = all(name.startswith("backbone.body.body.") for name in own if name.startswith("backbone."))
    return "backbone.body.body." if wrapped else "backbone.body."


def _translate(target: nn.Module, weights: _Named, spec: ModelSpec, dense: bool) -> tuple[str, _Named]:
    own = target.state_dict()
    if dense and any(name.startswith("body.") for name in weights):
        stripped = {re.sub(r"^(body\.)+", "", name): tensor for name, tensor in weights.items()}
        return "the model's own names", stripped
    if all(name in weights and weights[name].value.shape == value.shape for name, value in own.items()):
        return "the model's own names", weights
    if not is_own(spec):
        return "names that timm loads", _by_timm(target, weights)
    if any(re.match(r"layers\.\d\.0\.projection\.", name) for name in weights):
        return "mmdet's names of PVT", _from_mmdet(weights)
    if any(re.match(r"(patch_embed|block)\d\.", name) for name in weights):
        return "names of the published PVT code", {_published_name(n): _pointwise(t) for n, t in weights.items()}
    return "the model's own names", weights


def _published_name(name: str) -> str:
    cluster = re.match(r"ctm(\d)\.(.*)", name)
    if cluster and cluster[2] in _MERGER:
        return f"stage{int(cluster[1]) + 1}.merger.{_MERGER[cluster[2]]}"
    for pattern, ours in _PUBLISHED:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name)
    return name


def _pointwise(tensor: _Tensor) -> _Tensor:
    """Squeeze linear layers that are stored as convolutions of kernel size 1 (out, in, 1), but not channel scales."""
    value = tensor.value
    linear = value.ndim == 3 and value.shape[-1] == 1 and value.shape[1] > 1
    return _Tensor(value.squeeze(-1), tensor.name) if linear else tensor


def _from_mmdet(weights: _Named) -> _Named:
    """Translate mmdet's PVT: one projection of Q, K and V, 1x1 convolutions as feed-forward, no class token."""
    found: _Named = {}
    for name, tensor in weights.items():
        match = re.match(r"layers\.(\d)\.(\d)\.(.*)", name)
        if match is None:
            found[name] = tensor
            continue
        stage, part, rest = f"stage{int(match[1]) + 1}", match[2], match[3]
        if part == "0":
            found[f"{stage}.merger.{rest.replace('projection', 'proj')}"] = tensor
        elif rest == "0.pos_embed":
            value = tensor.value
            if stage == "stage4":
                # A dense backbone of this project has a row for the class token, which it does not use.
                value = torch.cat((value.new_zeros(1, 1, value.shape[2]), value), dim=1)
            found[f"{stage}.pos_embed"] = _Tensor(value, name)
        else:
            index, _, leaf = rest.partition(".")
            block = f"{stage}.blocks.{int(index) - 1}"
            if fused := re.fullmatch(r"attn\.attn\.in_proj_(weight|bias)", leaf):
                third = tensor.value.shape[0] // 3
                found[f"{block}.attn.q.{fused[1]}"] = _Tensor(tensor.value[:third], name)
                found[f"{block}.attn.kv.{fused[1]}"] = _Tensor(tensor.value[third:], name)
            elif layer := re.fullmatch(r"ffn\.layers\.(0|3)\.(weight|bias)", leaf):
                value = tensor.value.flatten(1) if layer[2] == "weight" else tensor.value
                found[f"{block}.mlp.{'fc1' if layer[1] == '0' else 'fc2'}.{layer[2]}"] = _Tensor(value, name)
            else:
                found[f"{block}.{leaf.replace('attn.attn.out_proj', 'attn.proj')}"] = tensor
    return found


def _by_timm(target: nn.Module, weights: _Named) -> _Named:
    """Translate names as timm's own loading does, with its adaptations to another input size or window."""
    convert = getattr(sys.modules[type(target).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return weights
    try:
        converted = convert({name: tensor.value for name, tensor in weights.items()}, target)
    except (AttributeError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise UserError(f"timm cannot load these weights into its model: {type(error).__name__}: {error}") from None
    return {
        name: _Tensor(value, weights[name].name if name in weights else name) for name, value in converted.items()
    }


def _neck_name(name: str, own: Mapping[str, Tensor]) -> str:
    # mmdet and mmseg wrap the neck's convolutions; `hafabench.engines.dense.neck.TokenFPN` does not.
    plain = name.replace(".conv.", ".")
    return plain if name not in own and name.startswith("neck.") and plain in own else name


def _drop_unused(leftovers: _Named, target: nn.Module, prefix: str, dense: bool) -> list[str]:
    """Remove tensors without effect on the model's output from ``leftovers``; return a sentence for each kind."""
    sentences = []
    if dense:
        unused = [name for name in leftovers if name.removeprefix(prefix).startswith(_CLASSIFIER_ONLY)]
        if unused:
            names = ", ".join(leftovers.pop(name).name for name in unused)
            sentences.append(f"dropped, because only classification uses it: {names}")
    dead = _dead(leftovers, target)
    if dead:
        names = ", ".join(leftovers.pop(name).name for name in dead)
        sentences.append(f"dropped, because the published class never uses it (no gradient reaches it): {names}")
    return sentences


def _dead(leftovers: _Named, target: nn.Module) -> list[str]:
    """Return the names of the dead weights of the published class: a projection C -> C, a norm, a class token."""
    sia = [module for module in target.modules() if isinstance(module, SemanticInformationAggregation)]
    if not sia or sia[-1].key_values != "separate":
        return []
    width = sia[-1].score.in_features
    shapes = {
        "projection": {"weight": (width, width), "bias": (width,)},
        "norm": {"weight": (width,), "bias": (width,)},
        "token": {"cls_token": (1, 1, width)},
    }
    dead: list[str] = []
    for members in _modules(leftovers).values():
        found = {name.rpartition(".")[2]: _squeezed(leftovers[name].value) for name in members}
        kind = next((kind for kind, shape in shapes.items() if found == shape), None)
        if kind is not None:
            del shapes[kind]  # the class has one of each
            dead += members
    return dead


def _squeezed(value: Tensor) -> tuple[int, ...]:
    """Return the shape without the kernel size of a convolution of kernel size 1."""
    return tuple(value.shape[:2]) if value.ndim > 2 and set(value.shape[2:]) == {1} else tuple(value.shape)


def _modules(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by their module."""
    found: dict[str, list[str]] = {}
    for name in names:
        # A class token is its own group, whichever module contains it.
        module, _, leaf = name.rpartition(".")
        found.setdefault(name if leaf == "cls_token" else module, []).append(name)
    return found


def _refuse_mismatches(own: Mapping[str, Tensor], named: _Named, leftovers: _Named, spec: ModelSpec) -> None:
    """Refuse weights that do not fit a model.

    Args:
        own: The model's own tensors.
        named: The tensors of the file that the model has, by their names in the model.
        leftovers: The other tensors of the file.
        spec: The model.
    """
    missing = [name for name in own if name not in named]
    problems = []
    unequal = [name for name, value in own.items() if name in named and named[name].value.shape != value.shape]
    # Hundreds of tensors differ if the weights are those of a full-size model.
    if spec.is_scaled and (unequal or leftovers):
        example = leftovers[min(leftovers)].name + " is unknown" if leftovers else ""
        if unequal:
            first = named[unequal[0]]
            found, expected = tuple(first.value.shape), tuple(own[unequal[0]].shape)
            example = f"{first.name} has shape {found}, expected {expected}"
        raise UserError(
            f"weights of another size: this experiment builds {spec.name} at model_scale {spec.scale_text}, and "
            f"{len(unequal) + len(leftovers)} tensors of the file do not fit it ({example}); expected weights of the "
            "same scale, or an experiment without model_scale"
        )
    if missing:
        problems.append(f"missing in the file: {', '.join(missing)}")
    if leftovers:
        problems.append(f"unknown to the model: {', '.join(tensor.name for tensor in leftovers.values())}")
    problems += [
        f"{named[name].name}: expected shape {tuple(value.shape)}, found {tuple(named[name].value.shape)}"
        for name, value in own.items()
        if name in named and value.shape != named[name].value.shape
    ]
    problems += [
        f"{named[name].name}: expected {_kind(value.dtype)}, found {named[name].value.dtype}"
        for name, value in own.items()
        if name in named and _kind(value.dtype) != _kind(named[name].value.dtype)
    ]
    problems += _suggestions({name: own[name] for name in missing}, leftovers)
    if problems:
        raise UserError(problems)


def _kind(dtype: torch.dtype) -> str:
    """Return the kind of numbers of a data type. Weights may be stored in any precision of their kind."""
    if dtype.is_floating_point:
        return "floating-point numbers"
    if dtype.is_complex:
        return "complex numbers"
    return "truth values" if dtype is torch.bool else "integers"


def _suggestions(missing: Mapping[str, Tensor], leftovers: _Named) -> Sequence[str]:
    """Suggest renames between modules whose tensors have the same shapes, if no other modules have these shapes."""

    def by_shapes(modules: Mapping[str, list[str]], tensors: Mapping[str, Tensor]) -> dict[tuple, list[str]]:
        found: dict[tuple, list[str]] = {}
        for module, names in modules.items():
            shapes = tuple(sorted((name.rpartition(".")[2], tuple(tensors[name].shape)) for name in names))
            found.setdefault(shapes, []).append(module)
        return found

    spare = {tensor.name: tensor.value for tensor in leftovers.values()}
    wanted, offered = by_shapes(_modules(missing), missing), by_shapes(_modules(spare), spare)
    pairs = [
        f"--rename {offered[shapes][0]}={wanted[shapes][0]}"
        for shapes in wanted
        if len(wanted[shapes]) == 1 and len(offered.get(shapes, [])) == 1
    ]
    return [f"renames that the shapes suggest: {' '.join(pairs)}"] if pairs else []
