"""Accuracy and latency claims settled by what an experiment has measured."""

from __future__ import annotations

import statistics

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.reporting.claims.ledger import Claim
from hafabench.reporting.claims.verdicts import Ruling, Verdict
from hafabench.reporting.numbers import Numbers, mark_of
from hafabench.stats.paired import summarize


def judge(claim: Claim, value: float, low: float | None = None, high: float | None = None) -> tuple[Verdict, str]:
    """The verdict on a figure, and the clause that gives its reason.

    Several seeds: reproduced where the interval of their mean lies within the tolerance of the printed figure,
    contradicted where it lies without. One seed: reproduced within the tolerance, contradicted beyond twice as much,
    since the printed figure is one run too. Otherwise the runs cannot tell; nor can they where a difference that they
    reproduce might as well be none.

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
        if away <= bound and claim.is_difference and abs(claim.printed) <= bound:
            return "inconclusive", f"{distance}: one run each cannot tell {claim.text} from none"
        if away <= bound:
            return "reproduced", distance
        if away > 2 * bound:
            return "contradicted", distance
        return "inconclusive", f"{distance}: more seeds would tell"
    bottom, top = claim.printed - bound, claim.printed + bound
    interval = f"interval {low:.2f} to {high:.2f}, allowed {bottom:.2f} to {top:.2f}"
    if bottom <= low and high <= top:
        if claim.is_difference and low <= 0 <= high:
            return "inconclusive", f"{interval}: it holds zero"
        return "reproduced", interval
    if high < bottom or low > top:
        return "contradicted", interval
    return "inconclusive", interval


class Measured:
    """What an experiment has measured, by claim.

    Args:
        experiment: embedded numbers never settle a claim of the paper.
        frame: of `hafabench.reporting.frame`.
    """

    def __init__(self, experiment: Experiment, frame: pd.DataFrame):
        self.experiment = experiment
        self._numbers = {layout.id: Numbers(layout, frame) for layout in experiment.table_layouts}

    def rule(self, claim: Claim) -> Ruling:
        """The ruling on an accuracy or latency claim."""
        numbers = self._numbers[claim.layout.id]
        metrics = [numbers.of(claim.column, model) for model in claim.models]
        if claim.kind == "accuracy" and self.experiment.config.scale == "embedded":
            return Ruling(claim, "not run", "numbers on embedded data are about other data")
        if claim.device:
            metrics = [[m for m in found if claim.device.lower() in str(m.device).lower()] for found in metrics]
        if not all(metrics):
            return Ruling(claim, "not run", self._missing(claim, numbers))
        if len({mark_of(found) for found in metrics}) > 1:
            return Ruling(claim, "not run", "the row and its baseline were not both measured here")
        return self._compare(claim, numbers, metrics)

    def _missing(self, claim: Claim, numbers: Numbers) -> str:
        elsewhere = [metric for model in claim.models for metric in numbers.of(claim.column, model)]
        if claim.device and elsewhere:
            return f"measured on {elsewhere[0].device}; the paper's figure is of an {claim.device}"
        return "nothing measured"

    def _compare(self, claim: Claim, numbers: Numbers, metrics: list[list]) -> Ruling:
        origin = mark_of(metrics[0])
        values = [[metric.value * claim.column.factor for metric in found] for found in metrics]
        paired = numbers.paired(claim.column, *claim.models) if claim.is_difference else None
        if paired is not None and paired.n > 1:
            value, low, high, seeds = paired.difference, paired.low, paired.high, paired.n
        else:
            means = [statistics.fmean(found) for found in values]
            value = means[0] - means[1] if claim.is_difference else means[0]
            alone = None if claim.is_difference else summarize(values[0])
            low, high = (alone.low, alone.high) if alone else (None, None)
            seeds = min(sum(metric.seed is not None for metric in found) for found in metrics)
        verdict, because = judge(claim, value, low, high)
        return Ruling(claim, verdict, because, value, low, high, seeds=seeds, origin=origin)
