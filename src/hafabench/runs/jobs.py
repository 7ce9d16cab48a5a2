"""The one list of an experiment's jobs: what each job reads, writes, logs and requests, and the command that it runs.

The rules of the workflow take all of this from here, and ``hafabench plan``, ``status``, ``explain`` and ``cluster``
read the same list. It is pure data; torch and pandas are not imported.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import TASKS
from hafabench.config.site import Site
from hafabench.errors import Problem, UserError
from hafabench.runs import paths
from hafabench.runs.fingerprints import (
    complexity_fingerprint,
    dataset_fingerprint,
    fingerprint,
    latency_fingerprint,
)
from hafabench.runs.growth import NONE, Growth
from hafabench.runs.picture_runs import picture_files, picture_subjects
from hafabench.runs.records import expected_records, imported_records
from hafabench.runs.resources import ResourceRequests, Resources
from hafabench.runs.run import Run, expand, run_id
from hafabench.runs.static_models import counts_fingerprint

# The baseline of the regression gate.
BASELINE = Path("results/baseline")


@dataclass(frozen=True)
class Rule:
    """What all jobs of one rule of the workflow have in common.

    Texts and paths contain the wildcards of the rule in braces, for example ``{task}``. Braces of file names are
    doubled in the command, as `str.format` expects.

    Attributes:
        name: The name of the rule.
        subject: What a job of the rule is about; empty for a rule with a single job.
        command: The command line that does the work of a job.
        outputs: The files that a job writes.
        logs: The files that contain a job's own messages.
        priority: Snakemake starts jobs of a higher priority first.
        threads: CPU threads of a job if jobs share one machine; None means all threads.
        is_local: Whether the driver of the workflow runs the jobs itself, even if it submits others to a cluster.
        uses_gpu: Whether the jobs request GPUs.
    """

    name: str
    subject: str
    command: str
    outputs: tuple[Path, ...]
    logs: tuple[Path, ...]
    priority: int = 0
    threads: int | None = 1
    is_local: bool = False
    uses_gpu: bool = False


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        rule: The name of its rule.
        subject: The id of a run, a task or a latency group; empty if the rule has a single job.
        needs: The ids of the jobs that write its inputs.
        inputs: The files that it reads.
        outputs: The files that it writes.
        logs: The files that contain its own messages.
        command: The command line that repeats it by hand.
        fingerprint: The fingerprint of what it computes; None for a job that is repeated only when its inputs change.
        wildcards: The values of the rule's wildcards by name, in the order of the path.
        request: The resources that it requests, given how many attempts ran out of memory or time.
        priority, threads, is_local, uses_gpu: As in `Rule`.
        run: The run that it trains or evaluates.
    """

    rule: str
    subject: str
    needs: tuple[str, ...]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    logs: tuple[Path, ...]
    command: str
    fingerprint: str | None
    wildcards: Mapping[str, str] = field(default_factory=dict)
    request: Callable[[Growth], Resources] | None = field(default=None, compare=False, repr=False)
    priority: int = 0
    threads: int | None = 1
    is_local: bool = False
    uses_gpu: bool = False
    run: Run | None = field(default=None, compare=False, repr=False)

    @property
    def id(self) -> str:
        """The rule and the subject: ``train_run classification/pvt_tiny/seed0``."""
        return job_id(self.rule, self.subject)

    @property
    def log(self) -> Path:
        """The file that contains its own messages, or the first of several."""
        return self.logs[0]

    def resources(self, growth: Growth = NONE) -> Resources:
        """What it requests; without ``growth``, what its first attempt requests."""
        assert self.request is not None
        return self.request(growth)


def job_id(rule: str, subject: str = "") -> str:
    """The id of a job: ``("train_run", "classification/pvt_tiny/seed0")`` -> ``train_run classification/...``."""
    return f"{rule} {subject}".strip()


def hafabench_command(experiment: Experiment, *words: str) -> str:
    """The command line of ``hafabench`` for an experiment, quoted for the shell."""
    return " ".join([shlex.join(["hafabench", *words]), _experiment_option(experiment)])


