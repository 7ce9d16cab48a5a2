"""The claims of the paper: every figure and every difference that it prints, each with a locator.

The printed values are stored in `configs/paper_values.csv`, the tolerances in `configs/claims.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from hafabench.config.claims import Tolerance
from hafabench.config.experiment import Experiment
from hafabench.config.paper_values import PaperValues
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError
from hafabench.formatting.numbers import format_fixed
from hafabench.reporting import legend

Kind = Literal["static", "accuracy", "latency"]

DELTA = "_delta"
_KINDS: dict[str, Kind] = {"complexity": "static", "evaluate": "accuracy", "latency": "latency"}


@dataclass(frozen=True)
class Claim:
    """One printed figure, or one printed difference between a row and its baseline.

    Attributes:
        locator: ``table2/pvt_small_hafa/miou``, or ``table2/pvt_small_hafa/miou_delta`` for a difference.
        table_layout, row, column: The table cell that contains the claim.
        metric: Name of the metric in the paper's values.
        printed: The figure in ``unit``; ``text`` is the figure as the paper prints it.
        is_difference: Whether the claim is a difference between the row and its baseline.
        unit: ``M`` (10^6), ``G`` (10^9), ``%``, ``points`` (differences of percentages) or ``ms``.
        tolerance: Largest distance between a measured and the printed figure, in ``unit``; ``reason`` explains it.
        device: Name of the device that the figure is taken to be from; None if it does not depend on one.
        notes: Further remarks; each is a clause.
        is_derived: Whether the paper does not print the figure itself, but others from which it follows.
        is_collapse: Whether the paper prints no figure but says that the training collapsed; ``printed`` is then NaN.
    """

    locator: str
    table_layout: TableLayout
    row: Row
    column: Column
    metric: str
    printed: float
    text: str
    is_difference: bool
    unit: str
    tolerance: float
    reason: str
    device: str | None
    notes: tuple[str, ...]
    is_derived: bool = False
    is_collapse: bool = False

    @property
    def kind(self) -> Kind:
        """``static`` if it is counted; ``accuracy`` or ``latency`` if it is measured."""
        return _KINDS[self.column.verb]

    @property
    def is_beside_figure(self) -> bool:
        """Whether it is a difference that the paper prints beside the figure of the same cell."""
        return self.locator.endswith(DELTA)

    @property
    def text_with_unit(self) -> str:
        """The printed figure with its unit: ``77.5 %``."""
        if self.is_collapse:
            return self.text
        return f"{self.text}{legend.DERIVED if self.is_derived else ''} {self.unit}"

    @property
    def assumed_sd(self) -> float:
        """The standard deviation over runs that the tolerance assumes: a third of it, without half a digit."""
        return (self.tolerance - 0.5 * 10.0**-self.column.decimals) / 3

    @property
    def models(self) -> tuple[str, ...]:
        """The row's model; for a difference also the baseline."""
        if self.is_difference and self.row.baseline is not None:
            return self.row.model, self.row.baseline
        return (self.row.model,)


def paper_claims(experiment: Experiment, values: PaperValues) -> list[Claim]:
    """Return all claims of the paper in the order of the tables; a difference follows the figure it is printed with.

    Args:
        experiment: The experiment, with its table layouts and tolerances.
        values: The paper's printed values.

    Raises:
        UserError: If the claims file names something that the paper does not print.
    """
    claims: list[Claim] = []
    for table_layout in experiment.table_layouts:
        for row in table_layout.rows:
            for column in table_layout.columns:
                at = (table_layout.source, row.row or row.model)
                value, change = values.get((*at, column.key)), values.get((*at, column.change or ""))
                cell = _PaperCell(experiment, table_layout, row, column)
                if value is not None and value.value is not None:
                    claims.append(cell.claim(column.key, value.value, value.value, is_derived=value.is_derived))
                    if value.delta is not None:
                        claims.append(cell.claim(column.key, value.delta, value.value, DELTA))
                if value is not None and value.is_collapsed and column.verb == "evaluate":
                    claims.append(cell.collapse_claim(column.key))
                if column.change is not None and change is not None and change.value is not None:
                    claims.append(cell.claim(column.change, change.value, change.value, ""))
    _check_names(experiment, [claim.locator for claim in claims], ["/".join(cell) for cell in values])
    printed = {claim.locator: claim.printed for claim in claims}
    return [replace(claim, notes=(*claim.notes, *_elsewhere(experiment, claim, printed))) for claim in claims]


