"""Everything that is known of one cell: the data that `hafabench explain` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafabench.explain.commands import Remake
from hafabench.explain.configuration import Setting

Facts = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """This project's half of the cell, and the paper's; in the column's unit.

    Attributes:
        printed, delta_printed: as the tables print them.
        mean, spread, n: over seeds.
        delta, delta_interval: against the baseline.
        by_seed: model -> seed (or ``unknown``) -> value.
        mark: ``measured``, ``counted``, ``imported`` or ``not run``.
        paper, paper_delta: what the paper prints; ``paper_printed`` with its digits.
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
    """What the claims ledger says of the printed figure or difference, see `hafabench claims`."""

    claim: str
    printed: str
    verdict: str
    because: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint behind a number.

    Attributes:
        path: where it lies, or lay.
        sha256: as recorded when it was evaluated.
        state: ``unchanged``, ``another file now`` or ``no longer there``.
    """

    path: Path
    sha256: str
    state: str


@dataclass(frozen=True)
class Origin:
    """One record behind the value, and what it says; unknown values are None.

    Attributes:
        id: of the record.
        value: seed or model -> value as recorded, in the record's unit.
        shown: whether it is part of the cell's value; imported records beside measured ones are not.
        training: steps, seconds, resumes and so on of the weights; None for what was not trained here.
        source: of an imported record: file, digest, what was read.
        logs: files that are there.
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
    training: Facts | None
    source: Facts | None
    logs: tuple[Path, ...]


@dataclass(frozen=True)
class RunFacts:
    """One run behind the cell.

    Attributes:
        state: done, trained, interrupted, stale or missing; ``changes`` say what makes it stale.
        starts_from: the run whose weights it starts from.
        dataset: name, root, images, and the digest that was verified last.
        settings: the resolved configuration beside the recipe's.
    """

    id: str
    state: str
    changes: tuple[str, ...]
    fingerprint: str
    starts_from: str | None
    model: Facts
    dataset: Facts
    settings: list[Setting]


@dataclass(frozen=True)
class Explanation:
    """What is known of a cell.

    Attributes:
        locator: as the claims name it.
        what: the cell in words.
        warning: what has to be read first; empty at full scale.
        notes: sentences on what is not there, and why.
        accounting: what the cell's jobs have cost on a cluster, one entry each.
        cost: what is left to spend before the cell is there; None where nothing is.
        remake: how to make it again; None where this experiment has no way.
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
    runs: list[RunFacts]
    accounting: list[Facts]
    cost: str | None
    remake: Remake | None
