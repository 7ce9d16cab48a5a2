"""The comparisons of an experiment as a page (Markdown) and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hafabench.reporting import legend
from hafabench.reporting.comparisons import Comparison
from hafabench.reporting.markdown import escape, grid

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
    head = f"# Comparisons of experiment {experiment}\n\n{escape(title)}, {scale} scale.\n\n"
    if not found:
        return f"{head}{NONE}\n"
    warning = "**EMBEDDED DATA: what is said here holds for these data and budgets, not for the paper's.**\n\n"
    warning = warning if scale == "embedded" else ""
    sentences = "\n".join(f"- {escape(comparison.sentence)}" for comparison in found)
    figure = "![Differences per seed with their intervals](figures/comparisons.svg)"
    table = grid([_HEADER, *map(_line, found)], [True] * 3 + [False] * 6 + [True])
    omitted = f"\n- Not compared, for want of two common seeds: {escape('; '.join(left))}." if left else ""
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
                "baseline_mean": _number(c.reference.mean),
                "baseline_sd": _number(c.reference.sd),
                "candidate_mean": _number(c.candidate.mean),
                "candidate_sd": _number(c.candidate.sd),
                "difference": _number(c.paired.difference),
                "low": _number(c.paired.low),
                "high": _number(c.paired.high),
                "p": _number(c.paired.p),
                "p_holm": _number(c.p_holm),
                "family": c.family,
                "detectable": _number(c.paired.detectable),
                "verdict": c.verdict,
                "differences": " ".join(map(_number, c.paired.differences)),
                "scale": scale,
                "experiment": experiment,
            }
        )
    return buffer.getvalue()


def _line(c: Comparison) -> list[str]:
    places = c.decimals + 1
    interval = ""
    if c.paired.low is not None and c.paired.high is not None:
        interval = f" [{c.paired.low:+.{places}f}, {c.paired.high:+.{places}f}]"
    detectable = legend.NOT_RUN if c.paired.detectable is None else f"{c.paired.detectable:.{places}f}"
    return [
        c.header,
        c.label,
        c.baseline_label,
        str(c.paired.n),
        f"{c.reference.mean:.{places}f} ± {c.reference.sd:.{places}f}",
        f"{c.candidate.mean:.{places}f} ± {c.candidate.sd:.{places}f}",
        f"{c.paired.difference:+.{places}f}{interval}",
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


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
