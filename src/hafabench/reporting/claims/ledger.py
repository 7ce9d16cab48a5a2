"""Every printed figure and printed difference of the paper as a claim with a locator: what there is to be settled.

The claims are the paper's values (`configs/paper_values.csv`); which model and metric each is about follows from the
tables' layout, how far a measured figure may lie from it from `configs/claims.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from hafabench.config import Experiment, LatencyConfig
from hafabench.errors import Problem, UserError
from hafabench.layout import Column
from hafabench.readings import Tolerance
from hafabench.reporting.paper import PaperValue, load_paper_values
from hafabench.yamlfile import YamlFile

Kind = Literal["static", "accuracy", "latency"]

DELTA = "_delta"
_UNITS = {"params_m": "M", "gflops": "G", "latency_ms": "ms"}
_HALF_A_DIGIT = "half a digit of the printed figure"


@dataclass(frozen=True)
class Claim:
    """One printed figure, or one printed difference between a row and its baseline.

    Attributes:
        locator: ``table2/pvt_small_hafa/miou``, or ``table2/pvt_small_hafa/miou_delta`` for a difference.
        table, row, metric: its place in the paper's values; ``label`` is the row's.
        kind: ``static`` (counted), ``accuracy`` or ``latency`` (measured).
        is_difference: whether it is about the row against ``baseline``.
        printed: the figure, in ``unit``; ``text`` as the paper prints it.
        unit: ``M`` (10^6), ``G`` (10^9), ``%``, ``points`` (differences of percentages), ``ms``.
        column: what is compared: task, metric of the records, factor, digits, latency group.
        model, baseline: names of the catalogue.
        tolerance: how far a measured figure may lie from the printed one, in ``unit``; ``reason`` says why.
        device: part of the device's name where the figure is about one.
        notes: what has to be known besides, clauses.
    """

    locator: str
    table: str
    row: str
    metric: str
    label: str
    kind: Kind
    is_difference: bool
    printed: float
    text: str
    unit: str
    column: Column
    model: str
    baseline: str | None
    tolerance: float
    reason: str
    device: str | None
    notes: tuple[str, ...]


def paper_claims(experiment: Experiment) -> list[Claim]:
    """Every claim of the paper, in its order, a row's difference behind the figure that it is printed with.

    Raises:
        UserError: for paper values that cannot be read, or a claims file that names what the paper does not print.
    """
    values = load_paper_values(experiment.paper_values)
    claims = [claim for value in values.values() for claim in _claims_of(experiment, value)]
    _refuse_unknown(experiment, {claim.locator for claim in claims}, values)
    printed = {claim.locator: claim.printed for claim in claims}
    return [_with_elsewhere(experiment, claim, printed) for claim in claims]


def _claims_of(experiment: Experiment, value: PaperValue) -> Iterator[Claim]:
    if value.value is None:
        return
    model, baseline = _model(experiment, value.table, value.row), None
    if value.baseline is not None:
        baseline = _model(experiment, value.table, value.baseline)
    column = _column(experiment, value, model)
    locator = f"{value.table}/{value.row}/{value.metric}"
    # A figure that is itself a change against a baseline is a difference, and printed as one.
    change = value.metric.endswith("_change")
    yield _claim(experiment, value, locator, column, model, baseline if change else None, value.value)
    if value.delta is not None:
        yield _claim(experiment, value, locator + DELTA, column, model, baseline, value.delta)


def _claim(
    experiment: Experiment,
    value: PaperValue,
    locator: str,
    column: Column,
    model: str,
    baseline: str | None,
    printed: float,
) -> Claim:
    difference = baseline is not None
    kind: Kind = "static" if column.verb == "complexity" else "latency" if column.verb == "latency" else "accuracy"
    tolerance, reason, device = 0.5 * 10**-column.decimals, _HALF_A_DIGIT, None
    if kind != "static":
        rule = _tolerance(experiment, value.metric)
        within = rule.within * (abs(value.value) if rule.relative else 1)
        tolerance += within * (math.sqrt(2) if difference else 1)
        reason, device = rule.because, rule.device
    unit = _UNITS.get(value.metric, "points" if difference else "%")
    return Claim(
        locator=locator,
        table=value.table,
        row=value.row,
        metric=value.metric,
        label=value.label,
        kind=kind,
        is_difference=difference,
        printed=printed,
        text=f"{printed:+.{column.decimals}f}" if difference else f"{printed:.{column.decimals}f}",
        unit=unit,
        column=column,
        model=model,
        baseline=baseline,
        tolerance=tolerance,
        reason=reason,
        device=device,
        notes=tuple(
            note.says
            for note in experiment.readings.notes
            if any(fnmatchcase(locator, pattern) for pattern in note.rows)
        ),
    )


def _model(experiment: Experiment, table: str, row: str) -> str:
    """The model of a row: as the table's layout says, or the one of that name."""
    layouts = [layout for layout in experiment.layouts if layout.id == table]
    # Rows told in the text have the names that they have in a table, where they stand in one.
    for layout in layouts or experiment.layouts:
        for entry in layout.rows:
            if row in (entry.row, entry.model):
                return entry.model
    return row


