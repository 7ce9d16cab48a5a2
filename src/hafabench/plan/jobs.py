"""The jobs of an experiment as the workflow will run them, with what each needs and costs from now on."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import TASKS
from hafabench.pictures.index import index_file
from hafabench.results.counts import is_current
from hafabench.runs.estimates import Estimate
from hafabench.runs.fingerprints import complexity_fingerprint, latency_fingerprint
from hafabench.runs.paths import complexity_record, counts_record, latency_record
from hafabench.runs.picture_runs import picture_subjects
from hafabench.runs.resources import ResourceBook, Resources
from hafabench.runs.run import Run, expand
from hafabench.runs.state import RunState, dataset_is_ready, record_is_current, run_state
from hafabench.runs.static_models import counts_fingerprint


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        id: rule and subject: ``train_run classification/pvt_tiny/seed0``.
        rule, subject: its parts; ``subject`` is empty for jobs that there are once.
        needs: ids of the jobs that it waits for.
        resources: what its first attempt asks for.
        hours: wall-clock hours that are left to do, startup included; 0 where it is done.
        hours_anew: the same if nothing of it were there.
        state: ``done``, ``to do``, ``interrupted`` (a training to be resumed) or ``stale`` (to be done again).
        sources: what the hours rest on, clauses.
    """

    id: str
    rule: str
    subject: str
    needs: tuple[str, ...]
    resources: Resources
    hours: float
    hours_anew: float
    state: str
    sources: tuple[str, ...]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours left to do."""
        return self.hours * self.resources.gpus

    @property
    def gpu_hours_anew(self) -> float:
        """GPU-hours if nothing of it were there."""
        return self.hours_anew * self.resources.gpus


def job_id(rule: str, subject: str = "") -> str:
    """``("train_run", "classification/pvt_tiny/seed0")`` -> the job's id."""
    return f"{rule} {subject}".strip()


def make_jobs(experiment: Experiment, book: ResourceBook) -> tuple[dict[str, Job], dict[str, RunState]]:
    """Every job of the experiment's ``all``, those it waits for first, and the state of every run."""
    runs = expand(experiment)
    states = {run.id: run_state(run) for run in runs.values()}
    timed = _Timing(book, states)
    jobs: dict[str, Job] = {}

    def add(rule: str, subject: str, needs: list[str], resources: Resources, **known) -> str:
        identifier = job_id(rule, subject)
        jobs[identifier] = Job(identifier, rule, subject, tuple(needs), resources, **known)
        return identifier

    for task in TASKS:
        if experiment.config.train.get(task):
            resources = book.prepare_dataset(task)
            add(
                "prepare_dataset", task, [], resources, **_flat(resources, dataset_is_ready(experiment, task) or None)
            )
    records = []
    for run in runs.values():
        needs = [job_id("prepare_dataset", run.task)]
        if run.parent is not None:
            needs.append(job_id("train_run", run.parent.id))
        trained = add("train_run", run.id, needs, book.train(run), **timed.training(run))
        needs = [trained, job_id("prepare_dataset", run.task)]
        records.append(add("evaluate_run", run.id, needs, book.evaluate(run), **timed.evaluation(run)))
    for task in TASKS:
        current = record_is_current(complexity_record(experiment, task), complexity_fingerprint(experiment, task))
        resources = book.complexity(task)
        records.append(add("count_complexity", task, [], resources, **_flat(resources, current)))
    resources, current = book.conventions(), is_current(counts_record(experiment), counts_fingerprint(experiment))
    counted = add("count_conventions", "", [], resources, **_flat(resources, current))
    for group in experiment.config.latency:
        current = record_is_current(latency_record(experiment, group), latency_fingerprint(experiment, group))
        resources = book.latency(group)
        records.append(add("measure_latency", group.name, [], resources, **_flat(resources, current)))
    measured = all(jobs[record].state == "done" for record in records)
    framed = measured and (experiment.results / "frame.parquet").exists()
    resources = book.collect()
    collected = add("collect_records", "", records, resources, **_flat(resources, framed or None))
    written = framed and (experiment.reports / "tables.md").exists()
    needs = [collected, counted]
    subjects = picture_subjects(runs)
    if subjects.can_be_drawn:
        drawn = all(states[run.id].state in ("done", "trained") for run in subjects.runs)
        drawn = drawn and index_file(experiment).exists()
        resources = book.pictures()
        trained = [job_id("train_run", run.id) for run in subjects.runs]
        needs.append(add("draw_pictures", "", trained, resources, **_flat(resources, drawn or None)))
    resources = book.report()
    add("write_report", "", needs, resources, **_flat(resources, written or None))
    return jobs, states


