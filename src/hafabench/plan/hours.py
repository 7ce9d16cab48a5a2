"""The hours that every job of an experiment still takes, from measured rates if there are any, or else estimated."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from hafabench.runs.estimates import Estimate
from hafabench.runs.jobs import Job, JobList
from hafabench.runs.resources import Resources
from hafabench.runs.run import Run
from hafabench.runs.state import JobState, OutputState, RunState


@dataclass(frozen=True)
class PlannedJob:
    """A job with the time that it takes.

    Attributes:
        job: The job.
        resources: What its first attempt requests.
        hours: Wall-clock hours that it still takes, including the startup; 0 for a job that is done.
        hours_from_scratch: The hours if nothing of it were on disk.
        state: What is on disk of its outputs (`hafabench.runs.state.JobState`).
        sources: What the hours are derived from, as clauses.
    """

    job: Job
    resources: Resources
    hours: float
    hours_from_scratch: float
    state: OutputState
    sources: tuple[str, ...]

    @property
    def id(self) -> str:
        """The id of the job."""
        return self.job.id

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that it still takes."""
        return self.hours * self.resources.gpus

    @property
    def gpu_hours_from_scratch(self) -> float:
        """GPU-hours if nothing of it were on disk."""
        return self.hours_from_scratch * self.resources.gpus


def planned_jobs(jobs: JobList, states: Mapping[str, JobState]) -> dict[str, PlannedJob]:
    """Every job of a complete run by its id, after those that it needs.

    Args:
        jobs: The jobs of an experiment.
        states: Their states (`hafabench.runs.state.job_states`).
    """
    hours = _Hours(jobs, states)
    return {identifier: hours.planned(job, states[identifier]) for identifier, job in jobs.items()}


class _Hours:
    """Hours of trainings and evaluations as measured or estimated, and a flat allowance for other jobs."""

    def __init__(self, jobs: JobList, states: Mapping[str, JobState]):
        self._requests = jobs.requests
        self._startup = jobs.requests.throughput.startup_minutes / 60
        # Images per second and process of finished trainings, by task and model.
        self._measured: dict[tuple[str, str], list[float]] = {}
        ratios: dict[str, list[float]] = {}
        for state in states.values():
            run = state.run.run if state.run is not None and state.job.rule == "train_run" else None
            rate = _measured_rate(state.run)
            if run is None or rate is None:
                continue
            self._measured.setdefault((run.task, run.model.name), []).append(rate)
            gpus, estimate = self._assumed(run)
            ratios.setdefault(run.task, []).append(rate * max(gpus, 1) / estimate.images_per_s)
        self._ratios = {task: (statistics.median(found), len(found)) for task, found in ratios.items()}

    def planned(self, job: Job, state: JobState) -> PlannedJob:
        resources = job.resources()
        if state.run is None:
            work = left = resources.estimated_minutes / 60 - self._startup
            sources: tuple[str, ...] = ("a flat allowance per job",)
        elif job.rule == "train_run":
            estimate = self._training(state.run.run)
            work, sources = estimate.hours, estimate.sources
            left, sources = self._left(state.run, work, sources)
        else:
            estimate = self._requests.throughput.evaluate(state.run.run, resources.gpus, self._requests.speed)
            work = left = estimate.hours
            sources = estimate.sources
        return PlannedJob(
            job=job,
            resources=resources,
            hours=0.0 if state.outputs == "done" else left + self._startup,
            hours_from_scratch=work + self._startup,
            state=state.outputs,
            sources=sources,
        )

    def _left(self, state: RunState, hours: float, sources: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
        """The hours that a training still takes, and what they are derived from."""
        rate = (state.last or {}).get("images_per_s")
        if state.state != "interrupted" or not rate:
            return hours * (1 - state.share), sources
        images = (state.total - state.steps) * state.run.recipe.batch_size
        return images / rate / 3600, (f"its own history: {rate:.1f} images/s after step {state.steps}",)

    def _assumed(self, run: Run) -> tuple[int, Estimate]:
        gpus, _ = self._requests.gpus_of(run)
        return gpus, self._requests.throughput.train(run, gpus, self._requests.speed)

    def _training(self, run: Run) -> Estimate:
        gpus, estimate = self._assumed(run)
        images_per_hour = estimate.hours * estimate.images_per_s
        measured = self._measured.get((run.task, run.model.name))
        if measured:
            rate = statistics.median(measured) * max(gpus, 1)
            source = f"measured by this experiment on {len(measured)} of the model's trainings"
            return Estimate(images_per_hour / rate, gpus, rate, (source,))
        ratio, count = self._ratios.get(run.task, (1.0, 0))
        if not count:
            return estimate
        trainings = f"{count} training{'s' if count > 1 else ''}"
        source = f"{1 / ratio:.2f} times that estimate, as measured by this experiment on {trainings} of the task"
        return Estimate(estimate.hours / ratio, gpus, estimate.images_per_s * ratio, (*estimate.sources, source))


def _measured_rate(state: RunState | None) -> float | None:
    """Images per second and process of a finished training, from its record."""
    record = state.record if state is not None and state.state == "done" else None
    if record is None or record.collapse is not None:
        # A training that collapsed may have ended after a few steps, which are slower than the others.
        return None
    training = record.training or {}
    rate = training.get("images_per_s")
    if not isinstance(rate, int | float) or rate <= 0:
        return None
    return rate / max(int(training.get("processes") or 1), 1)