def _column(experiment: Experiment, value: PaperValue, model: str) -> Column:
    for layout in experiment.layouts:
        if layout.id == value.table:
            for column in layout.columns:
                if column.key == value.metric:
                    return column
    if value.metric == "latency_ms":
        return Column(
            key="latency_ms", header="Latency (ms)", task="classification", latency=_group(experiment, model)
        )
    metric = value.metric.removesuffix("_change")
    return Column(key=value.metric, header=metric, task="classification", metric=metric)


def _group(experiment: Experiment, model: str) -> str:
    """The latency group that times a model as section 4.1 does; the model's name where there is none."""

    def is_it(group: LatencyConfig) -> bool:
        return model in (group.baseline, *group.models) and (group.batch_size, group.image_size) == (1, 224)

    return next((group.name for group in experiment.config.latency if is_it(group)), model)


def _tolerance(experiment: Experiment, metric: str) -> Tolerance:
    for tolerance in experiment.readings.tolerances:
        if metric in tolerance.metrics:
            return tolerance
    message = f"no tolerance for {metric}, which {experiment.paper_values} prints"
    raise UserError(Problem(str(experiment.claims_file), "tolerances", message))


def _with_elsewhere(experiment: Experiment, claim: Claim, printed: dict[str, float]) -> Claim:
    """The claim with a note on what others report for it, or for the baseline that its gain is against."""
    notes = []
    for other in experiment.readings.elsewhere:
        if other.claim == claim.locator:
            notes.append(f"{other.by}: {other.value:g}")
        elif claim.is_difference and other.claim == f"{claim.table}/{claim.baseline}/{claim.metric}":
            gain = printed[claim.locator.removesuffix(DELTA)] - other.value
            notes.append(f"against {other.value:g} ({other.by}) it is {gain:+.{claim.column.decimals}f}")
    if not notes:
        return claim
    return Claim(**{**claim.__dict__, "notes": (*claim.notes, *notes)})


def _refuse_unknown(experiment: Experiment, locators: set[str], values: dict) -> None:
    """Whatever the claims file names has to be printed in the paper: a misspelt row would be silently ignored."""
    source, readings = YamlFile(experiment.claims_file), experiment.readings
    cells = locators | {f"{table}/{row}/{metric}" for table, row, metric in values}
    problems = []
    for section in ("elsewhere", "stand_ins"):
        for index, entry in enumerate(getattr(readings, section)):
            if entry.claim not in locators:
                problems.append(source.problem((section, index, "claim"), f"the paper prints no {entry.claim!r}"))
    for section in ("readings", "notes"):
        for index, entry in enumerate(getattr(readings, section)):
            for position, pattern in enumerate(entry.rows):
                if not any(fnmatchcase(cell, pattern) for cell in cells):
                    message = f"{pattern!r} matches nothing that the paper prints"
                    problems.append(source.problem((section, index, "rows", position), message))
    if problems:
        raise UserError(problems)
