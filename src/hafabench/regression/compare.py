"""Baseline and candidate become findings: per metric of every model better, worse, no change or cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hafabench.config.metrics import METRICS
from hafabench.config.regression import GateLimits
from hafabench.errors import Problem, UserError
from hafabench.regression import effects
from hafabench.regression.effects import Effect
from hafabench.regression.records import Cell, Entry, Side, predictions_of
from hafabench.results.predictions import Predictions, identical
from hafabench.results.record import Record

Verdict = Literal["worse", "missing", "better", "cannot tell", "no change", "new"]
# In the order in which they are shown.
VERDICTS: tuple[Verdict, ...] = ("worse", "missing", "better", "cannot tell", "new", "no change")
FAILURES: tuple[Verdict, ...] = ("worse", "missing")


@dataclass(frozen=True)
class Finding:
    """The comparison of one metric of one model.

    Attributes:
        cell: what was compared.
        verdict: ``worse`` and ``better``: the interval excludes no change, and the change is beyond the limit;
            ``no change``: the interval lies within the limits; ``cannot tell``: neither; ``missing``: the candidate
            lacks what the baseline has; ``new``: the other way round.
        unit: of all numbers.
        baseline, candidate: means over the seeds that both have.
        effect: candidate minus baseline; None where one is missing.
        limit: the largest change that does not matter.
        notes: clauses that a reader needs beside it.
    """

    cell: Cell
    verdict: Verdict
    unit: str
    baseline: float | None
    candidate: float | None
    effect: Effect | None = None
    limit: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """All findings, most important first, and what is to be said of the whole.

    Attributes:
        findings: sorted by verdict, then by cell.
        level: of each interval, two-sided.
        notes: sentences.
    """

    findings: tuple[Finding, ...]
    level: float
    notes: tuple[str, ...]

    def count(self, verdict: Verdict) -> int:
        """Findings with that verdict."""
        return Counter(finding.verdict for finding in self.findings)[verdict]

    def failed(self, *, strict: bool = False) -> bool:
        """Whether the gate is shut: something is worse or missing, or, strictly, could not be told."""
        shut = {*FAILURES, *(("cannot tell",) if strict else ())}
        return any(finding.verdict in shut for finding in self.findings)


@dataclass(frozen=True)
class _Pair:
    """One cell on both sides, at the seeds that both have; ``lost`` are those that only the baseline has."""

    cell: Cell
    baseline: dict[int, Entry]
    candidate: dict[int, Entry]
    lost: tuple[int, ...] = ()

    @property
    def values(self) -> tuple[dict[int, float], dict[int, float]]:
        """Baseline's and candidate's, by seed."""
        before, after = (
            {seed: entry.metric.value for seed, entry in side.items()} for side in (self.baseline, self.candidate)
        )
        return before, after

    @property
    def records(self) -> list[tuple[Record, Record]]:
        """Baseline's and candidate's, seed by seed."""
        return [(self.baseline[seed].record, entry.record) for seed, entry in self.candidate.items()]


def compare(baseline: Side, candidate: Side, limits: GateLimits) -> Comparison:
    """Compare every metric that ``limits`` names.

    Raises:
        UserError: for sides that cannot be compared: no common metric, other data, other protocols of latency,
            predictions that are not those of their record.
    """
    judged = {cell for side in (baseline, candidate) for cell in side.cells if cell.metric in limits.metrics}
    pairs = [_pair(cell, baseline, candidate) for cell in sorted(judged)]
    common = [pair for pair in pairs if pair.baseline and pair.candidate]
    if not common:
        message = f"no metric in common with {baseline.folder}; expected the same experiment's records"
        raise UserError(Problem(str(candidate.folder), "", message))
    problems = [problem for pair in common for problem in _misfits(pair)]
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    methods = {pair.cell: _method(pair, limits) for pair in common}
    # Counts and identical predictions have no error, so that they raise no false alarm.
    uncertain = sum(method.has_error for method in methods.values())
    level = limits.false_alarms / max(uncertain, 1)
    findings = [
        _judge(pair, methods[pair.cell], limits, level) if pair.cell in methods else _one_sided(pair)
        for pair in pairs
    ]
    findings.sort(key=lambda finding: (VERDICTS.index(finding.verdict), finding.cell))
    return Comparison(tuple(findings), level, tuple(_notes(candidate)))


def _pair(cell: Cell, baseline: Side, candidate: Side) -> _Pair:
    ours, theirs = candidate.cells.get(cell, {}), baseline.cells.get(cell, {})
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return _Pair(cell, theirs, {} if theirs else ours)
    lost = tuple(sorted(theirs.keys() - ours.keys()))
    return _Pair(cell, {seed: theirs[seed] for seed in common}, {seed: ours[seed] for seed in common}, lost)


def _misfits(pair: _Pair) -> list[Problem]:
    """What makes a comparison of the two meaningless."""
    found = []
    for seed, ours in pair.candidate.items():
        theirs = pair.baseline[seed]
        one, other = ours.record, theirs.record
        if one.scale != other.scale:
            found.append(Problem(str(ours.path), "scale", f"{one.scale!r}, but {theirs.path} is {other.scale!r}"))
        if _other_data(one, other) and one.fingerprint != other.fingerprint:
            message = f"evaluated on other data than {theirs.path}; move the baseline with --update"
            found.append(Problem(str(ours.path), "provenance.dataset_digest", message))
        if one.verb == "latency" and one.fingerprint != other.fingerprint:
            message = f"timed under another protocol than {theirs.path}; move the baseline with --update"
            found.append(Problem(str(ours.path), "fingerprint", message))
    return found


def _other_data(one: Record, other: Record) -> bool:
    digests = {record.provenance.dataset_digest for record in (one, other)} - {None}
    return len(digests) > 1


@dataclass(frozen=True)
class _Method:
    """How a pair is compared: the effect at a level, and whether there is an error for the level to matter."""

    effect: Callable[[float], Effect]
    has_error: bool = True
    notes: tuple[str, ...] = ()


def _method(pair: _Pair, limits: GateLimits) -> _Method:
    before, after = pair.values
    aggregation = METRICS[pair.cell.metric].aggregation
    if aggregation == "exact":
        return _Method(lambda _level: effects.exact(_mean(before), _mean(after)), has_error=False)
    if aggregation == "median over rounds":
        [(theirs, ours)] = [(pair.baseline[seed].metric, pair.candidate[seed].metric) for seed in before]
        return _Method(lambda level: effects.of_ratios(theirs, ours, level))
    kept = _kept(pair)
    metric = pair.cell.metric
    if kept is not None and all(identical(one, other) for one, other in zip(*kept, strict=True)):
        same = Effect(0.0, 0.0, 0.0, 0.0, "identical predictions")
        return _Method(lambda _level: same, has_error=False)
    retrained = any(
        one.provenance.checkpoint_sha256 != other.provenance.checkpoint_sha256 for one, other in pair.records
    )
    if len(before) >= limits.min_seeds and (retrained or kept is None):
        return _Method(lambda level: effects.over_seeds(before, after, level))
    if kept is not None:
        note = "trained anew: the interval is of the images, not of repeating the training"
        notes = (note,) if retrained else ()
        return _Method(lambda level: effects.over_images(metric, *kept, level, limits.resamples), notes=notes)
    nothing = f"{len(before)} seeds (expected {limits.min_seeds} or more) and no predictions"
    change = _mean(after) - _mean(before)
    return _Method(lambda _level: Effect(change, None, None, None, nothing), has_error=False)


def _kept(pair: _Pair) -> tuple[list[Predictions], list[Predictions]] | None:
    """Predictions of both sides, seed by seed, with the images of each pair in the same order."""
    before, after = [], []
    for seed, entry in pair.candidate.items():
        theirs, ours = predictions_of(pair.baseline[seed]), predictions_of(entry)
        if theirs is None or ours is None:
            return None
        if theirs.images.tolist() != ours.images.tolist():
            message = f"other images, or in another order, than in {pair.baseline[seed].path}"
            raise UserError(Problem(str(entry.path), "predictions", f"{message}; move the baseline with --update"))
        before.append(theirs)
        after.append(ours)
    return before, after


def _judge(pair: _Pair, method: _Method, gate: GateLimits, level: float) -> Finding:
    before, after = pair.values
    limits, sign = gate.metrics[pair.cell.metric], METRICS[pair.cell.metric].sign
    effect = method.effect(level)
    elsewhere = pair.cell.verb != "complexity" and any(_elsewhere(*records) for records in pair.records)
    others = _others(pair) if pair.cell.verb == "latency" else 0.0
    disturbed = others > gate.disturbed
    limit = limits.tolerance(_mean(before), elsewhere=elsewhere or disturbed)
    notes = list(method.notes)
    if pair.lost:
        notes.append(f"the candidate lacks {len(pair.lost)} of the baseline's {len(pair.lost) + len(before)} seeds")
    if elsewhere and limits.elsewhere:
        notes.append("made on another machine or torch: wider limit")
    elif disturbed and limits.elsewhere:
        notes.append(f"timed while others had {others:.0f} % of the CPUs: wider limit")
    if pair.cell.verb == "evaluate" and any(one.fingerprint != other.fingerprint for one, other in pair.records):
        notes.append("the run's configuration is another one")
    elif any(_other_data(*records) for records in pair.records):
        notes.append("the images differ in their bytes: made by other versions or on another machine")
    unit = next(iter(pair.candidate.values())).metric.unit
    finding = Finding(pair.cell, "cannot tell", unit, _mean(before), _mean(after), effect, limit, tuple(notes))
    if effect.low is None or effect.high is None:
        return finding
    low, high = sorted((sign * effect.low, sign * effect.high))
    gain = sign * effect.change
    if high < 0 and gain < -limit:
        return replace(finding, verdict="worse")
    if low > 0 and gain > limit:
        return replace(finding, verdict="better")
    if low >= -limit and high <= limit:
        return replace(finding, verdict="no change")
    return finding


def _one_sided(pair: _Pair) -> Finding:
    entries = pair.baseline or pair.candidate
    mean = _mean({seed: entry.metric.value for seed, entry in entries.items()})
    unit = next(iter(entries.values())).metric.unit
    if pair.baseline:
        return Finding(
            pair.cell,
            "missing",
            unit,
            mean,
            None,
            notes=("the candidate has no such number, or not for these seeds",),
        )
    return Finding(pair.cell, "new", unit, None, mean, notes=("the baseline has no such number",))


def _elsewhere(one: Record, other: Record) -> bool:
    """Whether two records were made on different machines or versions of torch, or that is not known."""
    places = [
        (
            record.machine.cpu if record.machine else None,
            record.provenance.device,
            record.provenance.packages.get("torch"),
        )
        for record in (one, other)
    ]
    return places[0] != places[1] or None in places[0]


def _others(pair: _Pair) -> float:
    """The larger share of the CPU time, in per cent, that others had while either side was timed; 0 if unknown."""
    machines = [record.machine for records in pair.records for record in records]
    return max((machine.others_percent or 0.0 for machine in machines if machine), default=0.0)


def _notes(candidate: Side) -> list[str]:
    said = []
    commits = {record.provenance.git_commit for record in candidate.records.values()}
    if len(commits) > 1:
        said.append(f"the candidate's records come from {len(commits)} commits")
    if any(record.provenance.git_dirty for record in candidate.records.values()):
        said.append("the candidate's records come from a checkout with uncommitted changes")
    for record in candidate.records.values():
        said += record.warnings
    return said


def _mean(values: dict[int, float]) -> float:
    return float(np.mean(list(values.values())))
