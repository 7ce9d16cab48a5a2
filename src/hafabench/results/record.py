"""A record: a JSON file with the numbers of one measurement and their provenance.

Records are written atomically, validated whenever they are read, and never edited: a record contains the SHA-256 of
its content, which reading compares (records of earlier versions contain none). All numbers in the tables come from
records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, Strict, ValidationInfo, field_validator, model_validator

from hafabench.config.base import StrictModel
from hafabench.config.experiment import Scale
from hafabench.config.json_file import read_json_model, read_json_object
from hafabench.config.metrics import METRICS, Verb, unknown_metric
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.results.digest import DIGEST, WithDigest, with_digest

# A text is not taken for a number, and a seed or a number of repetitions has to fit into 64 bits.
Number = Annotated[float, Strict(), Field(allow_inf_nan=True)]
FiniteNumber = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=0, lt=2**63)]

# The name of the record of a run's evaluation.
EVALUATION = "evaluate.json"
_ALWAYS_KNOWN = ("python", "device", "threads", "host", "started", "duration_s", "peak_memory_mb")


class Metric(StrictModel):
    """One number.

    Attributes:
        task: The task.
        model: The model's name.
        seed: The seed of the training; None for numbers that do not depend on a training.
        name: The name in `hafabench.config.metrics`.
        value: The value in ``unit``.
        unit: The unit, ``1`` for numbers without one.
        low, high: The first and third quartile of repeated measurements; None without repetition.
        repeats: The number of repeated measurements.
        convention: How it was counted or measured, if there is more than one way.
        interval: The interval that contains the true value with probability ``confidence``; None if unknown.
        confidence: The probability of ``interval``.
    """

    task: Literal["classification", "segmentation", "detection"]
    model: str
    seed: Count | None = None
    name: str
    value: Number
    unit: str
    low: FiniteNumber | None = None
    high: FiniteNumber | None = None
    repeats: Count | None = None
    convention: str | None = None
    interval: tuple[FiniteNumber, FiniteNumber] | None = None
    confidence: Annotated[FiniteNumber, Field(gt=0, lt=1)] | None = None


class Machine(StrictModel):
    """The machine, and its state while something was timed. Unknown values are None.

    Attributes:
        cpu: The CPU's model name.
        cores: The number of logical CPUs.
        affinity: The logical CPUs that the process may use.
        governors: The frequency governors in use.
        clock_mhz: The clock of the slowest and of the fastest core after the measurement.
        load: The one-minute load average before and after the measurement.
        busy_percent: The share of all CPU time during the measurement that was not idle.
        steal_percent: The share that the hypervisor took away.
        others_percent: The share that other processes or the hypervisor took.
        preemptions: How often the scheduler took the CPU from this process.
        gpu: The output of nvidia-smi.
    """

    cpu: str
    cores: int
    affinity: list[int] | None = None
    governors: list[str] | None = None
    clock_mhz: tuple[float, float] | None = None
    load: tuple[float, float] | None = None
    busy_percent: float | None = None
    steal_percent: float | None = None
    others_percent: float | None = None
    preemptions: int | None = None
    gpu: dict[str, str] | None = None


class Provenance(StrictModel):
    """Where and how a record was made. Unknown values are None.

    ``dataset_digest`` is the digest of the whole data set when it was verified. ``listing_digest`` is the digest of
    the files of the split that was evaluated.

    ``git_changes`` names the files that differed from the commit and can change a number; records of earlier versions
    do not have it.

    Interpreter, device, host, times and memory are always known, except for an imported record. The commit describes
    the code only if ``git_dirty`` is False, and the experiment file only if ``experiment_tracked`` is True.
    """

    command: str
    git_commit: str | None
    git_dirty: bool | None
    git_changes: list[str] | None = None
    experiment_tracked: bool | None = None
    packages: dict[str, str]
    python: str | None
    device: str | None
    threads: Count | None
    host: str | None
    started: str | None
    duration_s: Annotated[FiniteNumber, Field(ge=0)] | None
    peak_memory_mb: Annotated[FiniteNumber, Field(ge=0)] | None
    slurm_job_id: str | None = None
    checkpoint_sha256: str | None = None
    dataset_digest: str | None = None
    listing_digest: str | None = None


class ImportSource(StrictModel):
    """The source of an imported record.

    Attributes:
        kind: The format of the file. ``weights`` is a foreign checkpoint that was evaluated in this project.
        file: The path of the file as the user gave it.
        sha256: The SHA-256 of the file.
        read: The part of the file that was read (the epoch, the line), as a clause.
        imported: The time of the import (ISO 8601).
        also: Other files that were read, each with its SHA-256.
    """

    kind: Literal["timm", "mmengine", "csv", "weights"]
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    read: str
    imported: str
    also: dict[str, str] = Field(default_factory=dict)


class Collapse(StrictModel):
    """The outcome of a training that diverged. Such a run has no numbers, and it is not repeated.

    Attributes:
        run: The id of the run that diverged: the run of the record, or one whose weights it would start from.
        step: The optimiser step, counted from 1.
        loss: The loss of this step; None if it was not finite.
        lr: The learning rate of this step.
        reason: What was no longer finite, as a clause.
    """

    run: str
    step: Annotated[Count, Field(ge=1)]
    loss: Number | None = None
    lr: Number | None = None
    reason: str

    def clause(self, run: str) -> str:
        """The outcome of ``run`` as a clause: ``training collapsed at step 812 (the loss is nan)``."""
        if run == self.run:
            return f"training collapsed at step {self.step} ({self.reason})"
        return f"not run: its starting weights, {self.run}, collapsed at step {self.step}"


class StartingFile(StrictModel):
    """A file with published weights from which a training started.

    Attributes:
        file: The path of the file in the experiment file.
        sha256: The SHA-256 of the file.
        read: The part of the file that was read and the translation of its names, as clauses.
    """

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    read: str

    @property
    def text(self) -> str:
        """The name of the file with its SHA-256: ``pvt_tiny.pth (sha256 0123456789ab)``."""
        return f"{Path(self.file).name} (sha256 {self.sha256[:12]})"


class MergerFacts(StrictModel):
    """What one merger does, averaged over images (`hafabench.engines.merger_measurement`).

    Attributes:
        stage: The stage that begins with the merger.
        merger: ``laa`` or ``sia``.
        adjusted_rand_index: The agreement of SIA's clusters with the windows of fixed down-sampling; 1 if equal.
        window_pairs: The share of the pairs of positions in one window that SIA also puts into one cluster.
        mean_shift: The mean distance of LAA's sampling points from the regular grid, in positions of its input.
    """

    stage: Annotated[int, Strict(), Field(ge=2, le=4)]
    merger: Literal["laa", "sia"]
    adjusted_rand_index: Annotated[FiniteNumber, Field(ge=-1, le=1)] | None = None
    window_pairs: Annotated[FiniteNumber, Field(ge=0, le=1)] | None = None
    mean_shift: Annotated[FiniteNumber, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _has_its_numbers(self) -> MergerFacts:
        sia = (self.adjusted_rand_index, self.window_pairs)
        expected, others = (sia, (self.mean_shift,)) if self.merger == "sia" else ((self.mean_shift,), sia)
        if None in expected or any(value is not None for value in others):
            raise ValueError("expected adjusted_rand_index and window_pairs for sia, and mean_shift for laa")
        return self


class MergerMeasurement(StrictModel):
    """What the mergers of a model do.

    Attributes:
        images: The number of validation images.
        before: The measurements on the weights that the training started from; None if those were not available.
        after: The measurements on the final weights.
        no_before: Why there are no measurements before the training, as a clause.
    """

    images: Annotated[Count, Field(ge=1)]
    before: Annotated[list[MergerFacts], Field(min_length=1)] | None = None
    after: Annotated[list[MergerFacts], Field(min_length=1)]
    no_before: str | None = None

    @model_validator(mode="after")
    def _measures_the_same_mergers(self) -> MergerMeasurement:
        stages = [facts.stage for facts in self.after]
        if stages != sorted(set(stages)):
            raise ValueError(f"expected each stage once and in ascending order, found {stages}")
        if (self.before is None) != (self.no_before is not None):
            raise ValueError("expected either measurements before the training or the reason why there are none")
        merger_stages = [(facts.stage, facts.merger) for facts in self.after]
        if self.before is not None and [(facts.stage, facts.merger) for facts in self.before] != merger_stages:
            raise ValueError("expected the same mergers before and after the training")
        return self

    @property
    def lines(self) -> Iterator[str]:
        """Each merger's measurements before and after the training, as a line of text."""
        for index, after in enumerate(self.after):
            before = None if self.before is None else self.before[index]
            if after.merger == "laa":
                shift = f"(before training {before.mean_shift:.3f})" if before else "(before training unknown)"
                yield f"stage {after.stage}, LAA: mean shift {after.mean_shift:.3f} positions {shift}"
            else:
                rand, pairs = "(before training unknown)", "(before unknown)"
                if before:
                    rand = f"(before training {before.adjusted_rand_index:.3f})"
                    pairs = f"(before {before.window_pairs:.1%})"
                yield (
                    f"stage {after.stage}, SIA: adjusted Rand index with the fixed windows "
                    f"{after.adjusted_rand_index:.3f} {rand}, "
                    f"{after.window_pairs:.1%} of window pairs in one cluster {pairs}"
                )
        if self.no_before is not None:
            yield f"mergers were not measured before the training: {self.no_before}"


