"""Rows with a baseline against it, seed by seed: did it get better, worse, or can these runs not tell?

Compared are the columns of the tables that print a difference (the paper's own comparisons), wherever both models
were measured here on two common seeds or more. All comparisons of an experiment are one family: p values are
corrected by Holm's method, and a verdict other than "cannot tell" needs a corrected p below 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import Task
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.reporting.numbers import Numbers, mark_of
from hafabench.stats.paired import CONFIDENCE, PairedComparison, Summary, holm, summarize

LEVEL = 1 - CONFIDENCE
Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Comparison:
    """A model against its baseline in one metric, in the column's unit.

    Attributes:
        table: number of the first table that holds it.
        task, metric: what is compared; ``header`` is the column's heading, ``decimals`` its digits.
        model, baseline: the two models; ``label`` and ``baseline_label`` as the table calls them.
        candidate, reference: the two models' values on the common seeds.
        paired: candidate minus baseline.
        p_holm: p value corrected over all comparisons of the experiment; None where the differences do not vary.
        family: number of comparisons that it is corrected over.
    """

    table: str
    task: Task
    metric: str
    header: str
    decimals: int
    model: str
    label: str
    baseline: str
    baseline_label: str
    candidate: Summary
    reference: Summary
    paired: PairedComparison
    p_holm: float | None = None
    family: int = 0

    @property
    def verdict(self) -> Verdict:
        """What the runs say, where more of the metric is better."""
        if self.p_holm is None or self.p_holm >= LEVEL:
            return "cannot tell"
        return "better" if self.paired.difference > 0 else "worse"

    @property
    def sentence(self) -> str:
        """The verdict in plain words, with what it rests on."""
        paired, places = self.paired, self.decimals + 1
        subject = f"{self.label} against {self.baseline_label}, {self.header}: {self.verdict}"
        difference = f"difference {paired.difference:+.{places}f}"
        if paired.p is None:
            return f"{subject} ({difference} on each of {paired.n} seeds: without spread there is no test)."
        interval = f"95 % interval {paired.low:+.{places}f} to {paired.high:+.{places}f}"
        p = f"p {'' if self.p_text.startswith('<') else '= '}{self.p_text}"
        text = f"{subject} ({difference}, {interval}, {paired.n} seeds, {p})."
        if self.verdict != "cannot tell":
            return text
        if paired.p < LEVEL:
            text += f" Taken alone it would pass; among {self.family} comparisons it does not."
        return f"{text} These runs would show a true difference of {paired.detectable:.{places}f} four times in five."

    @property
    def p_text(self) -> str:
        """The corrected p value as printed."""
        if self.p_holm is None:
            return "none"
        return "< 0.001" if self.p_holm < 0.001 else f"{self.p_holm:.3f}"


def comparisons(experiment: Experiment, frame: pd.DataFrame) -> list[Comparison]:
    """Every comparison that the experiment's runs allow, in the tables' order; each pair and metric once.

    Args:
        experiment: with the layouts that say which rows have which baseline.
        frame: of `hafabench.reporting.frame`.
    """
    found: dict[tuple[str, ...], Comparison] = {}
    for layout, row, column, numbers in _candidates(experiment, frame):
        paired = numbers.paired(column, row.model, row.baseline)
        key = (column.task, column.metric_name, row.model, row.baseline)
        if paired is None or paired.n < 2 or key in found:
            continue
        values = [numbers.by_seed(column, model) for model in (row.model, row.baseline)]
        candidate, reference = (summarize([of_model[seed] for seed in paired.seeds]) for of_model in values)
        found[key] = Comparison(
            table=layout.number,
            task=column.task,
            metric=column.key,
            header=column.header,
            decimals=column.decimals,
            model=row.model,
            label=row.label,
            baseline=row.baseline,
            baseline_label=_label(experiment, layout, row.baseline),
            candidate=candidate,
            reference=reference,
            paired=paired,
        )
    corrected = holm([comparison.paired.p for comparison in found.values()])
    return [replace(c, p_holm=p, family=len(found)) for c, p in zip(found.values(), corrected, strict=True)]


def uncompared(experiment: Experiment, frame: pd.DataFrame) -> list[str]:
    """Pairs of which both were measured, on fewer than two common seeds: ``A(HAFA) against A (mIoU (%))``."""
    left: dict[str, None] = {}
    for layout, row, column, numbers in _candidates(experiment, frame):
        paired = numbers.paired(column, row.model, row.baseline)
        both = all(mark_of(numbers.of(column, model)) == "measured" for model in (row.model, row.baseline))
        if both and (paired is None or paired.n < 2):
            left[f"{row.label} against {_label(experiment, layout, row.baseline)} ({column.header})"] = None
    return list(left)


def _candidates(experiment: Experiment, frame: pd.DataFrame) -> Iterator[tuple[TableLayout, Row, Column, Numbers]]:
    for layout in experiment.table_layouts:
        numbers = Numbers(layout, frame)
        for column in layout.columns:
            if column.verb == "evaluate" and column.delta:
                yield from ((layout, row, column, numbers) for row in layout.rows if row.baseline)


def _label(experiment: Experiment, layout: TableLayout, model: str) -> str:
    """What the table calls a model; another table where it has no row for it."""
    rows = (row for table in (layout, *experiment.table_layouts) for row in table.rows)
    return next((row.label for row in rows if row.model == model), model)
