"""Every model of Tables 1-6 by name, as data: what `hafabench.models` builds and what configurations may name.

This module imports no torch, so that a workflow can be parsed and a configuration checked without it.
A variant is one line here (or one entry under ``models:`` of an experiment file), never a copy of a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hafabench.config.keep_rates import KeepRates, describe_rates, scheduled

Family = Literal["pvt", "pvt_v2", "swin", "resnet", "vit", "hrnet", "lvvit", "dynamicvit", "dynamic_swin"]
Merger = Literal["grid", "laa", "sia", "conv"]

MERGERS: tuple[str, ...] = ("grid", "laa", "sia", "conv")
VARIANTS: tuple[str, ...] = ("q", "qkv")
FIDELITIES: tuple[str, ...] = ("published_code", "paper")
PLUGIN_FAMILIES: tuple[str, ...] = ("pvt", "pvt_v2", "swin")
GRID_ONLY = ("grid", "grid", "grid", "grid")
HAFA = ("grid", "laa", "laa", "sia")


@dataclass(frozen=True)
class ModelSpec:
    """A model as data.

    Attributes:
        name: the name in tables, configurations and run ids; for models of this project also timm's name, in which
            an underscore stands for a dot.
        family: which module builds it and which recipe rows apply to it.
        size: the recipe's size row (``tiny``, ``small``, ``medium``, ``large``).
        architecture: timm's name (library models) or the base architecture (``pvt_tiny``, ``pvt_v2_b1``, ...).
        mergers: feature aggregation in front of stages 1-4; the first is always the patch embedding, ``grid``.
        variant: ``q``: cluster tokens are queries only; ``qkv``: they serve as Q, K and V (paper, Table 5).
        fidelity: ``published_code`` or ``paper``: which of the two a detail follows where they part ways.
        keep: shares of the tokens that models with token pruning keep behind each of their predictors.
    """

    name: str
    family: Family
    size: str
    architecture: str
    mergers: tuple[str, ...] = GRID_ONLY
    variant: str = "q"
    fidelity: str = "published_code"
    keep: KeepRates | None = None

    @property
    def description(self) -> str:
        """What makes it this variant, in a few words: its mergers, or how many tokens it keeps."""
        if self.keep is not None:
            return f"keeps {describe_rates(self.keep)}"
        return "-".join(self.mergers[1:]) if self.is_plugin else "own grid"

    @property
    def is_plugin(self) -> bool:
        """Whether any stage aggregates features otherwise than the architecture's own fixed grid."""
        return self.mergers != GRID_ONLY


def merger_problem(family: str, mergers: tuple[str, ...]) -> str | None:
    """Say why ``mergers`` cannot be attached to ``family``, or None where they can.

    The rules: one merger per stage; stage 1 is the patch embedding and stays a grid; LAA and plain convolutions need
    a grid of pixels, so they cannot follow SIA, whose tokens have none.
    """
    if family not in PLUGIN_FAMILIES:
        return f"family {family!r} takes no mergers; expected one of {', '.join(PLUGIN_FAMILIES)}"
    if len(mergers) != 4:
        return f"{len(mergers)} mergers given, expected 4, one per stage"
    for stage, merger in enumerate(mergers, start=1):
        if merger not in MERGERS:
            return f"unknown merger {merger!r} on stage {stage}; expected one of {', '.join(MERGERS)}"
    if mergers[0] != "grid":
        return f"stage 1 is the patch embedding and takes only 'grid', not {mergers[0]!r}"
    for stage in (3, 4):
        before, here = mergers[stage - 2], mergers[stage - 1]
        if before == "sia" and here != "sia":
            return f"stage {stage} cannot take {here!r} after 'sia' on stage {stage - 1}: cluster tokens have no grid"
    if family == "swin" and "sia" in mergers[:3]:
        return "Swin takes 'sia' on stage 4 only: its window attention needs a grid in every earlier stage"
    if family == "pvt" and "sia" in mergers[:3]:
        return "PVT v1 takes 'sia' on stage 4 only: its spatial reduction and position embeddings need a grid before"
    return None


