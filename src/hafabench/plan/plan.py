"""What an experiment will cost before any of it is spent, and what is left of it once some is."""

from __future__ import annotations

from dataclasses import dataclass

from hafabench.config.experiment import Experiment
from hafabench.config.site import Site
from hafabench.config.tables import TableLayout
from hafabench.plan.claims import Question, Selection, choose, questions
from hafabench.plan.jobs import Job, job_id, make_jobs
from hafabench.plan.schedule import Schedule, schedule
from hafabench.runs.resources import ResourceBook
from hafabench.runs.run import Run, expand, run_id
from hafabench.runs.state import RunState


@dataclass(frozen=True)
class TableCost:
    """GPU-hours of a table.

    Attributes:
        id, title: of the table.
        runs: that it needs, those they start from included.
        gpu_hours: of these runs, from nothing.
        left: of these runs, from now on.
        added: from now on, beyond what the tables above it need already.
    """

    id: str
    title: str
    runs: int
    gpu_hours: float
    left: float
    added: float


@dataclass(frozen=True)
class Stale:
    """Work that was done under another configuration and will be done again.

    Attributes:
        id: of the run, or of the complexity or latency measurement.
        changes: what differs, as clauses.
        gpu_hours: of doing it again.
    """

    id: str
    changes: tuple[str, ...]
    gpu_hours: float


@dataclass(frozen=True)
class Disk:
    """Disk space (GB, 10^9 bytes), estimated: data sets, final checkpoints, and the states of running trainings."""

    datasets: dict[str, float]
    checkpoints: float
    work: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.datasets.values()) + self.checkpoints + self.work


@dataclass(frozen=True)
class Plan:
    """An experiment's plan.

    Attributes:
        jobs: by id, each after those it needs.
        runs: every run's state.
        tables: in order.
        schedule: with the GPUs planned with.
        disk: space that it takes.
        stale: work that an edit of the configuration invalidates.
        questions: what the paper claims and the runs can settle.
        selection: runs chosen for a budget, where one was given.
        gpu: the GPU that estimates are for; ``speed`` scales it.
    """

    experiment: str
    title: str
    gpu: str
    speed: float
    jobs: dict[str, Job]
    runs: dict[str, RunState]
    tables: tuple[TableCost, ...]
    schedule: Schedule
    disk: Disk
    stale: tuple[Stale, ...]
    questions: tuple[Question, ...]
    selection: Selection | None

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs, from nothing."""
        return sum(job.gpu_hours_anew for job in self.jobs.values())

    @property
    def gpu_hours_left(self) -> float:
        """GPU-hours of all jobs, from now on."""
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
        experiment: a checked experiment.
        gpus: GPUs to run on, for the schedule.
        budget: GPU-hours for which to choose runs.
        site: limits of the cluster; they bound GPUs per training.
        speed: of one GPU, relative to the one that throughput.yaml is about.

    Raises:
        UserError: for bad files, a negative budget, or too few GPUs for a job.
    """
    book = ResourceBook(experiment, site, speed)
    runs = expand(experiment)
    jobs, states = make_jobs(experiment, book)
    open_questions = questions(experiment, runs)
    selection = None
    if budget is not None:
        parents = {run.id: run.parent.id if run.parent else None for run in runs.values()}
        selection = choose(open_questions, {run: _left(jobs, run) for run in runs}, parents, budget)
    return Plan(
        experiment=experiment.name,
        title=experiment.config.title,
        gpu=book.throughput.rates.gpu.value,
        speed=speed,
        jobs=jobs,
        runs=states,
        tables=tuple(_tables(experiment, runs, jobs)),
        schedule=schedule(jobs, gpus),
        disk=_disk(experiment, book, runs, gpus),
        stale=tuple(_stale(jobs, states)),
        questions=tuple(open_questions),
        selection=selection,
    )


def _left(jobs: dict[str, Job], run: str) -> float:
    return jobs[job_id("train_run", run)].gpu_hours + jobs[job_id("evaluate_run", run)].gpu_hours


def _anew(jobs: dict[str, Job], run: str) -> float:
    return jobs[job_id("train_run", run)].gpu_hours_anew + jobs[job_id("evaluate_run", run)].gpu_hours_anew


def _tables(experiment: Experiment, runs: dict[str, Run], jobs: dict[str, Job]) -> list[TableCost]:
    above: set[str] = set()
    tables = []
    for layout in experiment.table_layouts:
        if not any(column.verb == "evaluate" for column in layout.columns):
            continue
        needed = _runs_of(experiment, layout, runs)
        tables.append(
            TableCost(
                id=layout.id,
                title=layout.title,
                runs=len(needed),
                gpu_hours=sum(_anew(jobs, run) for run in needed),
                left=sum(_left(jobs, run) for run in needed),
                added=sum(_left(jobs, run) for run in needed - above),
            )
        )
        above |= needed
    return tables


def _runs_of(experiment: Experiment, layout: TableLayout, runs: dict[str, Run]) -> set[str]:
    needed = set()
    for column in layout.columns:
        for row in layout.rows if column.verb == "evaluate" else ():
            for seed in experiment.config.seeds:
                run = runs.get(run_id(column.task, row.model, seed))
                while run is not None:
                    needed.add(run.id)
                    run = run.parent
    return needed


def _disk(experiment: Experiment, book: ResourceBook, runs: dict[str, Run], gpus: int) -> Disk:
    rates = book.throughput.rates.dataset_kb_per_image
    datasets = {}
    for dataset in experiment.config.datasets.values():
        # Composed scenes are stored without loss: at most three bytes a pixel, and a mask.
        generated = dataset.generator
        kilobytes = 4e-3 * generated.image_size**2 if generated else rates[dataset.data_format].value
        datasets[dataset.name] = datasets.get(dataset.name, 0.0) + sum(dataset.images.values()) * kilobytes * 1e-6
    # Single precision; a state holds weights and up to two moments, and is written beside the one before.
    weights = [4e-9 * book.throughput.size(run.task, run.model).params for run in runs.values()]
    at_once = max(gpus // max(*(book.gpus_of(run)[0] for run in runs.values()), 1), 1) if runs else 0
    return Disk(
        datasets=datasets,
        checkpoints=sum(weights),
        work=sum(sorted(weights, reverse=True)[:at_once]) * 3 * 2,
    )


def _stale(jobs: dict[str, Job], states: dict[str, RunState]) -> list[Stale]:
    found = [
        Stale(state.run.id, state.changes, _left(jobs, state.run.id))
        for state in states.values()
        if state.state == "stale"
    ]
    return found + [
        Stale(f"{job.rule} {job.subject}", ("its models or sizes",), job.gpu_hours)
        for job in jobs.values()
        if job.state == "stale" and job.subject not in states
    ]
