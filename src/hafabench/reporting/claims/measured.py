"""Verdicts on accuracy and latency claims, from the measurements of an experiment."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from hafabench.config.verdicts import Verdict
from hafabench.formatting.numbers import format_fixed
from hafabench.reporting import legend
from hafabench.reporting.claims.comparability import Comparability
from hafabench.reporting.claims.paper_claims import Claim
from hafabench.reporting.claims.verdicts import ClaimVerdict
from hafabench.reporting.outcomes import Outcome, Outcomes
from hafabench.reporting.table_metrics import TableMetrics, mark_of, weights_of
from hafabench.stats.moderated import moderated_difference, moderated_interval


def judge_measured(
    claim: Claim, metrics: TableMetrics, comparability: Comparability, outcomes: Outcomes
) -> ClaimVerdict:
    """Return the verdict on an accuracy or latency claim.

    Args:
        claim: The claim.
        metrics: The metrics that fill the claim's table.
        comparability: What makes figures incomparable with the paper's.
        outcomes: The trainings that collapsed, and other outcomes that are no numbers.
    """
    found = [metrics.of(claim.column, model) for model in claim.models]
    without = [outcomes.of(claim.column, model, claim.row.group) for model in claim.models]
    if claim.is_collapse:
        return _judge_collapse(claim, found[0], without[0], comparability)
    verdict: Verdict
    if not all(found):
        lost = [outcome for of_model, other in zip(found, without, strict=True) if not of_model for outcome in other]
        collapsed = [outcome for outcome in lost if outcome.kind == "collapsed"]
        if collapsed and len(collapsed) == len(lost):
            reasons = comparability.reasons(claim, [collapsed])
            verdict = "not comparable" if reasons else "inconclusive"
            because = "; ".join([f"no figure, {collapsed[0].clause}", *reasons])
            return ClaimVerdict(claim, verdict, because, is_collapsed=True)
        return ClaimVerdict(claim, "not run", _why_missing(lost))
    if len({mark_of(of_model) for of_model in found}) > 1:
        message = "the row and its baseline were not both measured here from the same kind of starting weights"
        return ClaimVerdict(claim, "not run", message)
    measured = _measured(claim, metrics, found)
    if measured is None:
        return ClaimVerdict(claim, "not run", "the row and its baseline have no seed in common")
    value, low, high, seeds = measured
    reasons = comparability.reasons(claim, found)
    if reasons:
        verdict, because = "not comparable", "; ".join(reasons)
    else:
        verdict, because = judge(claim, value, low, high)
    weights = dict.fromkeys(text for of_model in found for text in weights_of(of_model))
    if weights:
        because += f"; trained from published weights: {', '.join(weights)}"
    return ClaimVerdict(claim, verdict, because, value, low, high, seeds=seeds, origin=mark_of(found[0]))


def _judge_collapse(
    claim: Claim, found: Sequence[Any], without: Sequence[Outcome], comparability: Comparability
) -> ClaimVerdict:
    """Return the verdict on the claim that a training collapsed.

    It is reproduced if all trainings of the model collapsed here, and contradicted if none did.

    Args:
        claim: The claim.
        found: The metrics of the model.
        without: Its outcomes that are no numbers.
        comparability: What makes figures incomparable with the paper's.
    """
    collapsed = [outcome for outcome in without if outcome.kind == "collapsed"]
    total = len(found) + len(collapsed)
    if not total:
        return ClaimVerdict(claim, "not run", _why_missing(without))
    because = f"{len(collapsed)} of {total} training{'s' if total > 1 else ''} collapsed"
    if collapsed:
        because += f" (step {', '.join(str(outcome.step) for outcome in collapsed)})"
    verdict: Verdict = "reproduced" if not found else "inconclusive" if collapsed else "contradicted"
    reasons = comparability.reasons(claim, [[*found, *collapsed]])
    if reasons:
        verdict, because = "not comparable", "; ".join([because, *reasons])
    value = statistics.fmean(metric.value * claim.column.factor for metric in found) if found else None
    origin = mark_of(found) if found else "measured"
    return ClaimVerdict(claim, verdict, because, value, seeds=total, origin=origin, is_collapsed=not found)


def _why_missing(without: Sequence[Outcome]) -> str:
    clause = next((outcome.clause for outcome in without if outcome.clause != legend.NOT_YET), "nothing measured")
    # The verdict is "not run" already.
    return clause.removeprefix("not run: ")


def _measured(
    claim: Claim, metrics: TableMetrics, found: Sequence[Sequence[Any]]
) -> tuple[float, float, float, int] | None:
    """Return the figure, its interval and the number of seeds; None for a difference without a common seed."""
    values = [[metric.value * claim.column.factor for metric in of_model] for of_model in found]
    if not claim.is_difference:
        seeds = sum(metric.seed is not None for metric in found[0])
        return statistics.fmean(values[0]), *moderated_interval(values[0], claim.assumed_sd), seeds
    difference = metrics.difference(claim.column, *claim.models)
    if difference is None:
        return None
    if difference.paired is not None:
        paired = difference.paired
        return difference.value, *moderated_interval(paired.differences, claim.assumed_sd), paired.n
    # The assumed deviation is that of a difference, which has the variance of two runs.
    interval = moderated_difference(values[0], values[1], claim.assumed_sd / 2**0.5)
    return difference.value, *interval, min(sum(metric.seed is not None for metric in of_model) for of_model in found)


def judge(claim: Claim, value: float, low: float, high: float) -> tuple[Verdict, str]:
    """Compare a figure with the printed one.

    The claim is reproduced if the figure is within the tolerance of the printed one, and contradicted if its whole
    confidence interval is outside. Otherwise it is inconclusive. More seeds narrow the interval. Therefore they never
    make it harder to reproduce a true figure, and they make it easier to contradict a wrong one. A difference whose
    interval contains zero is inconclusive even if it agrees with the printed one, unless the paper prints zero.

    Args:
        claim: The claim, with its tolerance.
        value: The figure, or its mean over seeds, in the claim's unit.
        low: Lower end of its confidence interval.
        high: Upper end.

    Returns:
        The verdict and its reason.
    """
    # In binary floating point, 0.35 - 0.3 is larger than 0.05. This allowance corrects that.
    bound = claim.tolerance + 1e-9
    bottom, top = claim.printed - bound, claim.printed + bound
    away = abs(value - claim.printed)
    unit = "points" if claim.unit == "%" else claim.unit
    distance = f"differs by {format_fixed(away, 2)} {unit}, {format_fixed(claim.tolerance, 2)} allowed"
    interval = f"interval {format_fixed(low, 2)} to {format_fixed(high, 2)}"
    if away <= bound:
        if claim.is_difference and claim.printed and low <= 0 <= high:
            return "inconclusive", f"{distance}; its {interval} contains zero"
        return "reproduced", distance
    if high < bottom or low > top:
        return "contradicted", f"{distance}; {interval}"
    # A latency has no seeds.
    advice = "" if claim.kind == "latency" else "; more seeds are needed"
    return "inconclusive", f"{distance}, but its {interval} reaches the allowed values{advice}"