class _TrainingFacts(StrictModel):
    """The entries of the provenance of a training that frames and explanations contain."""

    git_changes: list[str] | None = None
    listing_digest: str | None = None
    seconds: Annotated[FiniteNumber, Field(ge=0)] | None = None
    steps: Count | None = None


class Record(StrictModel):
    """The numbers of one run and verb, or of one measurement over several models.

    Attributes:
        experiment: The name of the experiment.
        scale: The scale of the experiment.
        origin: ``imported`` if the numbers or the weights were made outside this project.
        verb: The verb that made the record.
        id: The id of the run (``classification/pvt_tiny/seed0``) or of the measurement (``complexity/segmentation``).
        fingerprint: The fingerprint of the resolved configuration. For an imported record, that of the data and sizes
            that its numbers are about (`hafabench.runs.fingerprints.imported_fingerprint`).
        collapse: The outcome of an evaluated run without numbers: its training diverged, or it did not begin because
            the training of its starting weights diverged.
        metrics: The numbers; none if the training collapsed.
        provenance: The provenance of this record.
        training: The provenance of the weights (steps, seconds, device, commit), from their checkpoint.
        source: The source of an imported record.
        predictions_sha256: The SHA-256 of the predictions that are stored beside the record.
        machine: The machine, with its state if something was timed.
        starting_weights: The published weights that the training started from; None if it started from weights of
            this project or from random ones.
        trained_params: The parameters of the evaluated model with its head, in the size in which it was trained;
            None in records of earlier versions and of other verbs.
        mergers: What the LAA and SIA mergers of the evaluated model do; None for other models, for other verbs and in
            records of earlier versions.
        warnings: Sentences that a reader of the numbers must know.
    """

    schema_: Literal["hafabench.record/1"] = Field("hafabench.record/1", alias="schema")
    experiment: str
    scale: Scale
    origin: Literal["measured", "imported"] = "measured"
    verb: Verb
    id: str
    fingerprint: str
    collapse: Collapse | None = None
    metrics: list[Metric]
    provenance: Provenance
    training: dict[str, Any] | None = None
    source: ImportSource | None = None
    predictions_sha256: str | None = None
    machine: Machine | None = None
    starting_weights: StartingFile | None = None
    trained_params: Count | None = None
    mergers: MergerMeasurement | None = None
    warnings: list[str] = Field(default_factory=list)

    @field_validator("metrics")
    @classmethod
    def _has_numbers_or_collapsed(cls, metrics: list[Metric], known: ValidationInfo) -> list[Metric]:
        collapsed = known.data.get("collapse") is not None
        if collapsed and (metrics or known.data.get("verb") != "evaluate" or known.data.get("origin") != "measured"):
            raise ValueError("expected no numbers, as the training collapsed")
        if not metrics and not collapsed:
            raise ValueError("expected at least one number")
        return metrics

    @field_validator("training")
    @classmethod
    def _training_has_the_types_of_the_frame(cls, training: dict[str, Any] | None) -> dict[str, Any] | None:
        if training is not None:
            _TrainingFacts.model_validate({key: training.get(key) for key in _TrainingFacts.model_fields})
        return training

    @model_validator(mode="after")
    def _provenance_is_complete(self) -> Record:
        if self.origin == "imported":
            if self.source is None:
                raise ValueError("an imported record needs a source")
            return self
        if self.source is not None:
            raise ValueError("a measured record must not have a source")
        unknown = [name for name in _ALWAYS_KNOWN if getattr(self.provenance, name) is None]
        if unknown:
            raise ValueError(f"a measured record needs {', '.join(unknown)}")
        return self


