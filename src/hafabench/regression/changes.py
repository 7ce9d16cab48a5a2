"""The changes from baseline to candidate, with a verdict on each metric of each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hafabench.config.metrics import METRICS
from hafabench.config.regression import GateLimits
from hafabench.errors import Problem, UserError
from hafabench.regression.effects import (
    Effect,
    effect_on_ratio,
    effect_on_steady_ratio,
    effect_over_images,
    effect_over_seeds,
    effect_over_steady_seeds,
    exact_effect,
    has_interval,
)
from hafabench.regression.records import MetricKey, RecordedMetric, RecordSet, predictions_of
from hafabench.results.predictions import Predictions, identical
from hafabench.results.record import Record
from hafabench.runs.run import run_id

Verdict = Literal["worse", "missing", "better", "cannot tell", "no change", "new"]
VERDICTS: tuple[Verdict, ...] = ("worse", "missing", "better", "cannot tell", "new", "no change")
"""All verdicts in the order in which reports show them."""
FAILURES: tuple[Verdict, ...] = ("worse", "missing")
"""The verdicts that fail the gate."""
_UNSTEADY = (
    "the candidate varies more than the baseline, and with the variation of the baseline the change would be beyond "
    "the limit: measure or train again"
)


@dataclass(frozen=True)
class Change:
    """The change of one metric of one model.

    Attributes:
        key: What was compared.
        verdict: ``worse`` or ``better`` if the interval excludes 0 and the change is beyond the limit; ``no change``
            if the interval is within the limits; ``cannot tell`` otherwise; ``missing`` if the candidate lacks the
            metric, or some of the baseline's seeds, predictions or interval; ``new`` if only the candidate has the
            metric. If the candidate varies so much that its interval hides a change, the change is ``worse`` if it
            would certainly be beyond the limit with the variation of the baseline.
        unit: The unit of all numbers.
        baseline, candidate: The means over the seeds that both have.
        effect: Candidate minus baseline; None if one of them is missing.
        limit: The largest change that does not matter; None if there is no effect.
        notes: Clauses that a reader needs beside the numbers.
    """

    key: MetricKey
    verdict: Verdict
    unit: str
    baseline: float | None
    candidate: float | None
    effect: Effect | None = None
    limit: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """The changes of all metrics.

    Attributes:
        changes: Sorted by verdict, then by metric key.
        level: The two-sided level of each interval.
        notes: Sentences about the candidate as a whole.
    """

    changes: tuple[Change, ...]
    level: float
    notes: tuple[str, ...]

    def count(self, verdict: Verdict) -> int:
        """Return the number of changes with a verdict."""
        return Counter(change.verdict for change in self.changes)[verdict]

    def failed(self, *, strict: bool = False) -> bool:
        """Return whether a metric is worse or missing or, if ``strict``, has the verdict ``cannot tell``."""
        return any(change.verdict in failing_verdicts(strict=strict) for change in self.changes)


def failing_verdicts(*, strict: bool) -> set[Verdict]:
    """Return the verdicts that fail the gate."""
    return {*FAILURES, "cannot tell"} if strict else {*FAILURES}


@dataclass(frozen=True)
class _Pair:
    """One metric key at the seeds that both record sets have.

    ``lost`` are the seeds of the baseline alone, ``collapsed`` describes those of them whose training collapsed, and
    ``added`` are the seeds of the candidate alone.
    """

    key: MetricKey
    baseline: dict[int, RecordedMetric]
    candidate: dict[int, RecordedMetric]
    lost: tuple[int, ...] = ()
    collapsed: tuple[str, ...] = ()
    added: tuple[int, ...] = ()

    @property
    def values(self) -> tuple[dict[int, float], dict[int, float]]:
        """The baseline's and the candidate's values by seed."""
        before, after = (
            {seed: recorded.metric.value for seed, recorded in by_seed.items()}
            for by_seed in (self.baseline, self.candidate)
        )
        return before, after

    @property
    def records(self) -> list[tuple[Record, Record]]:
        """The baseline's and the candidate's record of each seed."""
        return [(self.baseline[seed].record, recorded.record) for seed, recorded in self.candidate.items()]


def find_changes(baseline: RecordSet, candidate: RecordSet, limits: GateLimits) -> Changes:
    """Compare every metric that ``limits`` names.

    Raises:
        UserError: If the two cannot be compared: they belong to different experiments, have no metric in common, were
            evaluated on different data, timed under different protocols, or have predictions that do not belong to
            their record. Also if the limits name metrics of a verb and task but none that was recorded.
    """
    if baseline.experiment != candidate.experiment:
        message = f"{candidate.experiment}, but {baseline.folder} contains records of {baseline.experiment}"
        advice = "compare the same experiment, or replace the baseline with --update"
        raise UserError(Problem(str(candidate.folder), "experiment", f"{message}; {advice}"))
    unused = tuple(_unused(limits, baseline, candidate))
    judged = {key for records in (baseline, candidate) for key in records.metrics if key.metric in limits.metrics}
    pairs = [_pair(key, baseline, candidate) for key in sorted(judged)]
    common = [pair for pair in pairs if pair.baseline and pair.candidate]
    if not common and not any(pair.collapsed for pair in pairs):
        message = f"no metric in common with {baseline.folder}; expected the same experiment's records"
        raise UserError(Problem(str(candidate.folder), "", message))
    problems = [problem for pair in common for problem in _problems(pair)]
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    methods = {pair.key: _method(pair, limits) for pair in common}
    # Counts and identical predictions have no error, so they cannot raise a false alarm.
    uncertain = sum(method.has_error + (method.if_steady is not None) for method in methods.values())
    level = limits.false_alarms / max(uncertain, 1)
    changes = [
        _judge(pair, methods[pair.key], limits, level) if pair.key in methods else _one_sided(pair) for pair in pairs
    ]
    changes.sort(key=lambda change: (VERDICTS.index(change.verdict), change.key))
    return Changes(tuple(changes), level, (*_notes(candidate), *unused))


def undecided(records: RecordSet, limits: GateLimits) -> list[MetricKey]:
    """Return the metrics for which the gate cannot tell if a candidate has exactly the records of the baseline."""
    try:
        changes = find_changes(records, records, limits).changes
    except UserError:
        # The limits are about other metrics.
        return []
    return [change.key for change in changes if change.verdict == "cannot tell"]


def _pair(key: MetricKey, baseline: RecordSet, candidate: RecordSet) -> _Pair:
    before, after = baseline.metrics.get(key, {}), candidate.metrics.get(key, {})
    common = sorted(before.keys() & after.keys())
    lost = tuple(sorted(before.keys() - after.keys()))
    ids = {seed: run_id(key.group, key.model, seed) for seed in lost}
    collapsed = tuple(
        f"seed {seed}: {candidate.collapses[name].clause(name)}"
        for seed, name in ids.items()
        if key.verb == "evaluate" and name in candidate.collapses
    )
    if not common:
        return _Pair(key, before, {} if before else after, lost, collapsed)
    added = tuple(sorted(after.keys() - before.keys()))
    return _Pair(
        key, {seed: before[seed] for seed in common}, {seed: after[seed] for seed in common}, lost, collapsed, added
    )


def _problems(pair: _Pair) -> list[Problem]:
    """Return the reasons why a comparison would be meaningless."""
    found = []
    for seed, after in pair.candidate.items():
        before = pair.baseline[seed]
        old, new = before.record, after.record
        if old.scale != new.scale:
            found.append(Problem(str(after.path), "scale", f"{new.scale!r}, but {before.path} is {old.scale!r}"))
        if _data_is_unknown(old, new):
            message = f"does not say on which data it was evaluated, but {before.path} does; evaluate the run again"
            found.append(Problem(str(after.path), "provenance", message))
        if _other_data(old, new) and old.fingerprint != new.fingerprint:
            message = f"evaluated on other data than {before.path}; replace the baseline with --update"
            found.append(Problem(str(after.path), "provenance.dataset_digest", message))
        if new.verb == "latency" and old.fingerprint != new.fingerprint:
            message = f"timed under another protocol than {before.path}; replace the baseline with --update"
            found.append(Problem(str(after.path), "fingerprint", message))
    return found


def _digests(record: Record) -> tuple[str | None, str | None]:
    return record.provenance.dataset_digest, record.provenance.listing_digest


def _data_is_unknown(old: Record, new: Record) -> bool:
    """Return whether only the old record says on which data it was evaluated."""
    return any(_digests(old)) and not any(_digests(new))


def _other_data(old: Record, new: Record) -> bool:
    return any(None not in pair and pair[0] != pair[1] for pair in zip(_digests(old), _digests(new), strict=True))


@dataclass(frozen=True)
class _Method:
    """How a pair is compared.

    Attributes:
        effect: A function from the level to the effect.
        has_error: Whether the effect has an error.
        notes: Clauses that a reader needs.
        if_steady: A function from the level to the effect under the assumption that the candidate varies like the
            baseline; None if the interval does not depend on how much the candidate varies.
        lacks: What the candidate lacks although the baseline has it, as a clause; empty if nothing.
    """

    effect: Callable[[float], Effect]
    has_error: bool = True
    notes: tuple[str, ...] = ()
    if_steady: Callable[[float], Effect | None] | None = None
    lacks: str = ""


def _method(pair: _Pair, limits: GateLimits) -> _Method:
    before, after = pair.values
    metric = METRICS[pair.key.metric]
    if metric.aggregation == "exact":
        return _Method(lambda _level: exact_effect(_mean(before), _mean(after)), has_error=False)
    if metric.aggregation == "median over rounds":
        [(old, new)] = [(pair.baseline[seed].metric, pair.candidate[seed].metric) for seed in before]
        return _Method(
            lambda level: effect_on_ratio(old, new, level),
            if_steady=(lambda level: effect_on_steady_ratio(old, new, level)) if has_interval(old) else None,
            lacks="an interval" if has_interval(old) and not has_interval(new) else "",
        )
    found = [(predictions_of(pair.baseline[seed]), predictions_of(pair.candidate[seed])) for seed in after]
    lacks = "predictions" if any(old is not None and new is None for old, new in found) else ""
    predictions = _in_common(pair, found)
    if predictions is not None and all(identical(old, new) for old, new in zip(*predictions, strict=True)):
        unchanged = Effect(0.0, 0.0, 0.0, 0.0, "identical predictions")
        return _Method(lambda _level: unchanged, has_error=False)
    retrained = any(old.provenance.checkpoint_sha256 != new.provenance.checkpoint_sha256 for old, new in pair.records)
    if len(before) >= limits.min_seeds and (retrained or predictions is None):
        return _Method(
            lambda level: effect_over_seeds(before, after, level),
            if_steady=lambda level: effect_over_steady_seeds(before, after, level),
            lacks=lacks,
        )
    if predictions is not None:
        note = "retrained: the interval covers the choice of images, but not the variation between trainings"
        notes = (note,) if retrained else ()
        return _Method(
            lambda level: effect_over_images(metric.name, *predictions, level, limits.resamples), notes=notes
        )
    reason = f"{len(before)} seeds (expected {limits.min_seeds} or more) and no predictions"
    change = _mean(after) - _mean(before)
    return _Method(lambda _level: Effect(change, None, None, None, reason), has_error=False, lacks=lacks)


def _in_common(
    pair: _Pair, found: Sequence[tuple[Predictions | None, Predictions | None]]
) -> tuple[list[Predictions], list[Predictions]] | None:
    """Return the predictions of the baseline and of the candidate, seed by seed; None if some are missing.

    Raises:
        UserError: If the images of a pair are not the same in the same order.
    """
    before, after = [], []
    for (seed, recorded), (old, new) in zip(pair.candidate.items(), found, strict=True):
        if old is None or new is None:
            return None
        if old.images.tolist() != new.images.tolist():
            message = f"other images, or in another order, than in {pair.baseline[seed].path}"
            raise UserError(
                Problem(str(recorded.path), "predictions", f"{message}; replace the baseline with --update")
            )
        before.append(old)
        after.append(new)
    return before, after


def _judge(pair: _Pair, method: _Method, gate: GateLimits, level: float) -> Change:
    before, after = pair.values
    limits = gate.metrics[pair.key.metric]
    effect = method.effect(level)
    elsewhere = pair.key.verb != "complexity" and any(_made_elsewhere(*records) for records in pair.records)
    others = _others_percent(pair) if pair.key.verb == "latency" else 0.0
    disturbed = others > gate.disturbed
    limit = limits.tolerance(_mean(before), elsewhere=elsewhere or disturbed)
    notes = list(method.notes)
    if pair.lost:
        notes.append(f"the candidate lacks {len(pair.lost)} of the baseline's {len(pair.lost) + len(before)} seeds")
    if pair.added:
        notes.append(f"not compared: seeds {', '.join(map(str, pair.added))}, which only the candidate has")
    if elsewhere and limits.elsewhere:
        notes.append("made on another machine or with another version of torch: wider limit")
    elif disturbed and limits.elsewhere:
        notes.append(f"timed while other processes used {others:.0f} % of the CPU time: wider limit")
    if pair.key.verb == "evaluate" and any(old.fingerprint != new.fingerprint for old, new in pair.records):
        notes.append("the configuration of the run has changed")
    elif any(_other_data(*records) for records in pair.records):
        notes.append("the images differ in their bytes: they were made by other versions or on another machine")
    unit = next(iter(pair.candidate.values())).metric.unit
    verdict = _verdict(effect, limit, METRICS[pair.key.metric].sign)
    if verdict == "cannot tell" and method.if_steady is not None:
        steady = method.if_steady(level)
        if steady is not None and _is_beyond(steady, limit, METRICS[pair.key.metric].sign):
            verdict = "worse"
            notes.append(_UNSTEADY)
    if method.lacks:
        notes.append(f"the baseline has {method.lacks} for this metric, and the candidate does not")
    if verdict != "worse" and (pair.lost or method.lacks):
        verdict = "missing"
    notes += pair.collapsed
    if pair.collapsed:
        # A training that collapsed is worse than any number.
        verdict = "worse"
    return Change(pair.key, verdict, unit, _mean(before), _mean(after), effect, limit, tuple(notes))


def _is_beyond(effect: Effect, limit: float, sign: int) -> bool:
    """Return whether the whole interval of an effect is worse than the limit."""
    return effect.low is not None and effect.high is not None and max(sign * effect.low, sign * effect.high) < -limit


def _verdict(effect: Effect, limit: float, sign: int) -> Verdict:
    if effect.low is None or effect.high is None:
        return "cannot tell"
    low, high = sorted((sign * effect.low, sign * effect.high))
    gain = sign * effect.change
    if high < 0 and gain < -limit:
        return "worse"
    if low > 0 and gain > limit:
        return "better"
    return "no change" if low >= -limit and high <= limit else "cannot tell"


def _one_sided(pair: _Pair) -> Change:
    recorded = pair.baseline or pair.candidate
    mean = _mean({seed: found.metric.value for seed, found in recorded.items()})
    unit = next(iter(recorded.values())).metric.unit
    new = Change(pair.key, "new", unit, None, mean, notes=("the baseline does not have this metric",))
    if not pair.baseline:
        return new
    notes = pair.collapsed or ("the candidate does not have this metric, or not for these seeds",)
    return replace(new, verdict="missing", baseline=mean, candidate=None, notes=notes)


def _made_elsewhere(old: Record, new: Record) -> bool:
    """Return whether two records differ in their machine or version of torch; True if these are unknown."""
    environments = [
        (
            record.machine.cpu if record.machine else None,
            record.provenance.device,
            record.provenance.packages.get("torch"),
        )
        for record in (old, new)
    ]
    return environments[0] != environments[1] or None in environments[0]


def _others_percent(pair: _Pair) -> float:
    """Return the larger share of the CPU time that other processes had during the two measurements; 0 if unknown."""
    machines = [record.machine for records in pair.records for record in records]
    return max((machine.others_percent or 0.0 for machine in machines if machine), default=0.0)


def _notes(candidate: RecordSet) -> list[str]:
    notes = []
    commits = {record.provenance.git_commit for record in candidate.records.values()}
    if len(commits) > 1:
        notes.append(f"the candidate's records come from {len(commits)} commits")
    if any(record.provenance.git_dirty for record in candidate.records.values()):
        notes.append("the candidate's records come from a checkout with uncommitted changes")
    for record in candidate.records.values():
        notes += record.warnings
    return notes


def _unused(limits: GateLimits, baseline: RecordSet, candidate: RecordSet) -> Iterator[str]:
    """Yield a sentence for every limit whose metric neither side has, although they have others of the same kind.

    Metrics are of one kind if the same verb measures them for the same tasks.

    Raises:
        UserError: If no metric of a kind that the limits name is compared, as after a misspelling.
    """
    recorded = {key.metric for records in (baseline, candidate) for key in records.metrics} & METRICS.keys()
    kinds = {name: (METRICS[name].verb, METRICS[name].tasks) for name in (*recorded, *limits.metrics)}
    compared = {kinds[name] for name in recorded & limits.metrics.keys()}
    for name in sorted(limits.metrics.keys() - recorded):
        others = sorted(other for other in recorded if kinds[other] == kinds[name])
        sentence = f"the limits name {name}, which neither the baseline nor the candidate has"
        if others and kinds[name] not in compared:
            raise UserError(f"{sentence}; expected a limit for at least one of {', '.join(others)}")
        if others:
            yield sentence


def _mean(values: dict[int, float]) -> float:
    return float(np.mean(list(values.values())))
