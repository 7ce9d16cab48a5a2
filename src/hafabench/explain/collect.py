"""The facts behind a cell, gathered from records, configuration, claims and accounting; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hafabench.cluster.costs import accounting_file, read_accounting
from hafabench.config.experiment import Experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.config.site import load_site, site_file
from hafabench.data.verify import read_report
from hafabench.explain.configuration import settings
from hafabench.explain.explanation import Explanation, Facts, RunFacts, Value, Verdict
from hafabench.explain.locate import Place, locate
from hafabench.explain.origins import origins
from hafabench.explain.steps import cost_left, remake, why_nothing
from hafabench.reporting import legend
from hafabench.reporting.claims.settle import settle
from hafabench.reporting.frame import collect
from hafabench.reporting.numbers import Numbers
from hafabench.reporting.tables import Cell, build_table
from hafabench.results.counts import read_current
from hafabench.runs.jobs import JobList
from hafabench.runs.paths import counts_record, dataset_report
from hafabench.runs.records import expected_records, imported_records
from hafabench.runs.run import Run, expand, run_id
from hafabench.runs.state import RunState, run_state
from hafabench.runs.static_models import counts_fingerprint


def explain(experiment: Experiment, locator: str) -> Explanation:
    """Everything that is known of the cell, or of the difference, that ``locator`` names.

    Raises:
        UserError: for a locator that names nothing, records that cannot be read, or files of the experiment that
            cannot.
    """
    place = locate(experiment, locator)
    frame = current_frame(experiment)
    runs = cell_runs(experiment, place)
    states = [run_state(run) for run in runs]
    jobs = JobList(experiment, load_site(site_file()) if site_file().is_file() else None)
    about = {"experiment": experiment.name, "title": experiment.config.title, "scale": experiment.config.scale}
    table = build_table(place.layout, frame, load_paper_values(experiment.paper_values), **about)
    (cell,) = (
        row.cells[place.layout.columns.index(place.column)]
        for row, of_layout in zip(table.rows, place.layout.rows, strict=True)
        if of_layout is place.row
    )
    numbers = Numbers(place.layout, frame)
    found = origins(place, frame, numbers, {run.id: run for run in runs})
    done = bool(found) and all(state.state == "done" for state in states)
    what = f"{table.place}: {place.row.label}, {place.column.header}"
    return Explanation(
        locator=place.locator,
        what=what + (f", difference to {_label(place)}" if place.is_difference else ""),
        experiment=experiment.name,
        scale=experiment.config.scale,
        warning=legend.warning(experiment.config.title, experiment.config.scale),
        value=_value(place, cell, numbers),
        verdicts=_verdicts(experiment, place, frame),
        notes=why_nothing(experiment, place, runs, found),
        origins=found,
        runs=[_run_facts(experiment, state) for state in states],
        accounting=_accounting(experiment, place, runs),
        cost=None if done else cost_left(jobs, place, runs),
        remake=remake(jobs, place, runs, found, done=done),
    )


def current_frame(experiment: Experiment) -> pd.DataFrame:
    """The records that tables may show, whether or not they were collected: those that are not stale."""
    expected = expected_records(experiment) | imported_records(experiment)
    frame = collect(path for path in expected if path.is_file())
    known = {str(path): mark for path, mark in expected.items()}
    return frame[frame["fingerprint"] == frame["record"].map(known)].reset_index(drop=True)


def cell_runs(experiment: Experiment, place: Place) -> list[Run]:
    """The experiment's runs behind a trained cell, of every seed; none for counted and timed ones."""
    if place.column.verb != "evaluate":
        return []
    runs = expand(experiment)
    wanted = (run_id(place.column.task, model, seed) for model in place.models for seed in experiment.config.seeds)
    return [runs[name] for name in wanted if name in runs]


def _label(place: Place) -> str:
    labels = {row.model: row.label for row in place.layout.rows}
    return labels.get(place.row.baseline, place.row.baseline)


def _value(place: Place, cell: Cell, numbers: Numbers) -> Value:
    decimals, factor = place.column.decimals, place.column.factor
    printed, delta = cell.ours(decimals)
    interval = None if cell.delta_low is None else (cell.delta_low, cell.delta_high)
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
                for metric in numbers.of(place.column, model)
            }
            for model in place.models
            if place.column.verb == "evaluate"
        },
        mark=cell.mark,
        paper=cell.paper,
        paper_delta=cell.paper_delta,
        paper_printed=" ".join(filter(None, cell.cited(decimals))),
    )


def _verdicts(experiment: Experiment, place: Place, frame: pd.DataFrame) -> list[Verdict]:
    counts = read_current(counts_record(experiment), counts_fingerprint(experiment))
    static = place.column.verb == "complexity"
    ledger = settle(experiment, counts, None if static else frame)
    return [
        Verdict(ruling.claim.locator, ruling.claim.text, ruling.verdict, ruling.because)
        for ruling in ledger.rulings
        if ruling.claim.row is place.row and ruling.claim.column is place.column
    ]


def _run_facts(experiment: Experiment, state: RunState) -> RunFacts:
    run = state.run
    return RunFacts(
        id=run.id,
        state=state.state,
        changes=state.changes,
        fingerprint=run.fingerprint,
        starts_from=run.parent.id if run.parent else None,
        model={
            "architecture": run.model.architecture,
            "mergers": list(run.model.mergers),
            "variant": run.model.query_mode,
            "fidelity": run.model.fidelity,
        },
        dataset=_dataset(experiment, run),
        settings=settings(experiment, run),
    )


def _dataset(experiment: Experiment, run: Run) -> Facts:
    report = dataset_report(experiment, run.task)
    digest = read_report(report).digest if report.is_file() else None
    return {
        "name": run.dataset.name,
        "root": str(run.dataset.root),
        "images": dict(run.dataset.images),
        "classes": run.dataset.num_classes,
        "digest": digest,
    }


def _accounting(experiment: Experiment, place: Place, runs: Sequence[Run]) -> list[Facts]:
    path = accounting_file(experiment)
    if not path.is_file():
        return []
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
        for cost in read_accounting(path).jobs
        if cost.rule in rules and cost.subject in subjects
    ]
