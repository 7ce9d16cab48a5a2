"""Models compared with their baselines, seed by seed.

The comparisons are those of the paper: the columns of the tables that print a difference. A pair is compared if both
models were measured here on at least two common seeds. All comparisons of an experiment are one family: p values are
corrected by Holm's method, and a verdict other than "cannot tell" needs a corrected p value below 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hafabench.config.recipes import Task
from hafabench.config.tables import Column, Row, TableLayout
from hafabench.formatting.numbers import format_fixed, format_interval
from hafabench.reporting import legend
from hafabench.reporting.table_metrics import FROM_WEIGHTS, TableMetrics, mark_of, weights_of
from hafabench.stats.paired import CONFIDENCE, PairedComparison, Summary, holm, summarize

LEVEL = 1 - CONFIDENCE
Verdict = Literal["better", "worse", "cannot tell"]
COMPARISON_HEADER = (
    *("Metric", "Model", "Baseline", "n", "Baseline, mean ± sd", "Model, mean ± sd", "Difference [95 %]"),
    *("p (Holm)", "Detectable", "Verdict"),
)


@dataclass(frozen=True)
class Comparison:
    """A model compared with its baseline in one metric, in the column's unit.

    Attributes:
        table: Number of the first table that contains the pair.
        task, metric: Task and metric; ``header`` is the column's heading, ``decimals`` its number of digits.
        model, baseline: The two models; ``label`` and ``baseline_label`` are their names in the table.
        candidate, reference: The values of the model and of the baseline on the common seeds.
        paired: Model minus baseline.
        starting_weights: The published weights from which the trainings of both models started.
        p_holm: p value, corrected over all comparisons of the experiment; None if the differences do not vary.
        family: Number of comparisons that it is corrected over.
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
    starting_weights: tuple[str, ...] = ()
    p_holm: float | None = None
    family: int = 0

    @property
    def verdict(self) -> Verdict:
        """The verdict; more of the metric is better."""
        if self.p_holm is None or self.p_holm >= LEVEL:
            return "cannot tell"
        return "better" if self.paired.difference > 0 else "worse"

    @property
    def sentence(self) -> str:
        """The verdict in words, with the numbers that support it."""
        paired, places = self.paired, self.decimals + 1
        subject = f"{self.label} against {self.baseline_label}, {self.header}: {self.verdict}"
        if self.starting_weights:
            subject += f", both trained from published weights{legend.FROM_WEIGHTS}"
        difference = f"difference {format_fixed(paired.difference, places, signed=True)}"
        if paired.p is None or paired.low is None or paired.high is None or paired.detectable is None:
            return f"{subject} ({difference} on each of {paired.n} seeds; without spread, no test is possible)."
        low, high = (format_fixed(bound, places, signed=True) for bound in (paired.low, paired.high))
        interval = f"95 % interval {low} to {high}"
        p = f"p {'' if self.p_text.startswith('<') else '= '}{self.p_text}"
        text = f"{subject} ({difference}, {interval}, {paired.n} seeds, {p})."
        if self.verdict != "cannot tell":
            return text
        if paired.p < LEVEL:
            text += f" It would be significant as a single comparison, but is not among {self.family} comparisons."
        detectable = format_fixed(paired.detectable, places)
        return f"{text} These runs would detect a true difference of {detectable} with 80 % power."

    @property
    def fields(self) -> tuple[str, ...]:
        """The comparison as texts under `COMPARISON_HEADER`."""
        paired, places = self.paired, self.decimals + 1
        difference = format_fixed(paired.difference, places, signed=True)
        if paired.low is not None and paired.high is not None:
            difference += " " + format_interval(paired.low, paired.high, places, signed=True)
        detectable = legend.NOT_RUN if paired.detectable is None else format_fixed(paired.detectable, places)
        means = [
            f"{format_fixed(summary.mean, places)} ± {format_fixed(summary.sd or 0.0, places)}"
            for summary in (self.reference, self.candidate)
        ]
        sign = legend.FROM_WEIGHTS if self.starting_weights else ""
        place = (self.header, self.label + sign, self.baseline_label + sign, str(paired.n))
        return (*place, *means, difference, self.p_text, detectable, self.verdict)

    @property
    def p_text(self) -> str:
        """The corrected p value as printed."""
        if self.p_holm is None:
            return "none"
        return "< 0.001" if self.p_holm < 0.001 else format_fixed(self.p_holm, 3)