def path_argument(path: Path) -> str:
    """A path as a word of a command line, which is no option even if the path begins with ``-``."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _experiment_option(experiment: Experiment) -> str:
    return f"--experiment {shlex.quote(path_argument(experiment.file))}"


class JobList(Mapping[str, Job]):
    """The jobs of an experiment by their ids, every job after those that it needs.

    Iteration yields the jobs that a complete run of the workflow consists of. `optional` contains the others, which
    run only when their rule or files are requested by name.

    Args:
        experiment: A checked experiment.
        site: The limits of the cluster's nodes; they bound what jobs request.
        speed: The speed of one GPU, relative to the GPU that ``throughput.yaml`` describes.

    Raises:
        UserError: If the runs of the experiment cannot be expanded (`hafabench.runs.run.expand`), or the files of
            rates and sizes are invalid.
    """

    def __init__(self, experiment: Experiment, site: Site | None = None, speed: float = 1.0):
        self.experiment = experiment
        self.site = site or Site()
        self.runs = expand(experiment)
        self.requests = ResourceRequests(experiment, self.site, speed)
        self.rules = _rules(experiment, self.runs)
        self.optional: dict[str, Job] = {}
        self._jobs: dict[str, Job] = {}
        self._writers: dict[Path, str] = {}
        self._by_wildcards: dict[tuple[str, ...], Job] = {}
        self._records = expected_records(experiment, self.runs)
        self._add_trainings()
        self._add_measurements()
        self._add_reports()

    @property
    def targets(self) -> list[Path]:
        """The files that a complete run of the workflow makes: the outputs of all jobs but the optional ones."""
        return [path for job in self.values() for path in job.outputs]

    def writer(self, path: Path) -> str | None:
        """The id of the job that writes a file; None if no job does."""
        return self._writers.get(path)

    @property
    def records(self) -> list[Path]:
        """The records that the tables are made from."""
        return list(self._records)

    def __getitem__(self, identifier: str) -> Job:
        return self._jobs[identifier]

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def find(self, rule: str, wildcards: Iterable[str] = ()) -> Job:
        """The job of a rule with these values of its wildcards.

        Raises:
            UserError: If the experiment has no such job.
        """
        values = tuple(wildcards)
        try:
            return self._by_wildcards[rule, *values]
        except KeyError:
            message = f"this experiment has no job {job_id(rule, '/'.join(values))}"
            raise UserError(Problem(str(self.experiment.file), "", message)) from None

    def _add_trainings(self) -> None:
        config = self.experiment.config
        for task in TASKS:
            if config.train.get(task):
                request = partial(self.requests.prepare_dataset, task)
                self._add("prepare_dataset", [], dataset_fingerprint(config.datasets[task]), request, {"task": task})
        for run in self.runs.values():
            wildcards = {"task": run.task, "model": run.model.name, "seed": str(run.seed)}
            data = paths.dataset_report(self.experiment, run.task)
            inputs = [data, run.parent.checkpoint] if run.parent else [data]
            self._add("train_run", inputs, run.fingerprint, partial(self.requests.train, run), wildcards, run)
            inputs = [run.checkpoint, data]
            self._add("evaluate_run", inputs, run.fingerprint, partial(self.requests.evaluate, run), wildcards, run)

    def _add_measurements(self) -> None:
        experiment, requests = self.experiment, self.requests
        for task in TASKS:
            expected = complexity_fingerprint(experiment, task)
            self._add("count_complexity", [], expected, requests.count_models, {"task": task})
        self._add("count_conventions", [], counts_fingerprint(experiment), requests.count_models)
        for group in experiment.config.latency:
            expected = latency_fingerprint(experiment, group)
            self._add(
                "measure_latency", [], expected, partial(requests.measure_latency, group), {"group": group.name}
            )

    def _add_reports(self) -> None:
        experiment, requests = self.experiment, self.requests
        # No job writes imported records, but the frame is made again when one is added or removed.
        records = self._records | imported_records(experiment)
        content = fingerprint({str(path): expected for path, expected in records.items()})
        self._add("collect_records", list(records), content, requests.collect_records)
        subjects = picture_subjects(self.runs)
        weights = [run.checkpoint for run in subjects.runs]
        content = fingerprint({"pictures": [run.fingerprint for run in subjects.runs]})
        drawn = subjects.can_be_drawn
        self._add("draw_pictures", weights, content, requests.draw_pictures, is_optional=not drawn)
        inputs = list(self.rules["draw_pictures"].outputs) if drawn else []
        inputs += [paths.frame_files(experiment)[0], paths.counts_record(experiment)]
        inputs += [experiment.tables_file, experiment.paper_values, experiment.claims_file]
        self._add("write_report", inputs, self._shown_in_report(), requests.write_report)
        self._add("regression", list(self._records), None, requests.collect_records, is_optional=True)

    def _shown_in_report(self) -> str:
        """The fingerprint of everything in a report that follows from the configuration and not from its inputs."""
        config = self.experiment.config.model_dump(mode="json", by_alias=True)
        for dataset in config["datasets"].values():
            del dataset["root"]
        return fingerprint({"report": config, "runs": {run.id: run.fingerprint for run in self.runs.values()}})

    def _add(
        self,
        name: str,
        inputs: list[Path],
        expected: str | None,
        request: Callable[[Growth], Resources],
        wildcards: Mapping[str, str] = MappingProxyType({}),
        run: Run | None = None,
        is_optional: bool = False,
    ) -> None:
        rule = self.rules[name]
        job = Job(
            rule=name,
            subject=rule.subject.format(**wildcards),
            needs=tuple(dict.fromkeys(self._writers[path] for path in inputs if path in self._writers)),
            inputs=tuple(inputs),
            outputs=tuple(_fill(path, wildcards) for path in rule.outputs),
            logs=tuple(_fill(path, wildcards) for path in rule.logs),
            command=rule.command.format(**wildcards),
            fingerprint=expected,
            wildcards=wildcards,
            request=request,
            priority=rule.priority,
            threads=rule.threads,
            is_local=rule.is_local,
            uses_gpu=rule.uses_gpu,
            run=run,
        )
        (self.optional if is_optional else self._jobs)[job.id] = job
        self._writers |= dict.fromkeys(job.outputs, job.id)
        self._by_wildcards[name, *wildcards.values()] = job


def _fill(path: Path, wildcards: Mapping[str, str]) -> Path:
    return Path(str(path).format(**wildcards)) if wildcards else path


def _literal(text: str) -> str:
    """Return a text in which no braces enclose a wildcard."""
    return text.replace("{", "{{").replace("}", "}}")


def _rules(experiment: Experiment, runs: Mapping[str, Run]) -> dict[str, Rule]:
    """The rules of the workflow by name."""
    uses_gpus = experiment.config.uses_gpus
    results, reports = experiment.results, experiment.reports
    run = run_id("{task}", "{model}", "{seed}")

    def command(*words: str) -> str:
        return " ".join(["hafabench", *words, _literal(_experiment_option(experiment))])

    regression = reports / "regression.md", reports / "regression.xml"
    compared = ["--baseline", BASELINE, "--candidate", results, "--limits"]
    compared.append(path_argument(experiment.companion("regression.yaml")))
    compared += ["--markdown", regression[0], "--junit", regression[1]]
    pictures = picture_files(experiment, picture_subjects(runs))
    rules = (
        Rule(
            name="prepare_dataset",
            subject="{task}",
            command=command("data", "prepare", "{task}"),
            outputs=(paths.dataset_report(experiment, "{task}"),),
            logs=(results / "data/{task}.log",),
            priority=100,
            # A real data set is verified file by file, which may take an hour.
            is_local=experiment.config.scale == "embedded",
        ),
        Rule(
            name="train_run",
            subject=run,
            command=command("train", run),
            outputs=(results / run / paths.CHECKPOINT,),
            logs=(results / run / paths.TRAIN_LOG,),
            priority=20,
            uses_gpu=uses_gpus,
        ),
        Rule(
            name="evaluate_run",
            subject=run,
            command=command("evaluate", run),
            outputs=(results / run / paths.EVALUATION,),
            logs=(results / run / paths.EVALUATE_LOG,),
            uses_gpu=uses_gpus,
        ),
        Rule(
            name="count_complexity",
            subject="{task}",
            command=command("complexity", "--task", "{task}", "--format", "record"),
            outputs=(paths.complexity_record(experiment, "{task}"),),
            logs=(results / "complexity/{task}.log",),
        ),
        Rule(
            name="count_conventions",
            subject="",
            command=command("count"),
            outputs=(paths.counts_record(experiment),),
            logs=(results / "counts.log",),
        ),
        Rule(
            name="measure_latency",
            subject="{group}",
            command=command("latency", "{group}"),
            outputs=(paths.latency_record(experiment, "{group}"),),
            logs=(results / "latency/{group}.log",),
            # No other job may run on the machine and disturb the measurement.
            threads=None,
            uses_gpu=uses_gpus,
        ),
        Rule(
            name="collect_records",
            subject="",
            command=command("collect"),
            outputs=paths.frame_files(experiment),
            logs=(results / "collect.log",),
            is_local=True,
        ),
        Rule(
            name="draw_pictures",
            subject="",
            command=command("pictures"),
            outputs=tuple(pictures),
            logs=(results / "pictures.log",),
        ),
        Rule(
            name="write_report",
            subject="",
            command=command("report"),
            outputs=paths.report_files(experiment),
            logs=(results / "report.log",),
            is_local=True,
        ),
        Rule(
            name="regression",
            subject="",
            command=_literal(shlex.join(["hafabench", "regress", *map(str, compared)])),
            # Without outputs the comparison is never up to date, so it runs whenever it is requested.
            outputs=(),
            logs=regression,
        ),
    )
    return {rule.name: rule for rule in rules}
