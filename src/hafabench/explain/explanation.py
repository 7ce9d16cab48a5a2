"""An explanation of one table cell as data, which `hafabench explain` shows as text, Markdown or JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafabench.explain.commands import Reproduction
from hafabench.explain.configuration import Setting

Details = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """The value of the cell in this project and in the paper, in the column's unit.

    Attributes:
        printed, delta_printed: The value and its difference from the baseline as the tables print them.
        mean, spread, n: Mean, standard deviation and number of seeds.
        delta, delta_interval: Difference from the baseline, and its confidence interval.
        by_seed: The value of each seed, by model and seed (or ``unknown``).
        mark: ``measured``, ``measured from published weights``, ``counted``, ``imported``, ``collapsed``, ``failed``
            ``stale`` or ``not run``.
        paper, paper_delta: The paper's value and difference; ``paper_printed`` shows both as the paper prints them.
    """

    printed: str
    delta_printed: str
    mean: float | None
    spread: float | None
    n: int | None
    delta: float | None
    delta_interval: tuple[float, float] | None
    by_seed: dict[str, dict[str, float]]
    mark: str
    paper: float | None
    paper_delta: float | None
    paper_printed: str


@dataclass(frozen=True)
class Verdict:
    """The verdict on the printed figure or difference, see `hafabench claims`."""

    claim: str
    printed: str
    verdict: str
    because: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint behind a number.

    Attributes:
        path: Its path.
        sha256: Its SHA-256 when it was evaluated.
        state: ``unchanged``, ``changed since`` or ``deleted``.
    """

    path: Path
    sha256: str
    state: str


@dataclass(frozen=True)
class Origin:
    """One record behind the value with its provenance; unknown values are None.

    Attributes:
        id: The id of the record.
        record: The record's file.
        value: The value as recorded, in ``unit``.
        shown: Whether it is part of the cell's value. Imported records are not if there are measured ones.
        origin: ``measured`` or ``imported``.
        how: How the value was counted or measured.
        took: Duration of the evaluation, counting or timing.
        training: Steps, seconds, resumes and so on of the training; None if nothing was trained here.
        starting_weights: File, digest and place of the published weights that the training started from.
        source: File, digest and place that an imported record was read from.
        logs: The log files that exist.
    """

    id: str
    record: Path
    value: float
    unit: str
    shown: bool
    origin: str
    how: str | None
    commit: str | None
    device: str | None
    host: str | None
    started: str | None
    took: str | None
    dataset_digest: str | None
    fingerprint: str
    command: str
    checkpoint: Checkpoint | None
    training: Details | None
    starting_weights: Details | None
    source: Details | None
    logs: tuple[Path, ...]


@dataclass(frozen=True)
class ExplainedRun:
    """One run behind the cell.

    Attributes:
        id: The id of the run.
        state: ``done``, ``trained``, ``interrupted``, ``stale`` or ``missing``.
        changes: The changes of the configuration that make the run stale.
        fingerprint: The fingerprint of its configuration.
        starts_from: The run whose weights it starts from, or a clause about published weights.
        model: Architecture, mergers, query mode and fidelity.
        dataset: Name, root, numbers of images and classes, and the digest of the last verification.
        settings: The resolved configuration next to the recipe's.
    """

    id: str
    state: str
    changes: tuple[str, ...]
    fingerprint: str
    starts_from: str | None
    model: Details
    dataset: Details
    settings: list[Setting]


@dataclass(frozen=True)
class Explanation:
    """An explanation of a cell.

    Attributes:
        locator: The cell's locator.
        what: The cell in words.
        experiment, scale: Name and scale of the experiment.
        warning: Warning about embedded data; empty at full scale.
        value: The cell's value.
        verdicts: The verdicts on what the paper prints in the cell.
        notes: Sentences about missing runs and measurements, and about records that come from different data.
        origins: The records behind the value.
        runs: The runs behind the value.
        accounting: The cost of the cell's jobs on a cluster, one entry per job.
        cost: The cost of what is missing; None if nothing is.
        remake: The commands that reproduce the value; None if this experiment cannot make it.
    """

    locator: str
    what: str
    experiment: str
    scale: str
    warning: str
    value: Value
    verdicts: list[Verdict]
    notes: list[str]
    origins: list[Origin]
    runs: list[ExplainedRun]
    accounting: list[Details]
    cost: str | None
    remake: Reproduction | None
