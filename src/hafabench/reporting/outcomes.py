"""What a cell shows in place of numbers: trainings that collapsed, jobs that failed, and records that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.config.tables import Column
from hafabench.reporting import legend
from hafabench.reporting.frame import COLLAPSED, NOT_BEGUN
from hafabench.runs.jobs import Job, JobList
from hafabench.runs.state import JobState

Kind = Literal["collapsed", "failed", "stale", "not run"]


@dataclass(frozen=True)
class Outcome:
    """Why a run, a count or a timing has no numbers.

    Attributes:
        kind: ``collapsed`` (the training diverged), ``failed`` (the last attempt of its job ended with an error),
            ``stale`` (its record was made under another configuration or from other data), or ``not run``.
        id: The id of the run or of the measurement.
        clause: The reason, as a clause.
        task, model, seed: The run; None for a measurement of several models.
        measured: For a measurement its verb, and its task (complexity) or group (latency).
        is_recorded: Whether a record contains the outcome. Such a run is complete; the workflow does not repeat it.
        step: The optimiser step at which the training collapsed.
        origin, device: As those of a metric.
    """

    kind: Kind
    id: str
    clause: str
    task: str | None = None
    model: str | None = None
    seed: int | None = None
    measured: tuple[str, str] | None = None
    is_recorded: bool = False
    step: int | None = None
    origin: str = "measured"
    device: str | None = None


_WORDS = {"to do": legend.NOT_YET, "done": "not collected yet"}


class Outcomes:
    """The outcomes of an experiment that are no numbers.

    Args:
        found: The outcomes.
    """

    def __init__(self, found: Iterable[Outcome] = ()):
        self.all = tuple(found)

    @property
    def recorded(self) -> list[Outcome]:
        """The outcomes of complete runs: trainings that collapsed, and those that would start from their weights."""
        return [outcome for outcome in self.all if outcome.is_recorded]

    @property
    def missing(self) -> list[Outcome]:
        """The outcomes of incomplete jobs, failed ones first, and stale ones next."""
        order = {"failed": 0, "stale": 1}
        return sorted((o for o in self.all if not o.is_recorded), key=lambda outcome: order.get(outcome.kind, 2))

    @staticmethod
    def by_clause(found: Iterable[Outcome]) -> dict[str, list[str]]:
        """Return the ids of outcomes by their reason."""
        grouped: dict[str, list[str]] = {}
        for outcome in found:
            grouped.setdefault(outcome.clause, []).append(outcome.id)
        return grouped

    def of(self, column: Column, model: str, group: str) -> list[Outcome]:
        """Return the outcomes behind a cell.

        Args:
            column: The column of the cell.
            model: The model of its row.
            group: The group of its row.
        """
        source = column.latency_group(group) or column.task
        return [
            outcome
            for outcome in self.all
            if (column.verb == "evaluate" and (outcome.task, outcome.model) == (column.task, model))
            or outcome.measured == (column.verb, source)
        ]


def outcomes(
    experiment: Experiment,
    frame: pd.DataFrame,
    states: Mapping[str, JobState] | None,
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> Outcomes:
    """Return the outcomes of an experiment that are no numbers.

    Args:
        experiment: The experiment.
        frame: Its metrics, with the trainings that collapsed.
        states: The states of its jobs by id; None if missing records are of no interest.
        left_out: Why records were left out of the frame, by their ids (`hafabench.reporting.frame.leave_out_stale`).
    """
    found = [_recorded(row) for row in frame[frame["name"].isin((COLLAPSED, NOT_BEGUN))].itertuples(index=False)]
    if states is None:
        return Outcomes(found)
    present = {Path(record) for record in frame["record"].unique()}
    jobs = JobList(experiment)
    for job in jobs.values():
        is_record = job.rule in ("evaluate_run", "count_complexity", "measure_latency")
        if is_record and job.outputs[0] not in present:
            found.append(_missing(job, jobs, states, left_out))
    return Outcomes(found)


def _recorded(row: Any) -> Outcome:
    kind: Kind = "collapsed" if row.name == COLLAPSED else "not run"
    run = row.task, row.model, int(row.seed)
    return Outcome(kind, row.id, row.convention, *run, is_recorded=True, step=int(row.value), device=row.device)


def _missing(job: Job, jobs: JobList, states: Mapping[str, JobState], left_out: Mapping[str, str]) -> Outcome:
    verb = "latency" if job.rule == "measure_latency" else "complexity"
    identifier = job.run.id if job.run is not None else f"{verb}/{job.subject}"
    kind, clause = _reason(job, jobs, states)
    if kind == "not run" and identifier in left_out:
        kind, clause = "stale", left_out[identifier]
    if job.run is not None:
        run = job.run
        return Outcome(kind, run.id, clause, run.task, run.model.name, run.seed)
    return Outcome(kind, identifier, clause, measured=(verb, job.subject))


def _reason(job: Job, jobs: JobList, states: Mapping[str, JobState]) -> tuple[Kind, str]:
    """Return why a job is not done: its own failure, or the state of a job that it needs, first of all a failure."""
    state = states[job.id]
    if state.state == "failed":
        return "failed", f"failed: {job.rule}: {state.last_line.removeprefix('error: ')}"
    if state.state == "stale" and state.changes:
        return "stale", state.stale_clause
    reasons: list[tuple[Kind, str]] = []
    for name in job.needs:
        if states[name].outputs == "done":
            continue
        kind, clause = _reason(jobs[name], jobs, states)
        is_own = jobs[name].run is not None and jobs[name].run is job.run
        if kind == "failed" and not is_own:
            kind, clause = "not run", f"not run: {name} {clause}"
        elif kind == "stale" and not is_own:
            kind, clause = "not run", legend.NOT_YET
        reasons.append((kind, clause))
    if reasons:
        return next((reason for reason in reasons if reason[1] != legend.NOT_YET), reasons[0])
    if state.state == "stale":
        return "stale", state.stale_clause
    return "not run", _WORDS.get(state.state, f"not finished: {job.rule} is {state.state}")


def seeds_text(found: Sequence[Outcome]) -> str:
    """Name the seeds of outcomes beside a mean over others: ``seed 3 collapsed, seed 4 failed``."""
    return ", ".join(f"seed {outcome.seed} {outcome.kind}" for outcome in found if outcome.seed is not None)
