"""How a cell is made, what that costs, and why there is nothing in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hafabench.config.experiment import Experiment, load_experiment
from hafabench.config.site import load_site, site_file
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import UserError
from hafabench.explain.commands import Remake, remake_record, remake_runs, verb_line
from hafabench.explain.explanation import Origin
from hafabench.explain.locate import Place
from hafabench.plan.jobs import job_id, make_jobs
from hafabench.runs.paths import complexity_record, latency_record
from hafabench.runs.resources import ResourceBook
from hafabench.runs.run import Run


def remake(
    experiment: Experiment, place: Place, runs: Sequence[Run], found: Sequence[Origin], *, done: bool
) -> Remake | None:
    """How to make the cell again; None where this experiment has no way to.

    Args:
        runs: behind a trained cell.
        found: the records behind its value.
        done: whether every run is there.
    """
    imported = [origin for origin in found if origin.shown and origin.origin == "imported"]
    if imported and not runs:
        commands = list(dict.fromkeys(origin.command for origin in imported))
        return Remake(" && ".join(commands), ())
    if place.column.verb == "evaluate":
        return remake_runs(experiment, runs, again=done) if runs else None
    if place.column.verb == "complexity":
        task = place.column.task
        verb = ["complexity", "--task", task, "--format", "record"]
        return remake_record(experiment, complexity_record(experiment, task), verb)
    for group in experiment.config.latency:
        if group.name == place.latency_group and {*place.models} <= {group.baseline, *group.models}:
            return remake_record(experiment, latency_record(experiment, group), ["latency", group.name])
    return None


def cost_left(experiment: Experiment, place: Place, runs: Sequence[Run]) -> str | None:
    """What is left to spend before the cell is there; None where this experiment has no way to make it."""
    site = load_site(site_file()) if site_file().is_file() else None
    jobs, _ = make_jobs(experiment, ResourceBook(experiment, site))
    wanted = [job_id(rule, run.id) for run in runs for rule in ("train_run", "evaluate_run")]
    wanted += [job_id("train_run", run.parent.id) for run in runs if run.parent]
    if place.column.verb == "complexity":
        wanted = [job_id("count_complexity", place.column.task)]
    elif place.column.verb == "latency":
        wanted = [job_id("measure_latency", place.latency_group or "")]
    left = [jobs[name] for name in dict.fromkeys(wanted) if name in jobs and jobs[name].hours > 0]
    if not left:
        return None
    gpu_hours = sum(job.gpu_hours for job in left)
    minutes = 60 * sum(job.hours for job in left)
    spent = f"{gpu_hours:,.1f} GPU-hours" if gpu_hours else f"{minutes:,.0f} minutes on a CPU core"
    trainings = sum(job.rule == "train_run" for job in left)
    what = f"{len(left)} jobs ({trainings} trainings)" if trainings else f"{len(left)} job"
    bases = list(dict.fromkeys(source for job in left for source in job.sources))
    return f"about {spent} for {what}; it rests on: {'; '.join(bases)}"


def why_nothing(experiment: Experiment, place: Place, runs: Sequence[Run], found: Sequence[Origin]) -> list[str]:
    """Sentences on what the cell lacks: runs or measurements that the experiment does not have."""
    notes = []
    if place.column.verb == "evaluate":
        task, trained = place.column.task, {run.model.name for run in runs}
        absent = [model for model in place.models if model not in trained]
        for model in absent:
            notes.append(f"{experiment.file} does not train {model} for {task}: name it under train.{task}")
            notes += [f"{file} does: {line}" for file, line in _elsewhere(experiment, place, model)]
    elif place.column.verb == "latency" and not found:
        groups = {group.name: group for group in experiment.config.latency}
        group = groups.get(place.latency_group or "")
        if group is None:
            notes.append(
                f"{experiment.file} has no latency measurement {place.latency_group!r}: name one under latency"
            )
        else:
            notes += [
                f"latency measurement {group.name} of {experiment.file} does not time {model}"
                for model in place.models
                if model not in (group.baseline, *group.models)
            ]
    return notes


def _elsewhere(experiment: Experiment, place: Place, model: str) -> Iterator[tuple[Path, str]]:
    """Experiments beside this one that train the model, each with the command that explains the cell there."""
    for path in sorted(experiment.file.parent.glob("*.yaml")):
        if path == experiment.file:
            continue
        try:
            if "experiment" not in YamlFile(path).content:
                continue
            other = load_experiment(path)
        except UserError:
            continue  # not in order: `hafabench check` says why, to whoever asks about that one
        if model in other.config.train.get(place.column.task, []):
            yield path, verb_line(other, "explain", place.locator)
