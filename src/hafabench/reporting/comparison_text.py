"""The comparisons of an experiment as a page (Markdown) and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hafabench.formatting.markdown import escape_markdown, markdown_table
from hafabench.formatting.numbers import format_fixed, format_interval, format_unrounded
from hafabench.reporting import legend
from hafabench.reporting.comparisons import Comparison

COLUMNS = [
    "table",
    "task",
    "metric",
    "model",
    "baseline",
    "seeds",
    "n",
    "baseline_mean",
    "baseline_sd",
    "candidate_mean",
    "candidate_sd",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "family",
    "detectable",
    "verdict",
    "differences",
    "scale",
    "experiment",
]
_HEADER = [
    "Metric",
    "Model",
    "Baseline",
    "n",
    "Baseline, mean ± sd",
    "Model, mean ± sd",
    "Difference [95 %]",
    "p (Holm)",
    "Detectable",
    "Verdict",
]
NONE = (
    "No model was run with its baseline on two common seeds or more, so no comparison is made and nothing is claimed."
)


def page(found: Sequence[Comparison], left: Sequence[str], *, experiment: str, title: str, scale: str) -> str:
    """The comparisons in Markdown: a sentence for each, the numbers, how to read them.

    Args:
        found: of `hafabench.reporting.comparisons.comparisons`.
        left: pairs without enough common seeds, of `uncompared`.
        experiment, title, scale: of the experiment.
    """
    head = f"# Comparisons of experiment {experiment}\n\n{escape_markdown(title)}, {scale} scale.\n\n"
    if not found:
        return f"{head}{NONE}\n"
    warning = "**EMBEDDED DATA: what is said here holds for these data and budgets, not for the paper's.**\n\n"
    warning = warning if scale == "embedded" else ""
    sentences = "\n".join(f"- {escape_markdown(comparison.sentence)}" for comparison in found)
    figure = "![Differences per seed with their intervals](figures/comparisons.svg)"
    table = markdown_table(_HEADER, map(_line, found), "lllrrrrrrl")
    omitted = f"\n- Not compared, for want of two common seeds: {escape_markdown('; '.join(left))}." if left else ""
    return f"{head}{warning}{sentences}\n\n{figure}\n\n{table}\n\n{_reading(len(found))}{omitted}\n"


def render_csv(found: Sequence[Comparison], *, experiment: str, scale: str) -> str:
    """One line per comparison, unrounded; ``seeds`` and ``differences`` are lists parted by blanks."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for c in found:
        writer.writerow(
            {
                "table": c.table,
                "task": c.task,
                "metric": c.metric,
                "model": c.model,
                "baseline": c.baseline,
                "seeds": " ".join(map(str, c.paired.seeds)),
                "n": c.paired.n,
                "baseline_mean": format_unrounded(c.reference.mean),
                "baseline_sd": format_unrounded(c.reference.sd),
                "candidate_mean": format_unrounded(c.candidate.mean),
                "candidate_sd": format_unrounded(c.candidate.sd),
                "difference": format_unrounded(c.paired.difference),
                "low": format_unrounded(c.paired.low),
                "high": format_unrounded(c.paired.high),
                "p": format_unrounded(c.paired.p),
                "p_holm": format_unrounded(c.p_holm),
                "family": c.family,
                "detectable": format_unrounded(c.paired.detectable),
                "verdict": c.verdict,
                "differences": " ".join(map(format_unrounded, c.paired.differences)),
                "scale": scale,
                "experiment": experiment,
            }
        )
    return buffer.getvalue()


def _line(c: Comparison) -> list[str]:
    places = c.decimals + 1
    interval = ""
    if c.paired.low is not None and c.paired.high is not None:
        interval = " " + format_interval(c.paired.low, c.paired.high, places, signed=True)
    detectable = legend.NOT_RUN if c.paired.detectable is None else format_fixed(c.paired.detectable, places)
    return [
        c.header,
        c.label,
        c.baseline_label,
        str(c.paired.n),
        f"{format_fixed(c.reference.mean, places)} ± {format_fixed(c.reference.sd, places)}",
        f"{format_fixed(c.candidate.mean, places)} ± {format_fixed(c.candidate.sd, places)}",
        f"{format_fixed(c.paired.difference, places, signed=True)}{interval}",
        c.p_text,
        detectable,
        c.verdict,
    ]


def _reading(family: int) -> str:
    tests = "one comparison" if family == 1 else f"the {family} comparisons of this page"
    return "\n".join(
        [
            "- n: common seeds. A seed is one training; data and their split are the same in all of them, so that an "
            "interval tells what repeating the training would give, on these data.",
            "- sd: sample standard deviation over these seeds.",
            "- Difference: model minus baseline, mean over pairs of the same seed, with its 95 % confidence interval "
            "(Student's t), in the metric's unit.",
            f"- p: of a two-sided paired t test, corrected for {tests} by Holm's method.",
            "- Detectable: the smallest true difference that as many runs of this spread find with 80 % power at the "
            "5 % level, one comparison taken alone.",
            "- Verdict: better or worse where the corrected p is below 0.05, else cannot tell, which is not the same "
            "as no difference.",
        ]
    )
