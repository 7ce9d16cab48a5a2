"""The models of Tables 1-6 as data, by name. `hafabench.models` builds them, and configurations refer to them.

This module does not import torch, because the workflow and the configuration checks read it without building models.
The network of a model is defined in the file of its family, ``hafabench/models/<family>.py``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from hafabench.config.keep_rates import KeepRates, describe_rates, scheduled

MERGERS: tuple[str, ...] = ("grid", "laa", "sia", "conv")
QUERY_MODES: tuple[str, ...] = ("q", "qkv")
FIDELITIES: tuple[str, ...] = ("published_code", "paper")
MERGER_FAMILIES: tuple[str, ...] = ("pvt", "pvt_v2", "swin")
GRID_ONLY = ("grid", "grid", "grid", "grid")
HAFA = ("grid", "laa", "laa", "sia")
SIZES: tuple[str, ...] = ("tiny", "small", "medium", "large")

SIDE_MULTIPLES = {"vit": 16, "hrnet": 32}
"""Families whose classifiers need images with sides that are multiples of a number of pixels."""

WITHOUT_PYRAMID = frozenset({"vit", "hrnet", "lvvit", "dynamicvit", "dynamic_swin"})
"""Families whose models have no feature pyramid, which dense tasks need."""

WITHOUT_DROP_PATH = frozenset({"hrnet"})
"""Families whose models have no stochastic depth."""

MIN_WIDTH = 1 / 16
"""Smallest width at which every model of the catalog can be built, and at which models keep their order of sizes."""

MIN_DEPTH = 1 / 4
"""Smallest depth at which models keep their order of sizes."""


@dataclass(frozen=True)
class ModelSpec:
    """A model as data.

    Attributes:
        name: Name in tables, configurations and run ids. In timm, this project's models have the same name with
            underscores instead of dots.
        family: Module of `hafabench.models` that builds the model. Recipes have values per family.
        size: Size row of the recipe (``tiny``, ``small``, ``medium``, ``large``).
        architecture: timm's name of the model, or the base architecture of this project's own model (``pvt_tiny``).
        mergers: Merger in front of each of the stages 1-4. The first is the patch embedding and always ``grid``.
        query_mode: ``q`` if cluster tokens are queries only; ``qkv`` if they are queries, keys and values (Table 5).
        fidelity: Source of the keys and values after SIA, on which the published code and the text of the paper
            disagree: ``published_code`` or ``paper``. Everything else is the same with both.
        keep: Share of the tokens that is kept after each predictor; None for models that drop no tokens.
        width: Channels of the model as a fraction of the full size; see `hafabench.models.scaling`.
        depth: Blocks of the model as a fraction of the full size.
    """

    name: str
    family: str
    size: str
    architecture: str
    mergers: tuple[str, ...] = GRID_ONLY
    query_mode: str = "q"
    fidelity: str = "published_code"
    keep: KeepRates | None = None
    width: float = 1.0
    depth: float = 1.0

    @property
    def description(self) -> str:
        """Mergers of stages 2-4, or the keep rates, in a few words."""
        if self.keep is not None:
            return f"keeps {describe_rates(self.keep)}"
        return "-".join(self.mergers[1:]) if self.has_mergers else "own grid"

    @property
    def has_mergers(self) -> bool:
        """Whether any stage has another merger than the architecture's own grid."""
        return self.mergers != GRID_ONLY

    def as_record(self) -> dict[str, Any]:
        """The fields under their names in records and fingerprints, which call the query mode ``variant``.

        The scale is left out for models of full size, because the first records were made without it.
        """
        values = {"variant" if name == "query_mode" else name: value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if name not in ("width", "depth") or value != 1}

    @property
    def is_scaled(self) -> bool:
        """Whether the model is smaller than the one of the paper."""
        return (self.width, self.depth) != (1, 1)

    @property
    def scale_text(self) -> str:
        """The size as a clause: ``width 0.25, depth 1``."""
        return f"width {self.width:g}, depth {self.depth:g}"


def merger_problem(family: str, mergers: tuple[str, ...]) -> str | None:
    """Explain why ``family`` cannot use ``mergers``; None if it can.

    Every stage has one merger. Stage 1 is the patch embedding and stays a grid. LAA and plain convolutions need a
    grid of pixels, so they cannot follow SIA, whose tokens have no grid.
    """
    if family not in MERGER_FAMILIES:
        return f"family {family!r} takes no mergers; expected one of {', '.join(MERGER_FAMILIES)}"
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
        return (
            "PVT v1 takes 'sia' on stage 4 only: its spatial reduction and position embeddings need a grid in every "
            "earlier stage"
        )
    return None


