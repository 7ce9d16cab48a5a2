"""Models by name: registration of the catalogue with timm, and one way to build any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from hafabench.config.catalog import CATALOG, FIDELITIES, VARIANTS, ModelSpec, merger_problem
from hafabench.config.keep_rates import KeepRates, describe_rates
from hafabench.errors import UserError
from hafabench.models import dynamic_swin, dynamicvit, lvvit, pvt, pvt_v2, swin
from hafabench.models.pyramid import Dimensions
from hafabench.models.timm_models import LibraryBackbone, create_library_model


def is_own(spec: ModelSpec) -> bool:
    """Whether this project builds the model; otherwise it is timm's."""
    return spec.family in _OWN_FAMILIES or spec.is_plugin


def timm_name(name: str) -> str:
    """A model's name with timm, for which a dot parts a model from its weights: ``dynamicvit_lvs_0_5``."""
    return name.replace(".", "_")


def create(
    model: str | ModelSpec,
    *,
    dense: bool = False,
    mergers: tuple[str, ...] | None = None,
    variant: str | None = None,
    fidelity: str | None = None,
    keep: KeepRates | None = None,
    **kwargs,
) -> nn.Module:
    """Build any model of the catalogue, or a variant of one.

    Args:
        model: a name of `hafabench.config.catalog.CATALOG` or a specification.
        dense: build the backbone of a dense task: without classifier and class token, with ``channels`` and
            ``forward_tokens(x)``, and no parameter that would stay without a gradient.
        mergers, variant, fidelity, keep: changes of the specification.
        kwargs: ``num_classes``, ``in_chans``, ``drop_path_rate``, ``features_only`` ...; for PVT and PVT-v2 also
            ``depths`` (blocks) and ``embed_dims`` (channels) of the four stages, where they shall differ.

    Raises:
        UserError: for an unknown model, or mergers or keep rates that it cannot take.
    """
    if isinstance(model, str):
        if model not in CATALOG:
            raise UserError(f"unknown model {model!r}; expected one of {', '.join(CATALOG)}")
        model = CATALOG[model]
    changes = {"mergers": mergers, "variant": variant, "fidelity": fidelity, "keep": keep}
    changes = {key: value for key, value in changes.items() if value is not None}
    return build_model(replace(model, **changes), dense=dense, **kwargs)


def build_model(spec: ModelSpec, *, dense: bool = False, **kwargs) -> nn.Module:
    """The model that ``spec`` describes; see `create`."""
    # A specification read from JSON or a library's configuration has a list here, which equals no tuple.
    spec = replace(spec, mergers=tuple(spec.mergers))
    if spec.is_plugin and (problem := merger_problem(spec.family, spec.mergers)):
        raise UserError(f"model {spec.name!r}: {problem}")
    if spec.variant not in VARIANTS:
        raise UserError(
            f"model {spec.name!r}: unknown variant {spec.variant!r}; expected one of {', '.join(VARIANTS)}"
        )
    if spec.fidelity not in FIDELITIES:
        expected = ", ".join(FIDELITIES)
        raise UserError(f"model {spec.name!r}: unknown fidelity {spec.fidelity!r}; expected one of {expected}")
    if (spec.keep is None) == (spec.family in _KEEPING_FAMILIES):
        found = "none" if spec.keep is None else describe_rates(spec.keep)
        raise UserError(f"model {spec.name!r}: family {spec.family!r} and keep rates do not fit, found {found}")
    # Tokens are maps channels last: where weights are too, no convolution has to bring its map into another order.
    return _build(spec, dense, **kwargs).to(memory_format=torch.channels_last)


def _build(spec: ModelSpec, dense: bool, **kwargs) -> nn.Module:
    if not is_own(spec):
        return LibraryBackbone(spec, **kwargs) if dense else create_library_model(spec, **kwargs)
    if dense and spec.family in _CLASSIFIERS:
        raise UserError(f"model {spec.name!r} gives no feature pyramid, which dense tasks need")
    net = _build_own(spec, **kwargs)
    return net.as_backbone() if dense else net


def _build_own(spec: ModelSpec, pretrained: bool = False, **kwargs) -> nn.Module:
    if pretrained:
        raise UserError(f"model {spec.name!r} has no published weights to load; train it, or load a checkpoint")
    kwargs.setdefault("pretrained_cfg", _configuration(spec))
    feature_cfg = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
    constructor = _CONSTRUCTORS[spec.family]
    name = timm_name(spec.name)
    return build_model_with_cfg(partial(constructor, spec), name, False, feature_cfg=feature_cfg, **kwargs)