class _StoredRecord(Record, WithDigest):
    """A record as it is stored."""


def predictions_beside(record: Path) -> Path:
    """Return the file of the predictions that a record was made from.

    A run has one evaluation, but a folder of imported records has several.
    """
    return record.with_name("predictions.npz") if record.name == EVALUATION else record.with_suffix(".npz")


def outputs_beside(record: Path) -> Path:
    """Return the folder of the detections or label maps of the evaluation that a record describes."""
    return record.with_name("outputs" if record.name == EVALUATION else f"{record.stem}-outputs")


def is_output(path: Path) -> bool:
    """Whether an evaluation may write a file of this name, relative to the folder, to the folder `outputs_beside`."""
    return len(path.parts) == 1 and (
        path.suffix == ".png" or path.name in ("detections.bbox.json", "detections.segm.json")
    )


def is_record(path: Path) -> bool:
    """Whether a file is a record, valid or not, of this program."""
    content = read_json_object(path)
    return content is not None and content.get("schema") == Record.model_fields["schema_"].default


def write_record(path: Path, record: Record) -> None:
    """Write a record to a file atomically, with the SHA-256 of its content."""
    write_text(path, json.dumps(with_digest(record.model_dump(by_alias=True)), indent=2) + "\n")


def read_record(path: Path) -> Record:
    """Read and validate a record.

    Raises:
        UserError: If the file is missing, is not valid JSON, has another schema, its content is wrong (every problem
            is listed), or it was edited after it was written.
    """
    stored = read_json_model(path, _StoredRecord, missing="no such record")
    record = Record.model_construct(**{name: getattr(stored, name) for name in Record.model_fields})
    problems = [Problem(str(path), key, message) for key, message in value_problems(record)]
    if not problems and stored.content_sha256 is not None:
        message = f"the record was edited after it was written; {remedy(record)}"
        problems.append(Problem(str(path), DIGEST, message))
    if problems:
        raise UserError(problems)
    return record


