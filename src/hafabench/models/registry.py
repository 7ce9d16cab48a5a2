"""Model families, and one function that builds any model of the catalog.

Every family is a module of this package that defines `FAMILY` and, for this project's own networks, one entry point
per model, as in timm: ``grep pvt_tiny_hafa`` finds it. CONTRIBUTING.md describes how to add a backbone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, overload

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs
from torch import nn

from hafabench.config.catalog import CATALOG, FIDELITIES, QUERY_MODES, ModelSpec, merger_problem
from hafabench.config.keep_rates import KeepRates, describe_rates
from hafabench.errors import UserError
from hafabench.models.dense_backbone import DenseBackbone, TimmDenseBackbone
from hafabench.models.scaling import check_scale


@dataclass(frozen=True)
class OwnModels:
    """The models of a family that this project implements.

    Attributes:
        constructor: Builds the network from a `ModelSpec` and timm's keyword arguments (``num_classes``,
            ``in_chans``, ``drop_path_rate``, ...).
        first_conv: Name of the first convolution; timm adapts it to other input channels.
        classifier: Names of the last linear layers; timm replaces them for another number of classes.
        pool_size: Height and width of the features of a 224 x 224 image; None if the features are tokens.
        dense: Whether the network's ``as_backbone`` method turns it into a `DenseBackbone`.
        drops_tokens: Whether the models need keep rates.
    """

    constructor: Callable[..., nn.Module]
    first_conv: str
    classifier: str | tuple[str, ...]
    pool_size: tuple[int, int] | None = None
    dense: bool = False
    drops_tokens: bool = False


@dataclass(frozen=True)
class TimmModels:
    """The models of a family that timm implements.

    Attributes:
        pyramid_levels: timm's feature levels of strides 4, 8, 16 and 32; None for a family without a feature pyramid.
        options: Keyword arguments of `timm.create_model`, unless the caller sets them.
        drop_path: Whether the models have stochastic depth.
        frozen_in_detection: Modules that detection does not train. Batch norms then keep their statistics.
        sync_batch_norm: Whether segmentation on several GPUs shares batch statistics.
        scaled: Builds a model at the width and depth of its specification, from the specification, timm's model of
            full size on the meta device, and keyword arguments of `timm.create_model`. None if the family has full
            size only.
    """

    pyramid_levels: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    drop_path: bool = True
    frozen_in_detection: tuple[str, ...] = ()
    sync_batch_norm: bool = False
    scaled: Callable[..., nn.Module] | None = None


@dataclass(frozen=True)
class ModelFamily:
    """The description of one family of models.

    A family has own models, models of timm, or both: PVT-v2 and Swin without mergers are timm's.

    Attributes:
        name: `ModelSpec.family` and the name of the module.
        own: This project's models.
        timm: timm's models.
        dead_weights: For each task, the number of weights in the authors' HAFA class that no gradient reaches.
            This project does not build them; Tables 2 and 3 of the paper count them.
        img_size_from_recipe: Whether training builds the network for the recipe's image size instead of 224 pixels.
    """

    name: str
    own: OwnModels | None = None
    timm: TimmModels | None = None
    dead_weights: Mapping[str, int] = field(default_factory=dict)
    img_size_from_recipe: bool = False

    def is_own(self, spec: ModelSpec) -> bool:
        """Return whether this project implements the model; otherwise timm does."""
        return self.own is not None and (self.timm is None or spec.has_mergers)

    def default_cfgs(self) -> dict[str, Any]:
        """Return timm's ``default_cfgs`` of the family's own models in the catalog."""
        own = [spec for spec in CATALOG.values() if spec.family == self.name and self.is_own(spec)]
        return generate_default_cfgs({timm_name(spec.name): self.default_cfg(spec) for spec in own})

    def default_cfg(self, spec: ModelSpec) -> dict[str, Any]:
        """Return timm's description of an own model. Its evaluation resizes to 256 and crops 224 pixels."""
        assert self.own is not None
        return {
            "architecture": timm_name(spec.name),
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": self.own.pool_size,
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": self.own.first_conv,
            "classifier": self.own.classifier,
        }


def family_of(spec: ModelSpec) -> ModelFamily:
    """Return the family of a model, from the module of `hafabench.models` that has the family's name.

    Raises:
        UserError: If there is no such family.
    """
    module = f"hafabench.models.{spec.family}"
    family = None
    if spec.family.isidentifier() and importlib.util.find_spec(module) is not None:
        family = getattr(importlib.import_module(module), "FAMILY", None)
    if family is None:
        raise UserError(f"model {spec.name!r}: unknown family {spec.family!r}")
    return family


def is_own(spec: ModelSpec) -> bool:
    """Return whether this project implements the model; otherwise timm does."""
    return family_of(spec).is_own(spec)


def timm_name(name: str) -> str:
    """Return a model's name in timm, without the dot that separates names of weights: ``dynamicvit_lvs_0_5``."""
    return name.replace(".", "_")


@overload
def create(model: str | ModelSpec, *, dense: Literal[True], **kwargs: Any) -> DenseBackbone: ...


@overload
def create(model: str | ModelSpec, *, dense: Literal[False] = False, **kwargs: Any) -> nn.Module: ...