def _resized(dims: Dimensions, depths: Sequence[int] | None, embed_dims: Sequence[int] | None) -> Dimensions:
    changes = {"depths": depths, "embed_dims": embed_dims}
    changes = {name: tuple(value) for name, value in changes.items() if value is not None}
    for name, value in changes.items():
        if len(value) != 4 or min(value) < 1:
            raise UserError(f"{name}={value!r} is not supported; expected four positive numbers, one per stage")
    dims = replace(dims, **changes)
    if any(width % heads for width, heads in zip(dims.embed_dims, dims.num_heads, strict=True)):
        raise UserError(f"embed_dims={dims.embed_dims!r} is not supported; expected multiples of {dims.num_heads}")
    return dims


def _pvt(
    spec: ModelSpec, depths: Sequence[int] | None = None, embed_dims: Sequence[int] | None = None, **kwargs
) -> nn.Module:
    dims = _resized(pvt.ARCHITECTURES[spec.architecture], depths, embed_dims)
    return pvt.PyramidVisionTransformer(dims, spec.mergers, spec.variant, spec.fidelity, **kwargs)


def _pvt_v2(
    spec: ModelSpec, depths: Sequence[int] | None = None, embed_dims: Sequence[int] | None = None, **kwargs
) -> nn.Module:
    dims = _resized(pvt_v2.ARCHITECTURES[spec.architecture], depths, embed_dims)
    return pvt_v2.PyramidVisionTransformerV2(dims, spec.mergers, spec.variant, spec.fidelity, **kwargs)


def _swin(spec: ModelSpec, **kwargs) -> nn.Module:
    kwargs = {**swin.ARCHITECTURES[spec.architecture], **kwargs}
    return swin.SwinTransformerHafa(spec.mergers, spec.variant, spec.fidelity, **kwargs)


def _lvvit(spec: ModelSpec, **kwargs) -> nn.Module:
    return lvvit.LVViT(**{**lvvit.ARCHITECTURES[spec.architecture], **kwargs})


def _dynamicvit(spec: ModelSpec, **kwargs) -> nn.Module:
    return dynamicvit.DynamicViT(spec.keep, **{**dynamicvit.ARCHITECTURES[spec.architecture], **kwargs})


def _dynamic_swin(spec: ModelSpec, **kwargs) -> nn.Module:
    return dynamic_swin.DynamicSwin(spec.keep, **{**dynamic_swin.ARCHITECTURES[spec.architecture], **kwargs})


_KEEPING_FAMILIES = ("dynamicvit", "dynamic_swin")
_CLASSIFIERS = ("lvvit", *_KEEPING_FAMILIES)
_OWN_FAMILIES = ("pvt", *_CLASSIFIERS)
_CONSTRUCTORS: dict[str, Callable[..., nn.Module]] = {
    "pvt": _pvt,
    "pvt_v2": _pvt_v2,
    "swin": _swin,
    "lvvit": _lvvit,
    "dynamicvit": _dynamicvit,
    "dynamic_swin": _dynamic_swin,
}
_FIRST_CONV_AND_CLASSIFIER = {
    "pvt": ("stage1.merger.proj", "head"),
    "pvt_v2": ("stage1.merger.proj", "head"),
    "swin": ("patch_embed.proj", "head.fc"),
    "lvvit": ("patch_embed.backbone.0", "head"),
    "dynamicvit": ("patch_embed.backbone.0", "head"),
    "dynamic_swin": ("patch_embed.proj", "head.fc"),
}


def _configuration(spec: ModelSpec) -> dict:
    """timm's description of a model's input; evaluation resizes to 256 and crops 224 (HAFA section 4.1)."""
    first_conv, classifier = _FIRST_CONV_AND_CLASSIFIER[spec.family]
    return {
        "architecture": timm_name(spec.name),
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": first_conv,
        "classifier": classifier,
    }


def _entrypoint(spec: ModelSpec) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, pretrained_cfg=None, pretrained_cfg_overlay=None, **kwargs) -> nn.Module:
        # timm passes its own registry's configuration; `build_model` knows the same one from the specification.
        return create(spec, pretrained=pretrained, **kwargs)

    build.__name__ = build.__qualname__ = timm_name(spec.name)
    build.__doc__ = f"{spec.architecture}: {spec.description}."
    return build


OWN_MODELS: dict[str, ModelSpec] = {name: spec for name, spec in CATALOG.items() if is_own(spec)}
default_cfgs = generate_default_cfgs({timm_name(name): _configuration(spec) for name, spec in OWN_MODELS.items()})
for _spec in OWN_MODELS.values():
    register_model(_entrypoint(_spec))
