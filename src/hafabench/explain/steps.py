"""The commands that make the number of a cell, their cost, and the reasons why a cell is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hafabench.config.experiment import Experiment, load_experiment
from hafabench.config.shipped import shipped_folder
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import UserError
from hafabench.explain.commands import Reproduction, reproduce_record, reproduce_runs
from hafabench.explain.explanation import Origin
from hafabench.explain.locate import Place
from hafabench.formatting.durations import format_duration
from hafabench.plan.hours import PlannedJob
from hafabench.runs.jobs import Job, JobList, hafabench_command, job_id
from hafabench.runs.run import Run


def reproduce(
    jobs: JobList, place: Place, runs: Sequence[Run], found: Sequence[Origin], *, done: bool
) -> Reproduction | None:
    """How to make the number of the cell again.

    Args:
        jobs: The jobs of the experiment.
        place: The cell.
        runs: The runs behind a cell of trained numbers.
        found: The records behind its value.
        done: Whether every run is done.

    Returns:
        The commands, or None if this experiment cannot make the number.
    """
    imported = [origin for origin in found if origin.shown and origin.origin == "imported"]
    if imported and not runs:
        commands = list(dict.fromkeys(origin.command for origin in imported))
        return Reproduction(" && ".join(commands), ())
    if place.column.verb == "evaluate":
        return reproduce_runs(jobs, runs, again=done) if runs else None
    job = _measurement(jobs, place)
    return reproduce_record(jobs, job) if job is not None else None


def cost_left(jobs: JobList, place: Place, runs: Sequence[Run], planned: Mapping[str, PlannedJob]) -> str | None:
    """What the number of the cell still costs.

    Args:
        jobs: The jobs of the experiment on the site where it will run.
        place: The cell.
        runs: The runs behind a cell of trained numbers.
        planned: What every job of the experiment still costs, by the ids of the jobs.

    Returns:
        A sentence, or None if nothing is left to do or this experiment cannot make the number.
    """
    wanted = [job_id(rule, run.id) for run in runs for rule in ("train_run", "evaluate_run")]
    wanted += [job_id("train_run", run.parent.id) for run in runs if run.parent]
    measurement = _measurement(jobs, place)
    if measurement is not None:
        wanted = [measurement.id]
    left = [planned[name] for name in dict.fromkeys(wanted) if planned[name].hours > 0]
    if not left:
        return None
    gpu_hours = sum(job.gpu_hours for job in left)
    duration = format_duration(3600 * sum(job.hours for job in left))
    spent = f"{gpu_hours:,.1f} GPU-hours" if gpu_hours else f"{duration} on a CPU core"
    trainings = sum(job.job.rule == "train_run" for job in left)
    what = f"{len(left)} job{'s' if len(left) > 1 else ''}"
    if trainings:
        what += f" ({trainings} training{'s' if trainings > 1 else ''})"
    sources = list(dict.fromkeys(source for job in left for source in job.sources))
    return f"about {spent} for {what}, estimated from: {'; '.join(sources)}"


def _measurement(jobs: JobList, place: Place) -> Job | None:
    """The job that counts or times what the cell shows; None for trained numbers, or if no group times all of it."""
    if place.column.verb == "complexity":
        return jobs[job_id("count_complexity", place.column.task)]
    for group in jobs.experiment.config.latency:
        if group.name == place.latency_group and {*place.models} <= {group.baseline, *group.models}:
            return jobs[job_id("measure_latency", group.name)]
    return None


def why_empty(
    experiment: Experiment,
    place: Place,
    runs: Sequence[Run],
    found: Sequence[Origin],
    others: Callable[[], Iterable[Experiment]],
) -> Iterator[str]:
    """Yield sentences on the runs and measurements that the cell needs and the experiment does not have.

    Args:
        experiment: The experiment.
        place: The cell.
        runs: The runs behind a cell of trained numbers.
        found: The records behind its value.
        others: Returns the other experiments, see `other_experiments`.
    """
    if place.column.verb == "evaluate":
        task, trained = place.column.task, {run.model.name for run in runs}
        for model in place.models:
            if model in trained:
                continue
            yield f"{experiment.file} does not train {model} for {task}; add it to train.{task}"
            for other in others():
                if model in other.config.train.get(task, []):
                    yield f"{other.file} trains it: {hafabench_command(other, 'explain', place.locator)}"
    elif place.column.verb == "latency" and not found:
        groups = {group.name: group for group in experiment.config.latency}
        group = groups.get(place.latency_group or "")
        if group is None:
            yield f"{experiment.file} has no latency measurement {place.latency_group!r}; add one to latency"
            return
        for model in place.models:
            if model not in (group.baseline, *group.models):
                yield f"latency measurement {group.name} of {experiment.file} does not time {model}"


def other_experiments(experiment: Experiment) -> Iterator[Experiment]:
    """Yield the valid experiments beside an experiment's file, and the shipped ones, without this one."""
    seen = {experiment.file.resolve()}
    beside, shipped = (sorted(folder.glob("*.yaml")) for folder in (experiment.file.parent, shipped_folder()))
    for path in (*beside, *shipped):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        try:
            if "experiment" in YamlFile(path).content:
                yield load_experiment(path)
        except UserError:
            continue  # `hafabench check` reports what is wrong with it.