@dataclass(frozen=True)
class _PaperCell:
    """A table cell whose printed values become claims."""

    experiment: Experiment
    table_layout: TableLayout
    row: Row
    column: Column

    def claim(
        self, metric: str, printed: float, figure: float, suffix: str | None = None, *, is_derived: bool = False
    ) -> Claim:
        """Return the claim about a printed value.

        Args:
            metric: Name of the metric in the paper's values.
            printed: The printed figure or difference.
            figure: The printed figure.
            suffix: What the locator of a difference adds to ``metric``; None if ``printed`` is the figure itself.
            is_derived: Whether the figure follows from others that the paper prints.
        """
        difference, decimals = suffix is not None, self.column.decimals
        locator = f"{self.table_layout.source}/{self.row.row or self.row.model}/{metric}{suffix or ''}"
        tolerance, reason = 0.5 * 10**-decimals, "half a digit of the printed figure"
        device: str | None = None
        if self.column.verb != "complexity":
            rule = _tolerance(self.experiment, metric)
            # A difference has the variance of two runs.
            runs = math.sqrt(2) if difference else 1
            tolerance += rule.within * runs * (abs(figure) if rule.relative else 1)
            reason, device = rule.because, rule.device
        metric_spec = self.column.registered
        notes = (note.says for note in self.experiment.claims_config.notes if _matches(locator, note.rows))
        return Claim(
            locator=locator,
            table_layout=self.table_layout,
            row=self.row,
            column=self.column,
            metric=metric,
            printed=printed,
            text=format_fixed(printed, decimals, signed=difference),
            is_difference=difference,
            unit="points" if difference and metric_spec.is_percentage else metric_spec.table_unit,
            tolerance=tolerance,
            reason=reason,
            device=device,
            notes=tuple(notes),
            is_derived=is_derived,
        )

    def collapse_claim(self, metric: str) -> Claim:
        """Return the claim that the training of the row collapsed."""
        claim = self.claim(metric, math.nan, 0.0)
        return replace(
            claim, text=legend.COLLAPSED, tolerance=0.0, reason="a training collapses or not", is_collapse=True
        )


def _tolerance(experiment: Experiment, metric: str) -> Tolerance:
    for tolerance in experiment.claims_config.tolerances:
        if metric in tolerance.metrics:
            return tolerance
    message = f"expected a tolerance for {metric}, which {experiment.paper_values} contains"
    raise UserError(Problem(str(experiment.claims_file), "tolerances", message))


def _elsewhere(experiment: Experiment, claim: Claim, printed: Mapping[str, float]) -> Iterator[str]:
    """Yield notes on what others report for the figure, or for the baseline of a difference."""
    baseline = f"{claim.table_layout.source}/{claim.row.baseline}/{claim.metric}"
    for other in experiment.claims_config.elsewhere:
        if other.claim == claim.locator:
            yield f"{other.by}: {other.value:g}"
        elif claim.is_difference and other.claim == baseline:
            gain = printed[claim.locator.removesuffix(DELTA)] - other.value
            text = format_fixed(gain, claim.column.decimals, signed=True)
            yield f"against {other.value:g} ({other.by}) it is {text}"


def _check_names(experiment: Experiment, locators: list[str], cells: list[str]) -> None:
    """Refuse a claims file that names cells which the paper does not print: a misspelt row would be ignored."""
    source, config = YamlFile(experiment.claims_file), experiment.claims_config
    problems = []
    named = {"elsewhere": [e.claim for e in config.elsewhere], "stand_ins": [s.claim for s in config.stand_ins]}
    for section, locators_named in named.items():
        for index, locator in enumerate(locators_named):
            if locator not in cells:
                problems.append(source.problem((section, index, "claim"), f"the paper prints no {locator!r}"))
    conventions_key = source.spelling((), "row_conventions", "readings")
    patterns = {conventions_key: [c.rows for c in config.row_conventions], "notes": [n.rows for n in config.notes]}
    for section, entries in patterns.items():
        for index, rows in enumerate(entries):
            for position, pattern in enumerate(rows):
                if not any(fnmatchcase(cell, pattern) for cell in (*locators, *cells)):
                    message = f"{pattern!r} matches nothing that the paper prints"
                    problems.append(source.problem((section, index, "rows", position), message))
    if problems:
        raise UserError(problems)


def _matches(locator: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(locator, pattern) for pattern in patterns)
