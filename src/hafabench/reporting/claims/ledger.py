"""Every printed figure and printed difference of the paper as a claim with a locator: what there is to be settled.

A claim is a cell of the tables' layout that the paper's values fill (`configs/paper_values.csv`); how far a measured
figure may lie from it stands in `configs/claims.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from hafabench.config.claims import Tolerance
from hafabench.config.experiment import Experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError

Kind = Literal["static", "accuracy", "latency"]

DELTA = "_delta"
_KINDS: dict[str, Kind] = {"complexity": "static", "evaluate": "accuracy", "latency": "latency"}


@dataclass(frozen=True)
class Claim:
    """One printed figure, or one printed difference between a row and its baseline.

    Attributes:
        locator: ``table2/pvt_small_hafa/miou``, or ``table2/pvt_small_hafa/miou_delta`` for a difference.
        layout, row, column: the cell that it stands in.
        metric: its name in the paper's values.
        printed: the figure, in ``unit``; ``text`` as the paper prints it.
        is_difference: whether it is about the row against its baseline.
        unit: ``M`` (10^6), ``G`` (10^9), ``%``, ``points`` (differences of percentages), ``ms``.
        tolerance: how far a measured figure may lie from the printed one, in ``unit``; ``reason`` says why.
        device: part of the device's name where the figure is about one.
        notes: what has to be known besides, clauses.
    """

    locator: str
    layout: TableLayout
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

    @property
    def kind(self) -> Kind:
        """``static``: counted; ``accuracy`` or ``latency``: measured."""
        return _KINDS[self.column.verb]

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it is about: the row's, and for a difference the baseline's."""
        return (self.row.model, self.row.baseline) if self.is_difference else (self.row.model,)


def paper_claims(experiment: Experiment) -> list[Claim]:
    """Every claim of the paper in the tables' order, a row's difference behind the figure that it is printed with.

    Raises:
        UserError: for paper values that cannot be read, or a claims file that names what the paper does not print.
    """
    values = load_paper_values(experiment.paper_values)
    claims: list[Claim] = []
    for layout in experiment.table_layouts:
        for row in layout.rows:
            for column in layout.columns:
                at = (layout.source, row.row or row.model)
                value, change = values.get((*at, column.key)), values.get((*at, column.change or ""))
                cell = _Cell(experiment, layout, row, column)
                if value is not None and value.value is not None:
                    claims.append(cell.claim(column.key, value.value, value.value))
                    if value.delta is not None:
                        claims.append(cell.claim(column.key, value.delta, value.value, DELTA))
                if change is not None and change.value is not None:
                    claims.append(cell.claim(column.change, change.value, change.value, ""))
    _refuse_unknown(experiment, [claim.locator for claim in claims], ["/".join(cell) for cell in values])
    printed = {claim.locator: claim.printed for claim in claims}
    return [replace(claim, notes=(*claim.notes, *_elsewhere(experiment, claim, printed))) for claim in claims]


@dataclass(frozen=True)
class _Cell:
    experiment: Experiment
    layout: TableLayout
    row: Row
    column: Column

    def claim(self, metric: str, printed: float, figure: float, suffix: str | None = None) -> Claim:
        """The claim ``printed``; ``suffix`` is what a difference adds to the locator of its ``figure``."""
        difference, decimals = suffix is not None, self.column.decimals
        metric_spec = self.column.registered
        locator = f"{self.layout.source}/{self.row.row or self.row.model}/{metric}{suffix or ''}"
        tolerance, reason, device = 0.5 * 10**-decimals, "half a digit of the printed figure", None
        if self.column.verb != "complexity":
            rule = _tolerance(self.experiment, metric)
            # Two runs vary where one does.
            runs = math.sqrt(2) if difference else 1
            tolerance += rule.within * runs * (abs(figure) if rule.relative else 1)
            reason, device = rule.because, rule.device
        notes = (note.says for note in self.experiment.claims_config.notes if _matches(locator, note.rows))
        return Claim(
            locator=locator,
            layout=self.layout,
            row=self.row,
            column=self.column,
            metric=metric,
            printed=printed,
            text=f"{printed:+.{decimals}f}" if difference else f"{printed:.{decimals}f}",
            is_difference=difference,
            unit="points" if difference and metric_spec.is_percentage else metric_spec.table_unit,
            tolerance=tolerance,
            reason=reason,
            device=device,
            notes=tuple(notes),
        )


def _tolerance(experiment: Experiment, metric: str) -> Tolerance:
    for tolerance in experiment.claims_config.tolerances:
        if metric in tolerance.metrics:
            return tolerance
    message = f"expected a tolerance for {metric}, which {experiment.paper_values} prints"
    raise UserError(Problem(str(experiment.claims_file), "tolerances", message))


def _elsewhere(experiment: Experiment, claim: Claim, printed: Mapping[str, float]) -> Iterator[str]:
    """What others report for a figure, or for the baseline that a gain is against."""
    for other in experiment.claims_config.elsewhere:
        if other.claim == claim.locator:
            yield f"{other.by}: {other.value:g}"
        elif claim.is_difference and other.claim == f"{claim.layout.source}/{claim.row.baseline}/{claim.metric}":
            gain = printed[claim.locator.removesuffix(DELTA)] - other.value
            yield f"against {other.value:g} ({other.by}) it is {gain:+.{claim.column.decimals}f}"


def _refuse_unknown(experiment: Experiment, locators: list[str], cells: list[str]) -> None:
    """Whatever the claims file names has to be printed in the paper: a misspelt row would be silently ignored."""
    source, config = YamlFile(experiment.claims_file), experiment.claims_config
    problems = []
    for section in ("elsewhere", "stand_ins"):
        for index, entry in enumerate(getattr(config, section)):
            if entry.claim not in cells:
                problems.append(source.problem((section, index, "claim"), f"the paper prints no {entry.claim!r}"))
    conventions_key = source.spelling((), "row_conventions", "readings")
    for section, entries in ((conventions_key, config.row_conventions), ("notes", config.notes)):
        for index, entry in enumerate(entries):
            for position, pattern in enumerate(entry.rows):
                if not any(fnmatchcase(cell, pattern) for cell in (*locators, *cells)):
                    message = f"{pattern!r} matches nothing that the paper prints"
                    problems.append(source.problem((section, index, "rows", position), message))
    if problems:
        raise UserError(problems)


def _matches(locator: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(locator, pattern) for pattern in patterns)