def create(
    model: str | ModelSpec,
    *,
    dense: bool = False,
    mergers: tuple[str, ...] | None = None,
    query_mode: str | None = None,
    fidelity: str | None = None,
    keep: KeepRates | None = None,
    **kwargs: Any,
) -> nn.Module | DenseBackbone:
    """Build a model of the catalog, with other mergers or keep rates if these are given.

    Args:
        model: Name in `hafabench.config.catalog.CATALOG`, or a specification.
        dense: Build the backbone of a dense task instead of a classifier: a `DenseBackbone` without classifier and
            class token, in which every parameter has a gradient.
        mergers: Replaces the model's mergers.
        query_mode: Replaces the model's query mode.
        fidelity: Replaces the model's fidelity.
        keep: Replaces the model's keep rates.
        **kwargs: ``num_classes``, ``in_chans``, ``drop_path_rate``, ``features_only`` and other arguments of timm;
            for PVT and PVT-v2 also ``depths`` (blocks) and ``embed_dims`` (channels) of the four stages.

    Raises:
        UserError: If the model is unknown, or does not support the mergers or keep rates.
    """
    if isinstance(model, str):
        if model not in CATALOG:
            raise UserError(f"unknown model {model!r}; expected one of {', '.join(CATALOG)}")
        model = CATALOG[model]
    changes: dict[str, Any] = {"mergers": mergers, "query_mode": query_mode, "fidelity": fidelity, "keep": keep}
    changes = {name: value for name, value in changes.items() if value is not None}
    return build_model(replace(model, **changes), dense=dense, **kwargs)


def build_model(spec: ModelSpec, *, dense: bool = False, **kwargs: Any) -> nn.Module:
    """Build the model that ``spec`` describes; see `create`."""
    # Mergers read from JSON or from an mm configuration are a list, which is never equal to a tuple.
    spec = replace(spec, mergers=tuple(spec.mergers))
    family = family_of(spec)
    _check(spec, family)
    if not family.is_own(spec):
        net = _build_timm_backbone(spec, family, kwargs) if dense else _build_timm(spec, family, kwargs)
    elif dense:
        net = _build_own_backbone(spec, family, kwargs)
    else:
        net = _build_own(spec, family, kwargs)
    # Tokens are maps in channels-last order. With weights in the same order, no convolution has to reorder the map.
    return net.to(memory_format=torch.channels_last)


def _check(spec: ModelSpec, family: ModelFamily) -> None:
    check_scale(spec)
    if spec.has_mergers and (problem := merger_problem(spec.family, spec.mergers)):
        raise UserError(f"model {spec.name!r}: {problem}")
    for name, value, known in (
        ("query mode", spec.query_mode, QUERY_MODES),
        ("fidelity", spec.fidelity, FIDELITIES),
    ):
        if value not in known:
            raise UserError(f"model {spec.name!r}: unknown {name} {value!r}; expected one of {', '.join(known)}")
    drops_tokens = family.own is not None and family.own.drops_tokens
    if drops_tokens and spec.keep is None:
        raise UserError(f"model {spec.name!r}: family {spec.family!r} drops tokens and needs keep rates; found none")
    if spec.keep is not None and not drops_tokens:
        rates = describe_rates(spec.keep)
        raise UserError(f"model {spec.name!r}: family {spec.family!r} drops no tokens; found keep rates {rates}")


def _build_own(spec: ModelSpec, family: ModelFamily, kwargs: dict[str, Any]) -> nn.Module:
    assert family.own is not None
    if kwargs.pop("pretrained", False):
        raise UserError(f"model {spec.name!r} has no published weights to load; train it, or load a checkpoint")
    # timm passes None to say that the registered configuration applies; a model of an experiment is not registered.
    kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or family.default_cfg(spec)
    feature_cfg = {"out_indices": 4, "feature_cls": "getter"}
    constructor = partial(family.own.constructor, spec)
    return build_model_with_cfg(constructor, timm_name(spec.name), False, feature_cfg=feature_cfg, **kwargs)


def _build_own_backbone(spec: ModelSpec, family: ModelFamily, kwargs: dict[str, Any]) -> nn.Module:
    if family.own is None or not family.own.dense:
        raise _no_pyramid(spec)
    net: Any = _build_own(spec, family, kwargs)
    return net.as_backbone()


def _build_timm(spec: ModelSpec, family: ModelFamily, kwargs: dict[str, Any]) -> nn.Module:
    assert family.timm is not None
    if not family.timm.drop_path and kwargs.pop("drop_path_rate", 0.0):
        raise UserError(f"model {spec.name!r} has no stochastic depth; expected drop_path: 0")
    options = {**family.timm.options, **kwargs}
    if not spec.is_scaled:
        return timm.create_model(spec.architecture, **options)
    scaled = f"model {spec.name!r} ({spec.scale_text})"
    if family.timm.scaled is None:
        raise UserError(f"{scaled}: models of family {spec.family!r} have full size only")
    if options.pop("pretrained", False):
        raise UserError(f"{scaled} has no published weights; expected width 1 and depth 1")
    with torch.device("meta"):
        full = timm.create_model(spec.architecture)
    return family.timm.scaled(spec, full, **options)


def _build_timm_backbone(spec: ModelSpec, family: ModelFamily, kwargs: dict[str, Any]) -> nn.Module:
    if family.timm is None or family.timm.pyramid_levels is None:
        raise _no_pyramid(spec)
    body = _build_timm(spec, family, {**kwargs, "num_classes": 0})
    return TimmDenseBackbone(body, family.timm.pyramid_levels)


def _no_pyramid(spec: ModelSpec) -> UserError:
    return UserError(f"model {spec.name!r} has no feature pyramid, which dense tasks need")
