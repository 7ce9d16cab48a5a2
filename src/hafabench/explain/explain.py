"""Builds an explanation from the records, configuration, claims and accounting behind a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from hafabench.cluster.costs import AccountingRecord
from hafabench.config.experiment import Experiment
from hafabench.config.site import load_site, site_file
from hafabench.data.report import read_report
from hafabench.explain.configuration import settings
from hafabench.explain.explanation import Details, ExplainedRun, Explanation, Value, Verdict
from hafabench.explain.locate import Place, locate
from hafabench.explain.origins import origins
from hafabench.explain.steps import cost_left, other_experiments, reproduce, why_empty
from hafabench.plan.hours import PlannedJob, planned_jobs
from hafabench.reporting import legend
from hafabench.reporting.frame import make_frame
from hafabench.reporting.report import Report, current_counts
from hafabench.reporting.table_metrics import TableMetrics
from hafabench.reporting.tables import TableCell
from hafabench.results.checks import read_record_at
from hafabench.results.place import place_of
from hafabench.results.record import Record
from hafabench.runs.jobs import JobList
from hafabench.runs.paths import complexity_record, dataset_report, imported_folder, latency_record
from hafabench.runs.records import expected_records, imported_records
from hafabench.runs.run import Run
from hafabench.runs.state import JobState, RunState, job_states, run_state


def explain(experiment: Experiment, locator: str) -> Explanation:
    """Explain the cell, or the difference, that ``locator`` names.

    Raises:
        UserError: If the locator names nothing, or if a file that belongs to the cell cannot be read.
    """
    return Explainer(experiment).explain(locator)


class Explainer:
    """Explains cells of one experiment. Files are read when they are first needed, and only once.

    Args:
        experiment: The experiment.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._run_states: dict[str, RunState] = {}
        self._reports: dict[frozenset[Path], Report] = {}

    @cached_property
    def jobs(self) -> JobList:
        """The jobs of the experiment on the site where it will run."""
        return JobList(self.experiment, load_site(site_file()) if site_file().is_file() else None)

    @cached_property
    def _fingerprints(self) -> dict[Path, str]:
        """Every record that the experiment may have, with the fingerprint that it has to carry."""
        return {**expected_records(self.experiment, self.jobs.runs), **imported_records(self.experiment)}

    @cached_property
    def _job_states(self) -> dict[str, JobState]:
        return job_states(self.jobs, known=self._run_states)

    @cached_property
    def _planned(self) -> dict[str, PlannedJob]:
        return planned_jobs(self.jobs, self._job_states)

    @cached_property
    def _others(self) -> list[Experiment]:
        return list(other_experiments(self.experiment))

    def explain(self, locator: str) -> Explanation:
        """Explain the cell, or the difference, that ``locator`` names.

        Raises:
            UserError: If the locator names nothing, or if a file that belongs to the cell cannot be read.
        """
        experiment, jobs = self.experiment, self.jobs
        place = locate(experiment, locator)
        models = {place.row.model, place.row.baseline}
        states = [self._run_state(run) for run in jobs.runs.values() if _is_behind(run, place, models)]
        known = {state.run.record: state.record for state in states}
        stale = {state.run.record for state in states if state.state == "stale" and state.record is not None}
        allowed = {path: mark for path, mark in self._fingerprints.items() if path not in stale}
        records = _cell_records(experiment, place, known, allowed)
        report = self._report(records)
        # The difference needs the baseline's runs, but the explanation of a cell's value does not show them.
        states = [state for state in states if state.run.model.name in place.models]
        states.sort(key=lambda state: place.models.index(state.run.model.name))
        runs = [state.run for state in states]
        table, metrics = report.tables[place.table_layout.id], report.metrics[place.table_layout.id]
        row = place.table_layout.rows.index(place.row)
        cell = table.rows[row].cells[place.table_layout.columns.index(place.column)]
        found = origins(place, metrics, records, {run.id: run for run in runs})
        # A collapsed run is done, although it has no number.
        collapsed = any(state.record is not None and state.record.collapse is not None for state in states)
        done = (bool(found) or collapsed) and all(state.state == "done" for state in states)
        what = f"{table.place}: {place.row.label}, {place.column.header}"
        digest = _verified_digest(experiment, place.column.task) if runs else None
        return Explanation(
            locator=place.locator,
            what=what + (f", difference from {_label(place)}" if place.is_difference else ""),
            experiment=experiment.name,
            scale=experiment.config.scale,
            warning=report.warning,
            value=_value(place, cell, metrics),
            verdicts=[
                Verdict(verdict.claim.locator, verdict.claim.text, verdict.verdict, verdict.because)
                for verdict in report.ledger.verdicts
                if verdict.claim.row is place.row and verdict.claim.column is place.column
            ],
            notes=[
                *why_empty(experiment, place, runs, found, lambda: self._others),
                *(f"{outcome.id}: {outcome.clause}" for outcome in cell.outcomes if outcome.clause != legend.NOT_YET),
                *report.different_data,
            ],
            origins=found,
            runs=[_explain_run(experiment, state, digest) for state in states],
            accounting=_accounting(report.costs, place, runs) if report.costs else [],
            cost=None if done else cost_left(jobs, place, runs, self._planned),
            remake=reproduce(jobs, place, runs, found, done=done),
        )

    def _run_state(self, run: Run) -> RunState:
        if run.id not in self._run_states:
            parent = self._run_state(run.parent) if run.parent is not None else None
            self._run_states[run.id] = run_state(run, parent)
        return self._run_states[run.id]

    def _report(self, records: Mapping[Path, Record]) -> Report:
        key = frozenset(records)
        if key not in self._reports:
            counts = current_counts(self.experiment)
            self._reports[key] = Report(self.experiment, make_frame(records.items()), counts, self._job_states)
        return self._reports[key]


