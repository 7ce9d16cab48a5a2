"""The models of an experiment file: those that it defines itself, and published weights that models start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from hafabench.config.base import RenamedKeysModel, StrictModel, UserPath
from hafabench.config.catalog import ModelSpec, derive, merger_problem
from hafabench.config.keep_rates import KeepRates, keep_rates_problem, scheduled


class KeepConfig(StrictModel):
    """Keep rates that follow from a schedule and one rate."""

    schedule: Literal["constant", "powers", "steps", "clamped"] = Field(
        description="How the three keep rates follow from `rate`."
    )
    rate: float = Field(ge=0, le=1, description="Share of the tokens that is kept, between 0 and 1.")


class WeightsConfig(StrictModel):
    """Published ImageNet weights from which the dense runs of a model start. A path alone stands for `file`."""

    file: UserPath = Field(
        description="File with the weights, in any layout that `hafabench evaluate --weights` reads. The path is "
        "absolute or relative to the working directory."
    )
    part: str | None = Field(
        None, description="Entry of the file that contains the weights, if the file has several sets of weights."
    )
    rename: dict[str, str] = Field(
        default_factory=dict,
        description="For each prefix of names in the file, the prefix in the model. Only unknown names need it.",
    )


def _file_alone(value: Any) -> Any:
    return {"file": value} if isinstance(value, str | Path) else value


class ModelConfig(RenamedKeysModel):
    """A model that an experiment derives from a model of the catalog, or weights for a model of the catalog."""

    base: str | None = Field(
        None,
        description="Name of the model that this one is derived from; see `hafabench models`. Models of the catalog "
        "have no `base`, all others need it.",
    )
    mergers: tuple[str, ...] | None = Field(
        None,
        description="Mergers in front of the four stages (`grid`, `conv`, `laa`, `sia`); by default those of `base`.",
    )
    query_mode: Literal["q", "qkv"] = Field(
        "q",
        validation_alias=AliasChoices("query_mode", "variant"),
        description="Whether the cluster tokens of SIA are queries only (`q`) or queries, keys and values (`qkv`).",
    )
    fidelity: Literal["published_code", "paper"] = Field(
        "published_code",
        description="Source of the keys and values after SIA, on which the published code and the text of the paper "
        "disagree. Everything else is the same with both.",
    )
    keep: KeepConfig | tuple[float, float, float] | None = Field(
        None, description="Keep rates of a model that drops tokens: the three rates, or a schedule."
    )
    weights: Annotated[
        WeightsConfig | None, BeforeValidator(_file_alone, json_schema_input_type=Path | WeightsConfig | None)
    ] = Field(
        None,
        description="Published ImageNet weights from which the segmentation and detection runs of this model start, "
        "instead of a classification run of this experiment.",
    )

    @property
    def rates(self) -> KeepRates | None:
        """The three keep rates; None for a model that drops no tokens."""
        return scheduled(self.keep.schedule, self.keep.rate) if isinstance(self.keep, KeepConfig) else self.keep

    def mergers_on(self, base: ModelSpec) -> tuple[str, ...]:
        """The mergers of this model, which are those of ``base`` by default."""
        return base.mergers if self.mergers is None else self.mergers

    def problem(self, base: ModelSpec) -> tuple[str, str] | None:
        """The key that ``base`` does not support, with the reason; None if all keys are supported."""
        if base.keep is None and self.keep is None:
            wrong = merger_problem(base.family, self.mergers_on(base))
            return ("mergers", wrong) if wrong else None
        if base.keep is None:
            return "keep", f"{base.name!r} drops no tokens; expected a base that does"
        if self.model_fields_set - {"weights"} != {"base", "keep"} or self.rates is None:
            return "keep", f"a model derived from {base.name!r} can differ in its keep rates only"
        wrong = keep_rates_problem(self.rates)
        return ("keep", wrong) if wrong else None

    def derived(self, base: ModelSpec, name: str) -> ModelSpec:
        """The model called ``name``, derived from ``base``."""
        if self.keep is not None:
            return derive(base, name, keep=self.rates)
        return derive(base, name, mergers=self.mergers_on(base), query_mode=self.query_mode, fidelity=self.fidelity)