def value_problems(record: Record) -> Iterator[tuple[str, str]]:
    """Yield the key and the message of every number that the record's verb does not measure for its task.

    A number has a name, a unit and a range (`hafabench.config.metrics`). Whether a record contains all numbers that
    it should is checked by `hafabench.results.checks`.
    """
    for index, metric in enumerate(record.metrics):
        key, spec = f"metrics[{index}]", METRICS.get(metric.name)
        if spec is None or metric.task not in spec.tasks:
            known = [name for name, of in METRICS.items() if metric.task in of.tasks and of.verb == record.verb]
            yield f"{key}.name", unknown_metric(metric.name, known, task=metric.task)
            continue
        if spec.verb != record.verb:
            yield f"{key}.name", f"{metric.name} is a number of {spec.verb}, but this is a record of {record.verb}"
        elif metric.unit != spec.unit:
            yield f"{key}.unit", f"expected {spec.unit!r} for {metric.name}, found {metric.unit!r}"
        elif problem := spec.range_problem(metric.value):
            yield f"{key}.value", f"{metric.name} of {metric.model} {problem}"
        else:
            yield from ((f"{key}.{name}", message) for name, message in _spread_problems(metric))


def _spread_problems(metric: Metric) -> Iterator[tuple[str, str]]:
    if metric.low is not None and metric.high is not None and metric.low > metric.high:
        yield "low", f"the first quartile, {metric.low:g}, is above the third, {metric.high:g}"
    if metric.interval is not None:
        low, high = metric.interval
        if not low <= metric.value <= high:
            yield "interval", f"expected an interval around {metric.value:g}, found {low:g} to {high:g}"
        # The logarithm of a bound outside of the range need not exist.
        elif problem := next(filter(None, map(METRICS[metric.name].range_problem, metric.interval)), ""):
            yield "interval", f"a bound {problem}"


class _Named(Protocol):
    """What a record and its place have in common."""

    @property
    def origin(self) -> str: ...
    @property
    def verb(self) -> str: ...
    @property
    def id(self) -> str: ...


def remedy(record: _Named) -> str:
    """Return what the user can do about a record that must not be used, as a clause.

    Args:
        record: The record, or its place (`hafabench.results.place.Place`) if it cannot be read.
    """
    if record.origin == "imported":
        return "import it again or delete it"
    if record.verb == "evaluate":
        return f"`hafabench evaluate {record.id}` makes it again"
    verb, _, subject = record.id.partition("/")
    command = f"complexity --task {subject} --format record" if verb == "complexity" else f"latency {subject}"
    return f"`hafabench {command}` makes it again"