def _flat(resources: Resources, current: bool | None) -> dict[str, Any]:
    """Hours of a job that no recipe says anything about; ``current``: done, stale (False), or not there (None)."""
    hours = resources.estimated_minutes / 60
    return {
        "hours": 0.0 if current else hours,
        "hours_anew": hours,
        "state": {True: "done", False: "stale", None: "to do"}[current],
        "sources": ("a flat allowance per job",),
    }


class _Timing:
    """Hours of trainings and evaluations: measured where this experiment has measured them, estimated otherwise."""

    def __init__(self, book: ResourceBook, states: dict[str, RunState]):
        self._book, self._states = book, states
        self._startup = book.throughput.startup_minutes / 60
        # Images per second and process of what has been trained, by task and model.
        self._measured: dict[tuple[str, str], list[float]] = {}
        ratios: dict[str, list[float]] = {}
        for state in states.values():
            rate = _measured_rate(state)
            if rate is None:
                continue
            run = state.run
            self._measured.setdefault((run.task, run.model.name), []).append(rate)
            gpus, _ = book.gpus_of(run)
            assumed = book.throughput.train(run, gpus, book.speed).images_per_s / max(gpus, 1)
            ratios.setdefault(run.task, []).append(rate / assumed)
        self._ratios = {task: (statistics.median(found), len(found)) for task, found in ratios.items()}

    def training(self, run: Run) -> dict[str, Any]:
        state = self._states[run.id]
        estimate = self._estimate(run)
        anew = estimate.hours + self._startup
        if state.state in ("done", "trained"):
            return {"hours": 0.0, "hours_anew": anew, "state": "done", "sources": estimate.sources}
        left = estimate.hours * (1 - state.share)
        sources = estimate.sources
        if state.state == "interrupted" and state.last and state.last.get("images_per_s"):
            left = (state.total - state.steps) * run.recipe.batch_size / state.last["images_per_s"] / 3600
            sources = (f"its own history: {state.last['images_per_s']:.1f} images/s after step {state.steps}",)
        known = {"stale": "stale", "interrupted": "interrupted"}
        return {
            "hours": left + self._startup,
            "hours_anew": anew,
            "state": known.get(state.state, "to do"),
            "sources": sources,
        }

    def evaluation(self, run: Run) -> dict[str, Any]:
        state = self._states[run.id]
        gpus = self._book.evaluate(run).gpus
        estimate = self._book.throughput.evaluate(run, gpus, self._book.speed)
        hours = estimate.hours + self._startup
        done = state.state == "done"
        return {
            "hours": 0.0 if done else hours,
            "hours_anew": hours,
            "state": "done" if done else "stale" if state.state == "stale" and state.record else "to do",
            "sources": estimate.sources,
        }

    def _estimate(self, run: Run) -> Estimate:
        gpus, _ = self._book.gpus_of(run)
        estimate = self._book.throughput.train(run, gpus, self._book.speed)
        images_an_hour = estimate.hours * estimate.images_per_s
        measured = self._measured.get((run.task, run.model.name))
        if measured:
            count = len(measured)
            rate = statistics.median(measured) * max(gpus, 1)
            source = f"measured by this experiment on {count} of the model's trainings"
            return Estimate(images_an_hour / rate, gpus, rate, (source,))
        ratio, count = self._ratios.get(run.task, (1.0, 0))
        if not count:
            return estimate
        source = (
            f"{1 / ratio:.2f} times as long as that: measured by this experiment on {count} trainings of the task"
        )
        return Estimate(estimate.hours / ratio, gpus, estimate.images_per_s * ratio, (*estimate.sources, source))


def _measured_rate(state: RunState) -> float | None:
    """Images per second and process of a finished training, from its record."""
    training = state.record.training if state.record is not None and state.state == "done" else None
    rate = (training or {}).get("images_per_s")
    if not isinstance(rate, int | float) or rate <= 0:
        return None
    return rate / max(int((training or {}).get("processes") or 1), 1)
