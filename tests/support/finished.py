"""A finished experiment whose jobs were never run: every output, with the digests of what it was made from."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.files import sha256_of, write_text
from hafabench.reporting.frame import collect_experiment
from hafabench.results.counts import Counts
from hafabench.results.record import write_record
from hafabench.runs.jobs import Job, JobList
from hafabench.runs.records import expected_contents
from hafabench.runs.state import MADE_FROM, made_from
from tests.support.experiments import evaluated
from tools import synthetic_records


def finish(experiment: Experiment) -> JobList:
    """Make all outputs of an experiment up, below the working folder, and return its jobs."""
    jobs = JobList(experiment)
    for job in (*jobs.values(), *jobs.optional.values()):
        make_up(jobs, job)
    return jobs


def make_up(jobs: JobList, job: Job) -> None:
    """Write the outputs and the logs of one job."""
    experiment = jobs.experiment
    about = {"fingerprint": job.fingerprint, "experiment": experiment.name, "scale": experiment.config.scale}
    if job.rule == "prepare_dataset":
        dataset = next(dataset for task, dataset in experiment.config.datasets.items() if task == job.subject)
        dataset.root.mkdir(parents=True, exist_ok=True)
        write_text(job.outputs[0], json.dumps({"identity": dataset.identity()}))
    elif job.rule == "train_run":
        write_text(job.outputs[0], job.id)
    elif job.rule == "evaluate_run" and job.run is not None:
        digest = sha256_of(job.run.checkpoint)
        evaluated(job.run, checkpoint_sha256=digest, experiment=experiment.name, scale=experiment.config.scale)
    elif job.rule == "count_complexity":
        numbers: dict[str, dict[str, float]] = defaultdict(dict)
        for model, name in sorted(expected_contents(experiment, jobs.runs)[job.outputs[0]].required):
            numbers[model][name] = 1.0
        write_record(job.outputs[0], synthetic_records.complexity(job.subject, numbers, **about))
    elif job.rule == "measure_latency":
        group = next(group for group in experiment.config.latency if group.name == job.subject)
        times = dict.fromkeys([group.baseline, *group.models], (1.0, 2.0, 3.0))
        write_record(job.outputs[0], synthetic_records.latency(group.name, times, baseline=group.baseline, **about))
    elif job.rule == "count_conventions":
        counts = Counts(
            experiment=experiment.name,
            fingerprint=job.fingerprint or "",
            cells=[],
            provenance=synthetic_records.provenance(),
        )
        write_text(job.outputs[0], counts.model_dump_json(by_alias=True))
    elif job.rule == "collect_records":
        collect_experiment(experiment)
    elif job.rule == "draw_pictures":
        _pictures(jobs, job)
    elif job.rule == "write_report":
        for path in job.outputs:
            write_text(path, f'<meta name="{MADE_FROM}" content="{made_from(job)}">')
    for log in job.logs:
        write_text(log, "it is done\n")


def _pictures(jobs: JobList, job: Job) -> None:
    shown = [run for run in jobs.runs.values() if run.checkpoint in job.inputs]
    weights = [
        {"run": run.id, "fingerprint": run.fingerprint, "checkpoint_sha256": sha256_of(run.checkpoint)}
        for run in shown
    ]
    for path in job.outputs:
        write_text(path, json.dumps({"clusters": None, "offsets": {"weights": weights}}))


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]
