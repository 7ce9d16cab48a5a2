"""Variants of known models that an experiment defines for itself: other mergers, or other keep rates."""

from __future__ import annotations

from typing import Literal

from hafabench.config.base import StrictModel
from hafabench.config.catalog import FIDELITIES, ModelSpec, derive, merger_problem
from hafabench.config.keep_rates import KeepRates, rates_problem, scheduled


class KeepConfig(StrictModel):
    """Keep rates by the name of a schedule and its rate."""

    schedule: Literal["constant", "powers", "steps", "clamped"]
    rate: float


class ModelConfig(StrictModel):
    """A variant of a known architecture, defined by an experiment.

    Attributes:
        keep: of a model that drops tokens: the three rates, or a schedule.
    """

    base: str
    mergers: tuple[str, ...] | None = None
    variant: Literal["q", "qkv"] = "q"
    fidelity: Literal["published_code", "paper"] = FIDELITIES[0]
    keep: KeepConfig | tuple[float, float, float] | None = None

    @property
    def rates(self) -> KeepRates | None:
        """The three keep rates."""
        return scheduled(self.keep.schedule, self.keep.rate) if isinstance(self.keep, KeepConfig) else self.keep

    def mergers_on(self, base: ModelSpec) -> tuple[str, ...]:
        """The mergers, those of ``base`` where none are given."""
        return base.mergers if self.mergers is None else self.mergers

    def problem(self, base: ModelSpec) -> tuple[str, str] | None:
        """The key that cannot be had of ``base``, and why; None where all can."""
        if base.keep is None and self.keep is None:
            wrong = merger_problem(base.family, self.mergers_on(base))
            return ("mergers", wrong) if wrong else None
        if base.keep is None:
            return "keep", f"{base.name!r} drops no tokens; expected a base that does"
        if self.model_fields_set != {"base", "keep"} or self.rates is None:
            return "keep", f"a variant of {base.name!r} differs in its keep rates, and in nothing else"
        wrong = rates_problem(self.rates)
        return ("keep", wrong) if wrong else None

    def derived(self, base: ModelSpec, name: str) -> ModelSpec:
        """The variant of ``base`` under its own ``name``."""
        if self.keep is not None:
            return derive(base, name, keep=self.rates)
        return derive(base, name, mergers=self.mergers_on(base), variant=self.variant, fidelity=self.fidelity)
