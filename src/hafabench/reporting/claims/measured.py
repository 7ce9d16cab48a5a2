"""Accuracy and latency claims settled by what an experiment has measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pandas as pd

from hafabench.config import Experiment
from hafabench.layout import Row, TableLayout
from hafabench.reporting.claims.ledger import Claim
from hafabench.reporting.claims.ruling import Ruling, Verdict
from hafabench.reporting.numbers import Numbers, mark_of
from hafabench.statistics import summarize


def judge(claim: Claim, value: float, low: float | None = None, high: float | None = None) -> tuple[Verdict, str]:
    """The verdict on a figure, and the clause that gives its reason.

    Several seeds: reproduced where the interval of their mean lies within the tolerance of the printed figure,
    contradicted where it lies without. One seed: reproduced within the tolerance, contradicted beyond twice as much,
    since the printed figure is one run too. Otherwise the runs cannot tell.

    Args:
        claim: with its tolerance.
        value: the figure, or the mean over seeds, in the claim's unit.
        low, high: confidence interval of the mean; None for one seed.
    """
    # The figure's own last digit is decimal: without the allowance 0.35 - 0.3 lies beyond 0.05.
    bound = claim.tolerance + 1e-9
    away = abs(value - claim.printed)
    if low is None or high is None:
        distance = f"{away:.2f} {claim.unit} away, {claim.tolerance:.2f} allowed"
        if away <= bound:
            return "reproduced", distance
        if away > 2 * bound:
            return "contradicted", distance
        return "inconclusive", f"{distance}: more seeds would tell"
    bottom, top = claim.printed - bound, claim.printed + bound
    interval = f"interval {low:.2f} to {high:.2f}, allowed {bottom:.2f} to {top:.2f}"
    if bottom <= low and high <= top:
        return "reproduced", interval
    if high < bottom or low > top:
        return "contradicted", interval
    return "inconclusive", interval


class Measured:
    """What an experiment has measured, by claim.

    Args:
        experiment: embedded numbers never settle a claim of the paper.
        frame: of `hafabench.results.collect`.
    """

    def __init__(self, experiment: Experiment, frame: pd.DataFrame):
        self.experiment, self.frame = experiment, frame

    def rule(self, claim: Claim) -> Ruling:
        """The ruling on an accuracy or latency claim."""
        models = [claim.model, *([claim.baseline] if claim.baseline else [])]
        numbers = self._numbers(claim, models)
        metrics = [numbers.of(claim.column, model) for model in models]
        if claim.kind == "latency":
            metrics = [[m for m in found if claim.device.lower() in str(m.device).lower()] for found in metrics]
        elif self.experiment.config.scale == "embedded":
            return Ruling(claim, "not run", "numbers on embedded data are about other data")
        if not all(metrics):
            return Ruling(claim, "not run", self._missing(claim, numbers, models))
        if len({mark_of(found) for found in metrics}) > 1:
            return Ruling(claim, "not run", "the row and its baseline were not both measured here")
        return self._compare(claim, numbers, metrics)

    def _numbers(self, claim: Claim, models: Sequence[str]) -> Numbers:
        # Not every claim stands in a table that has a layout.
        rows = [Row(model=model, label=model, group="") for model in models]
        layout = TableLayout.model_construct(id=claim.table, title="", columns=[claim.column], rows=rows)
        return Numbers(layout, self.frame)

    def _missing(self, claim: Claim, numbers: Numbers, models: Sequence[str]) -> str:
        elsewhere = [m for model in models for m in numbers.of(claim.column, model)]
        if claim.device and elsewhere:
            return f"measured on {elsewhere[0].device}; the paper's figure is of an {claim.device}"
        return "nothing measured"

    def _compare(self, claim: Claim, numbers: Numbers, metrics: list[list]) -> Ruling:
        origin = mark_of(metrics[0])
        values = [[metric.value * claim.column.factor for metric in found] for found in metrics]
        paired = numbers.paired(claim.column, claim.model, claim.baseline) if claim.baseline else None
        if paired is not None and paired.n > 1:
            value, low, high, seeds = paired.difference, paired.low, paired.high, paired.n
        else:
            means = [statistics.fmean(found) for found in values]
            value = means[0] - means[1] if claim.baseline else means[0]
            alone = summarize(values[0]) if not claim.baseline else None
            low, high = (alone.low, alone.high) if alone else (None, None)
            seeds = min(sum(metric.seed is not None for metric in found) for found in metrics)
        verdict, because = judge(claim, value, low, high)
        return Ruling(claim, verdict, because, value, low, high, seeds=seeds, origin=origin)