def comparisons(tables: Sequence[TableMetrics]) -> list[Comparison]:
    """Return all comparisons that the metrics allow, in the order of the tables; each pair and metric once."""
    table_layouts = [metrics.table_layout for metrics in tables]
    found: dict[tuple[str, ...], Comparison] = {}
    for metrics, column, row, baseline in _pairs(tables):
        paired = metrics.paired(column, row.model, baseline)
        key = (column.task, column.metric_name, row.model, baseline)
        if paired is None or paired.n < 2 or key in found:
            continue
        values = [metrics.by_seed(column, model) for model in (row.model, baseline)]
        candidate, reference = (summarize([of_model[seed] for seed in paired.seeds]) for of_model in values)
        found[key] = Comparison(
            table=metrics.table_layout.number,
            task=column.task,
            metric=column.key,
            header=column.header,
            decimals=column.decimals,
            model=row.model,
            label=row.label,
            baseline=baseline,
            baseline_label=_label(baseline, [metrics.table_layout, *table_layouts]),
            candidate=candidate,
            reference=reference,
            paired=paired,
            starting_weights=tuple(
                text for name in (row.model, baseline) for text in weights_of(metrics.of(column, name))
            ),
        )
    corrected = holm([comparison.paired.p for comparison in found.values()])
    return [replace(c, p_holm=p, family=len(found)) for c, p in zip(found.values(), corrected, strict=True)]


def how_to_read(family: int) -> list[str]:
    """Return explanations of the columns of a table with ``family`` comparisons, one per column."""
    tests = "one comparison" if family == 1 else f"these {family} comparisons"
    return [
        "n: number of common seeds. Each seed is one training. All trainings use the same data and split, so the "
        "interval covers repeated trainings on these data, not other data.",
        "sd: sample standard deviation over these seeds.",
        "Difference: model minus baseline, mean over pairs of the same seed, with its 95 % confidence interval "
        "(Student's t), in the metric's unit.",
        f"p: p value of a two-sided paired t test, corrected for {tests} by Holm's method.",
        "Detectable: smallest true difference that this number of runs with this spread detects with 80 % power at "
        "the 5 % level, for a single comparison.",
        "Verdict: better or worse if the corrected p value is below 0.05, otherwise cannot tell, which does "
        "not mean that there is no difference.",
    ]


def uncompared(tables: Sequence[TableMetrics]) -> list[str]:
    """Return the pairs that were measured on fewer than two common seeds: ``A(HAFA) against A (mIoU (%))``."""
    table_layouts = [metrics.table_layout for metrics in tables]
    found: dict[str, None] = {}
    for metrics, column, row, baseline in _pairs(tables):
        paired = metrics.paired(column, row.model, baseline)
        marks = {mark_of(metrics.of(column, model)) for model in (row.model, baseline)}
        both = marks <= {"measured", FROM_WEIGHTS}
        if both and (paired is None or paired.n < 2):
            baseline_label = _label(baseline, [metrics.table_layout, *table_layouts])
            found[f"{row.label} against {baseline_label} ({column.header})"] = None
    return list(found)


def _pairs(tables: Sequence[TableMetrics]) -> Iterator[tuple[TableMetrics, Column, Row, str]]:
    """Yield every row with its baseline, in every column whose differences the paper prints."""
    for metrics in tables:
        for column in metrics.table_layout.columns:
            if column.verb == "evaluate" and column.delta:
                yield from ((metrics, column, row, row.baseline) for row in metrics.table_layout.rows if row.baseline)


def _label(model: str, table_layouts: Sequence[TableLayout]) -> str:
    """Return the name of a model in the first table layout that has a row for it."""
    rows = (row for table_layout in table_layouts for row in table_layout.rows)
    return next((row.label for row in rows if row.model == model), model)
