"""Verdicts on accuracy and latency claims, from the measurements of an experiment."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hafabench.config.verdicts import Verdict
from hafabench.reporting.claims.paper_claims import Claim
from hafabench.reporting.claims.verdicts import ClaimVerdict
from hafabench.reporting.table_metrics import TableMetrics, mark_of, weights_of
from hafabench.stats.paired import summarize


def judge_measured(claim: Claim, metrics: TableMetrics, scale: str) -> ClaimVerdict:
    """Return the verdict on an accuracy or latency claim.

    Args:
        claim: The claim.
        metrics: The metrics that fill the claim's table.
        scale: The experiment's scale; accuracies on embedded data never settle a claim.
    """
    found = [metrics.of(claim.column, model) for model in claim.models]
    if claim.kind == "accuracy" and scale != "full":
        return ClaimVerdict(claim, "not run", f"accuracies on {scale} data settle no claims about the paper's data")
    if claim.device:
        on_device = [[m for m in of_model if claim.device.lower() in str(m.device).lower()] for of_model in found]
        elsewhere = [metric for of_model in found for metric in of_model]
        if not all(on_device) and elsewhere:
            message = f"measured on {elsewhere[0].device}; the paper's figure is from an {claim.device}"
            return ClaimVerdict(claim, "not run", message)
        found = on_device
    if not all(found):
        return ClaimVerdict(claim, "not run", "nothing measured")
    if len({mark_of(of_model) for of_model in found}) > 1:
        message = "the row and its baseline were not both measured here from the same kind of starting weights"
        return ClaimVerdict(claim, "not run", message)
    verdict = _compare(claim, metrics, found)
    weights = dict.fromkeys(text for of_model in found for text in weights_of(of_model))
    if not weights:
        return verdict
    return replace(verdict, because=f"{verdict.because}; trained from published weights: {', '.join(weights)}")


def _compare(claim: Claim, metrics: TableMetrics, found: Sequence[Sequence[Any]]) -> ClaimVerdict:
    values = [[metric.value * claim.column.factor for metric in of_model] for of_model in found]
    paired = metrics.paired(claim.column, *claim.models) if claim.is_difference else None
    low: float | None
    high: float | None
    if paired is not None and paired.n > 1:
        value, low, high, seeds = paired.difference, paired.low, paired.high, paired.n
    else:
        means = [statistics.fmean(of_model) for of_model in values]
        value = means[0] - means[1] if claim.is_difference else means[0]
        summary = None if claim.is_difference else summarize(values[0])
        low, high = (summary.low, summary.high) if summary else (None, None)
        seeds = min(sum(metric.seed is not None for metric in of_model) for of_model in found)
    verdict, because = judge(claim, value, low, high)
    return ClaimVerdict(claim, verdict, because, value, low, high, seeds=seeds, origin=mark_of(found[0]))


def judge(claim: Claim, value: float, low: float | None = None, high: float | None = None) -> tuple[Verdict, str]:
    """Compare a figure with the printed one.

    With several seeds, the claim is reproduced if the confidence interval of the mean is within the tolerance of the
    printed figure, and contradicted if the interval is outside. With one seed, it is reproduced within the tolerance
    and contradicted beyond twice the tolerance, because the printed figure comes from one run too. Otherwise it is
    inconclusive. A difference that could also be zero is inconclusive even if it agrees with the printed one.

    Args:
        claim: The claim, with its tolerance.
        value: The figure, or its mean over seeds, in the claim's unit.
        low: Lower end of the mean's confidence interval; None for one seed.
        high: Upper end.

    Returns:
        The verdict and its reason.
    """
    # In binary floating point, 0.35 - 0.3 is larger than 0.05. This allowance corrects that.
    bound = claim.tolerance + 1e-9
    away = abs(value - claim.printed)
    if low is None or high is None:
        distance = f"differs by {away:.2f} {claim.unit}, {claim.tolerance:.2f} allowed"
        if away <= bound and claim.is_difference and abs(claim.printed) <= bound:
            return "inconclusive", f"{distance}; one run of each model cannot distinguish {claim.text} from zero"
        if away <= bound:
            return "reproduced", distance
        if away > 2 * bound:
            return "contradicted", distance
        return "inconclusive", f"{distance}; more seeds are needed"
    bottom, top = claim.printed - bound, claim.printed + bound
    interval = f"interval {low:.2f} to {high:.2f}, allowed {bottom:.2f} to {top:.2f}"
    if bottom <= low and high <= top:
        if claim.is_difference and low <= 0 <= high:
            return "inconclusive", f"{interval}; the interval contains zero"
        return "reproduced", interval
    if high < bottom or low > top:
        return "contradicted", interval
    return "inconclusive", interval