def _pvt(size: str, suffix: str = "", **changes) -> ModelSpec:
    return ModelSpec(f"pvt_{size}{suffix}", "pvt", size, f"pvt_{size}", **changes)


def _pvt_v2(variant: str, suffix: str = "", **changes) -> ModelSpec:
    size = {"b0": "tiny", "b1": "tiny", "b2": "small", "b3": "medium", "b4": "large", "b5": "large"}[variant]
    return ModelSpec(f"pvt_v2_{variant}{suffix}", "pvt_v2", size, f"pvt_v2_{variant}", **changes)


def _mergers(*stages: str) -> dict[str, tuple[str, ...]]:
    return {"mergers": ("grid", *stages)}


_SPECS = [
    *(_pvt(size) for size in ("tiny", "small", "medium", "large")),
    *(_pvt(size, "_hafa", mergers=HAFA) for size in ("tiny", "small", "medium", "large")),
    _pvt("tiny", "_hafa_qkv", mergers=HAFA, variant="qkv"),
    _pvt("tiny", "_hafa_paper", mergers=HAFA, fidelity="paper"),
    *(_pvt_v2(variant) for variant in ("b1", "b2")),
    *(_pvt_v2(variant, "_hafa", mergers=HAFA) for variant in ("b1", "b2")),
    # Table 4: one merger per transition; LAA-LAA-SIA is PVT-v2-B1(HAFA) itself.
    _pvt_v2("b1", "_sia_sia_sia", **_mergers("sia", "sia", "sia")),
    _pvt_v2("b1", "_laa_sia_sia", **_mergers("laa", "sia", "sia")),
    _pvt_v2("b1", "_laa_laa_sia", **_mergers("laa", "laa", "sia")),
    _pvt_v2("b1", "_laa_laa_laa", **_mergers("laa", "laa", "laa")),
    # Ablations told in the text of section 4.4.
    _pvt_v2("b1", "_laa_laa_conv", **_mergers("laa", "laa", "conv")),
    _pvt_v2("b1", "_laa_conv_conv", **_mergers("laa", "conv", "conv")),
    _pvt_v2("b1", "_conv_laa_sia", **_mergers("conv", "laa", "sia")),
    _pvt_v2("b1", "_conv_conv_sia", **_mergers("conv", "conv", "sia")),
    ModelSpec("swin_tiny", "swin", "tiny", "swin_tiny_patch4_window7_224"),
    ModelSpec("swin_tiny_hafa", "swin", "tiny", "swin_tiny_patch4_window7_224", mergers=HAFA),
    ModelSpec("resnet18", "resnet", "tiny", "resnet18"),
    ModelSpec("resnet50", "resnet", "small", "resnet50"),
    ModelSpec("resnext50_32x4d", "resnet", "small", "resnext50_32x4d"),
    ModelSpec("resnext101_64x4d", "resnet", "large", "resnext101_64x4d"),
    ModelSpec("deit_tiny", "vit", "tiny", "deit_tiny_patch16_224"),
    ModelSpec("deit_small", "vit", "small", "deit_small_patch16_224"),
    ModelSpec("deit_base", "vit", "large", "deit_base_patch16_224"),
    ModelSpec("vit_base", "vit", "large", "vit_base_patch16_224"),
    ModelSpec("hrnet_w32", "hrnet", "small", "hrnet_w32"),
    # Start and teacher of DynamicViT-LV-S; no row of a table.
    ModelSpec("lvvit_small", "lvvit", "small", "lvvit_small"),
    ModelSpec("dynamicvit_lvs_0.5", "dynamicvit", "small", "dynamicvit_lvs", keep=scheduled("powers", 0.5)),
    # The paper's wording, "25% within each stage"; nothing is published at this rate.
    ModelSpec(
        "dynamic_swin_tiny_0.25", "dynamic_swin", "tiny", "dynamic_swin_tiny", keep=scheduled("constant", 0.25)
    ),
]

CATALOG: dict[str, ModelSpec] = {spec.name: spec for spec in _SPECS}


def derive(base: ModelSpec, name: str, **changes) -> ModelSpec:
    """A new variant of ``base`` under another name; ``changes`` are fields of `ModelSpec`."""
    return replace(base, name=name, **changes)
