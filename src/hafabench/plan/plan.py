"""The plan of an experiment: its cost from scratch, and the cost that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hafabench.config.experiment import Experiment
from hafabench.config.site import Site
from hafabench.config.tables import TableLayout
from hafabench.plan.claims import Question, Selection, choose, questions
from hafabench.plan.hours import PlannedJob, planned_jobs
from hafabench.plan.schedule import Schedule, schedule
from hafabench.runs.jobs import JobList, job_id
from hafabench.runs.run import Run, run_id
from hafabench.runs.state import JobState, RunState, job_states


@dataclass(frozen=True)
class TableCost:
    """The GPU-hours of a table.

    Attributes:
        id, title: The table.
        runs: The number of runs that it needs, including those that they start from.
        gpu_hours: GPU-hours of these runs from scratch.
        left: GPU-hours that these runs still take.
        added: The part of ``left`` for runs that no table above needs.
    """

    id: str
    title: str
    runs: int
    gpu_hours: float
    left: float
    added: float


@dataclass(frozen=True)
class Stale:
    """Results of another configuration, which will be made again.

    Attributes:
        id: The id of the run, or of the job of a measurement.
        changes: What differs, as clauses.
        gpu_hours: The GPU-hours that are needed to make it again.
    """

    id: str
    changes: tuple[str, ...]
    gpu_hours: float


@dataclass(frozen=True)
class Disk:
    """Estimated disk space in GB (10^9 bytes): data sets, final checkpoints, and states of running trainings."""

    datasets: dict[str, float]
    checkpoints: float
    work: float

    @property
    def total(self) -> float:
        """The sum of all three."""
        return sum(self.datasets.values()) + self.checkpoints + self.work


@dataclass(frozen=True)
class Plan:
    """The plan of an experiment.

    Attributes:
        experiment, title: The name and the title of the experiment.
        gpu: The GPU that estimates hold for; ``speed`` scales its speed.
        jobs: The jobs by id, each after those that it needs.
        runs: The state of every run.
        tables: The costs of the tables, in their order.
        schedule: When each job starts on the given number of GPUs.
        disk: The disk space that it takes.
        stale: Results that an edit of the configuration has invalidated.
        questions: The claims of the paper that the runs can settle.
        selection: The runs chosen for a budget; None without a budget.
    """

    experiment: str
    title: str
    gpu: str
    speed: float
    jobs: dict[str, PlannedJob]
    runs: dict[str, RunState]
    tables: tuple[TableCost, ...]
    schedule: Schedule
    disk: Disk
    stale: tuple[Stale, ...]
    questions: tuple[Question, ...]
    selection: Selection | None

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs from scratch."""
        return sum(job.gpu_hours_from_scratch for job in self.jobs.values())

    @property
    def gpu_hours_left(self) -> float:
        """GPU-hours that all jobs still take."""
        return sum(job.gpu_hours for job in self.jobs.values())


def make_plan(
    experiment: Experiment,
    *,
    gpus: int = 8,
    budget: float | None = None,
    site: Site | None = None,
    speed: float = 1.0,
) -> Plan:
    """Plan an experiment.

    Args:
        experiment: A checked experiment.
        gpus: The number of GPUs to schedule for.
        budget: GPU-hours to choose runs for; None chooses none.
        site: The limits of the cluster; they bound the GPUs of a training.
        speed: The speed of one GPU, relative to the GPU that ``throughput.yaml`` describes.

    Raises:
        UserError: If a file is invalid, the budget is negative, or a job needs more than ``gpus`` GPUs.
    """
    listed = JobList(experiment, site, speed)
    states = job_states(listed)
    jobs, runs = planned_jobs(listed, states), listed.runs
    found_questions = questions(experiment, runs)
    selection = None
    if budget is not None:
        parents = {run.id: run.parent.id if run.parent else None for run in runs.values()}
        selection = choose(found_questions, {run: _left(jobs, run) for run in runs}, parents, budget)
    return Plan(
        experiment=experiment.name,
        title=experiment.config.title,
        gpu=listed.requests.throughput.rates.gpu.value,
        speed=speed,
        jobs=jobs,
        runs={name: state for name in runs if (state := states[job_id("train_run", name)].run) is not None},
        tables=tuple(_tables(experiment, runs, jobs)),
        schedule=schedule(jobs, gpus),
        disk=_disk(listed, gpus),
        stale=tuple(_stale(jobs, states)),
        questions=tuple(found_questions),
        selection=selection,
    )


def _left(jobs: dict[str, PlannedJob], run: str) -> float:
    return sum(jobs[job_id(rule, run)].gpu_hours for rule in ("train_run", "evaluate_run"))


def _from_scratch(jobs: dict[str, PlannedJob], run: str) -> float:
    return sum(jobs[job_id(rule, run)].gpu_hours_from_scratch for rule in ("train_run", "evaluate_run"))


def _tables(experiment: Experiment, runs: dict[str, Run], jobs: dict[str, PlannedJob]) -> list[TableCost]:
    above: set[str] = set()
    tables = []
    for table_layout in experiment.table_layouts:
        if not any(column.verb == "evaluate" for column in table_layout.columns):
            continue
        needed = _runs_of(experiment, table_layout, runs)
        tables.append(
            TableCost(
                id=table_layout.id,
                title=table_layout.title,
                runs=len(needed),
                gpu_hours=sum(_from_scratch(jobs, run) for run in needed),
                left=sum(_left(jobs, run) for run in needed),
                added=sum(_left(jobs, run) for run in needed - above),
            )
        )
        above |= needed
    return tables


def _runs_of(experiment: Experiment, table_layout: TableLayout, runs: dict[str, Run]) -> set[str]:
    needed = set()
    for column in table_layout.columns:
        for row in table_layout.rows if column.verb == "evaluate" else ():
            for seed in experiment.config.seeds_of(row.model):
                run = runs.get(run_id(column.task, row.model, seed))
                while run is not None:
                    needed.add(run.id)
                    run = run.parent
    return needed


def _disk(jobs: JobList, gpus: int) -> Disk:
    throughput, runs = jobs.requests.throughput, jobs.runs
    rates = throughput.rates.dataset_kb_per_image
    datasets: dict[str, float] = {}
    for dataset in jobs.experiment.config.datasets.values():
        # Generated images are stored losslessly with at most three bytes per pixel, and a mask.
        generated = dataset.generator
        kilobytes = 4e-3 * generated.image_size**2 if generated else rates[dataset.data_format].value
        datasets[dataset.name] = datasets.get(dataset.name, 0.0) + sum(dataset.images.values()) * kilobytes * 1e-6
    # Single precision. A state contains weights and up to two moments, and is written before the old one is deleted.
    weights = [4e-9 * throughput.size(run.task, run.model).params for run in runs.values()]
    at_once = max(gpus // max(*(jobs.requests.gpus_of(run)[0] for run in runs.values()), 1), 1) if runs else 0
    return Disk(
        datasets=datasets,
        checkpoints=sum(weights),
        work=sum(sorted(weights, reverse=True)[:at_once]) * 3 * 2,
    )


def _stale(jobs: dict[str, PlannedJob], states: Mapping[str, JobState]) -> list[Stale]:
    """Stale results of runs and measurements, without reports, which only have to be written again."""
    found = []
    for identifier, job in jobs.items():
        state = states[identifier]
        if job.state != "stale" or job.job.is_local or job.job.rule == "evaluate_run":
            continue
        trained = state.run.run.id if state.run is not None else None
        hours = job.gpu_hours if trained is None else _left(jobs, trained)
        found.append(Stale(trained or identifier, state.changes, hours))
    return found