def _is_behind(run: Run, place: Place, models: set[str | None]) -> bool:
    """Whether a cell's value or its difference is made from a run; counted and timed cells have no runs."""
    return place.column.verb == "evaluate" and run.task == place.column.task and run.model.name in models


def _cell_records(
    experiment: Experiment, place: Place, known: Mapping[Path, Record | None], fingerprints: Mapping[Path, str]
) -> dict[Path, Record]:
    """The records from which a cell and its difference are made, without stale ones.

    Args:
        experiment: The experiment.
        place: The cell.
        known: The records of its runs, by file; None if a record is missing or cannot be read.
        fingerprints: Every record that may be used, with the fingerprint that it has to carry.
    """
    column = place.column
    wanted = set(known)
    if column.verb == "complexity":
        wanted.add(complexity_record(experiment, column.task))
    elif place.latency_group is not None:
        wanted.add(latency_record(experiment, place.latency_group))
    models = filter(None, (place.row.model, place.row.baseline))
    folders = {imported_folder(experiment, column.verb, column.task, model) for model in models}
    paths = [path for path in fingerprints if path in wanted or path.parent in folders]
    records = {
        path: known.get(path) or read_record_at(path, place_of(path, experiment.results))
        for path in paths
        if path.is_file()
    }
    return {path: record for path, record in records.items() if record.fingerprint == fingerprints[path]}


def _label(place: Place) -> str:
    labels = {row.model: row.label for row in place.table_layout.rows}
    baseline = place.row.baseline or ""
    return labels.get(baseline, baseline)


def _value(place: Place, cell: TableCell, metrics: TableMetrics) -> Value:
    decimals, factor = place.column.decimals, place.column.factor
    printed, delta = cell.ours(decimals)
    interval = None
    if cell.delta_low is not None and cell.delta_high is not None:
        interval = cell.delta_low, cell.delta_high
    return Value(
        printed=printed,
        delta_printed=" ".join(filter(None, [delta, cell.interval(decimals)])),
        mean=cell.value,
        spread=cell.spread,
        n=cell.n,
        delta=cell.delta,
        delta_interval=interval,
        by_seed={
            model: {
                "unknown" if metric.seed is None else str(metric.seed): metric.value * factor
                for metric in metrics.of(place.column, model)
            }
            for model in place.models
            if place.column.verb == "evaluate"
        },
        mark=cell.mark,
        paper=cell.paper,
        paper_delta=cell.paper_delta,
        paper_printed=" ".join(filter(None, cell.cited(decimals))),
    )


def _explain_run(experiment: Experiment, state: RunState, digest: str | None) -> ExplainedRun:
    run = state.run
    return ExplainedRun(
        id=run.id,
        state=state.state,
        changes=state.changes,
        fingerprint=run.fingerprint,
        starts_from=_starts_from(run),
        model={
            "architecture": run.model.architecture,
            "mergers": list(run.model.mergers),
            "variant": run.model.query_mode,
            "fidelity": run.model.fidelity,
            **({"scale": run.model.scale_text} if run.model.is_scaled else {}),
        },
        dataset={
            "name": run.dataset.name,
            "root": str(run.dataset.root),
            "images": dict(run.dataset.images),
            "classes": run.dataset.num_classes,
            "digest": digest,
        },
        settings=settings(experiment, run),
    )


def _starts_from(run: Run) -> str | None:
    """The run, or the published weights, from which a run starts."""
    if run.weights is None:
        return run.parent.id if run.parent else None
    present = "" if run.weights.file.is_file() else ", which no longer exists there"
    return f"published weights, {run.weights.text}, at {run.weights.file}{present}"


def _verified_digest(experiment: Experiment, task: str) -> str | None:
    """The digest of the task's data set when it was last verified; None if it never was."""
    report = dataset_report(experiment, task)
    return read_report(report).digest if report.is_file() else None


def _accounting(costs: AccountingRecord, place: Place, runs: Sequence[Run]) -> list[Details]:
    subjects: set[str | None] = {run.id for run in runs}
    rules = {"train_run", "evaluate_run"}
    if not runs:
        subjects, rules = {place.latency_group or place.column.task}, {"measure_latency", "count_complexity"}
    return [
        {
            "job": f"{cost.rule} {cost.subject}",
            "state": cost.state,
            "jobs": cost.submissions,
            "requeues": cost.requeues,
            "hours": round(cost.elapsed_h, 4),
            "gpu_hours": round(cost.gpu_hours, 4),
            "peak_memory_mb": cost.peak_memory_mb,
            "nodes": cost.nodes,
        }
        for cost in costs.jobs
        if cost.rule in rules and cost.subject in subjects
    ]