def side_problem(spec: ModelSpec, *sides: int) -> str | None:
    """Explain why a classifier cannot read images with these sides, in pixels; None if it can."""
    multiple = SIDE_MULTIPLES.get(spec.family, 1)
    if all(side % multiple == 0 for side in sides):
        return None
    found = " x ".join(map(str, sides))
    return f"expected a multiple of {multiple} pixels for {spec.name}, found {found}"


def _spec(name: str, family: str, size: str, architecture: str = "", **fields: Any) -> ModelSpec:
    return ModelSpec(name, family, size, architecture or name, **fields)


_SPECS = [
    _spec("pvt_tiny", "pvt", "tiny"),
    _spec("pvt_small", "pvt", "small"),
    _spec("pvt_medium", "pvt", "medium"),
    _spec("pvt_large", "pvt", "large"),
    _spec("pvt_tiny_hafa", "pvt", "tiny", "pvt_tiny", mergers=HAFA),
    _spec("pvt_small_hafa", "pvt", "small", "pvt_small", mergers=HAFA),
    _spec("pvt_medium_hafa", "pvt", "medium", "pvt_medium", mergers=HAFA),
    _spec("pvt_large_hafa", "pvt", "large", "pvt_large", mergers=HAFA),
    _spec("pvt_tiny_hafa_qkv", "pvt", "tiny", "pvt_tiny", mergers=HAFA, query_mode="qkv"),
    _spec("pvt_tiny_hafa_paper", "pvt", "tiny", "pvt_tiny", mergers=HAFA, fidelity="paper"),
    _spec("pvt_v2_b1", "pvt_v2", "tiny"),
    _spec("pvt_v2_b2", "pvt_v2", "small"),
    _spec("pvt_v2_b1_hafa", "pvt_v2", "tiny", "pvt_v2_b1", mergers=HAFA),
    _spec("pvt_v2_b2_hafa", "pvt_v2", "small", "pvt_v2_b2", mergers=HAFA),
    # Table 4: one merger per transition. LAA-LAA-SIA is PVT-v2-B1(HAFA) itself.
    _spec("pvt_v2_b1_sia_sia_sia", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "sia", "sia", "sia")),
    _spec("pvt_v2_b1_laa_sia_sia", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "laa", "sia", "sia")),
    _spec("pvt_v2_b1_laa_laa_sia", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "laa", "laa", "sia")),
    _spec("pvt_v2_b1_laa_laa_laa", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "laa", "laa", "laa")),
    # Ablations in the text of section 4.4.
    _spec("pvt_v2_b1_laa_laa_conv", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "laa", "laa", "conv")),
    _spec("pvt_v2_b1_laa_conv_conv", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "laa", "conv", "conv")),
    _spec("pvt_v2_b1_conv_laa_sia", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "conv", "laa", "sia")),
    _spec("pvt_v2_b1_conv_conv_sia", "pvt_v2", "tiny", "pvt_v2_b1", mergers=("grid", "conv", "conv", "sia")),
    _spec("swin_tiny", "swin", "tiny", "swin_tiny_patch4_window7_224"),
    _spec("swin_tiny_hafa", "swin", "tiny", "swin_tiny_patch4_window7_224", mergers=HAFA),
    _spec("resnet18", "resnet", "tiny"),
    _spec("resnet50", "resnet", "small"),
    _spec("resnext50_32x4d", "resnet", "small"),
    _spec("resnext101_64x4d", "resnet", "large"),
    _spec("deit_tiny", "vit", "tiny", "deit_tiny_patch16_224"),
    _spec("deit_small", "vit", "small", "deit_small_patch16_224"),
    _spec("deit_base", "vit", "large", "deit_base_patch16_224"),
    _spec("vit_base", "vit", "large", "vit_base_patch16_224"),
    _spec("hrnet_w32", "hrnet", "small"),
    # DynamicViT-LV-S starts from this model, which is also its teacher. No table has a row of it.
    _spec("lvvit_small", "lvvit", "small"),
    _spec("dynamicvit_lvs_0.5", "dynamicvit", "small", "dynamicvit_lvs", keep=scheduled("powers", 0.5)),
    # The paper keeps "25% within each stage"; no weights or schedule are published for this rate.
    _spec("dynamic_swin_tiny_0.25", "dynamic_swin", "tiny", "dynamic_swin_tiny", keep=scheduled("constant", 0.25)),
]

CATALOG: dict[str, ModelSpec] = {spec.name: spec for spec in _SPECS}


def derive(base: ModelSpec, name: str, **changes: Any) -> ModelSpec:
    """Return a model that is derived from another one.

    Args:
        base: The other model.
        name: Name of the new model.
        changes: Fields of `ModelSpec` that differ.
    """
    return replace(base, name=name, **changes)
